"""Checks the streams again on every new link: a server that came back may not be the one that was left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sealbus.bus.connection import Connection
from sealbus.bus.link import Link
from sealbus.bus.stream_check import check_streams
from sealbus.bus.streams import Stream
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["StreamGuard"]

_log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds until a check that got no answer is made again."""


class StreamGuard:
    """Attach it to a connection and own its `run`, which raises `ConfigurationError` once a stream is not as declared."""

    def __init__(self, streams: Sequence[Stream], connection: Connection) -> None:
        self._streams = tuple(streams)
        self._connection = connection
        self._entered = asyncio.Event()
        self.checked = asyncio.Event()
        """Set once the streams were checked on the link that is in use now."""

    def enter(self, link: Link) -> None:
        """Ask for a check on the new link."""
        del link
        self.checked.clear()
        self._entered.set()

    async def leave(self, link: Link) -> None:
        """Expect nothing from the old link."""

    def lost(self, link: Link) -> None:
        """Expect nothing from a lost link."""

    async def run(self) -> None:
        """Check after each new link until cancelled."""
        while True:
            await self._entered.wait()
            self._entered.clear()
            try:
                await check_streams(self._streams, self._connection.jetstream)
            except BusUnavailable as error:
                _log.warning("streams not checked, trying again: %s", error)
                await asyncio.sleep(AGAIN)
                self._entered.set()
            else:
                self.checked.set()
