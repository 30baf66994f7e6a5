"""An ordinary connection of the control process, which its own callout lets in, kept for what is done over it.

It can be made only once the callout answers, so that nothing may wait for it before that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from sealbus.bus.connection import Connection
from sealbus.bus.rotation import ConnectionOptions, backoff
from sealbus.envelopes.errors import SealbusError

__all__ = ["Ordinary", "Use"]

_log: Final = logging.getLogger(__name__)

Use = Callable[[Connection], Awaitable[None]]
"""Something that is done over a connection until it is cancelled; what it raises has all be begun anew."""


class Ordinary:
    """Connects by `connect` and does `uses` over it, again and again where that fails, while `run` does."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Connection]], uses: Sequence[Use]) -> None:
        self._connect = connect
        self._uses = tuple(uses)

    async def run(self) -> None:
        """Do so until cancelled."""
        options, attempt = ConnectionOptions(), 0
        while True:
            attempt += 1
            try:
                async with self._connect() as connection:
                    attempt = 1
                    await self._do(connection)
            except* SealbusError as group:
                _log.warning("the control process has no ordinary connection: %s", _first(group))
            await asyncio.sleep(backoff(attempt, options, random.random))

    async def _do(self, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            for use in self._uses:
                group.create_task(_whole(use, connection))


async def _whole(use: Use, connection: Connection) -> None:
    await use(connection)


def _first(group: BaseExceptionGroup[SealbusError]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.detail if isinstance(error, SealbusError) else type(error).__name__
