"""The auth callout as a role of the control process: a responder, and an ordinary connection for what it refused.

The ordinary connection is decided on by the callout like any other, so that it can only be made once this answers: what was
refused before that is kept, up to a bound.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from sealbus.agents.control.callout.opening import into_refusals, open_callout
from sealbus.agents.control.callout.responder import Callout, RefusedConnection
from sealbus.agents.runtime import connection_of, open_engine, open_identity
from sealbus.agents.settings import Settings
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.bus.refusals import Refusals
from sealbus.bus.rotation import ConnectionOptions, backoff
from sealbus.bus.transport import NatsTransport
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.subjects import refused_subject

__all__ = ["CONTROL", "CalloutRole", "open_callout_role"]

_log: Final = logging.getLogger(__name__)

CONTROL: Final = "control"
"""The name of the control process's workload."""

KEPT: Final = 256
"""Refusals that are kept while there is no connection to publish them on; of more, the oldest are dropped and counted."""


class RefusedConnections:
    """Takes down refused connections, and publishes their counts and samples as long as `run` does."""

    def __init__(
        self, connect: Callable[[], AbstractAsyncContextManager[Connection]], *, subject: str, counters: Counters
    ) -> None:
        self._connect = connect
        self._subject = subject
        self._counters = counters
        self._kept: deque[RefusedConnection] = deque()
        self._note: Callable[[RefusedConnection], None] | None = None

    def note(self, refused: RefusedConnection) -> None:
        """Take down one; never blocks."""
        if self._note is not None:
            self._note(refused)
            return
        if len(self._kept) == KEPT:
            self._kept.popleft()
            self._counters.add("sealbus_refusals_lost_total", 1)
        self._kept.append(refused)

    async def run(self) -> None:
        """Connect, publish, and connect again where that ends, until cancelled."""
        options, attempt = ConnectionOptions(), 0
        while True:
            attempt += 1
            try:
                async with self._connect() as connection:
                    attempt = 0
                    await self._publish(connection)
            except SealbusError as error:
                _log.warning("refused connections are not published yet: %s", error.detail)
            await asyncio.sleep(backoff(max(1, attempt), options, random.random))

    async def _publish(self, connection: Connection) -> None:
        refusals = Refusals(transport=NatsTransport(connection), subject=self._subject, counters=self._counters)
        self._note = into_refusals(refusals)
        try:
            while self._kept:
                self._note(self._kept.popleft())
            await refusals.run()
        finally:
            self._note = None


class CalloutRole:
    """A responder that runs, with what it refused on its way to the operators."""

    def __init__(self, callout: Callout, refused: RefusedConnections) -> None:
        self._callout = callout
        self._refused = refused

    @property
    def problem(self) -> str:
        """Why connections cannot be answered now; empty where they can."""
        return self._callout.problem

    async def run(self) -> None:
        """Answer and publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._callout.run(), name="callout")
            group.create_task(self._refused.run(), name="callout-refused")


@asynccontextmanager
async def open_callout_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[CalloutRole, None]:
    """Open identity, policy engine and the responder's connection. Raises `SealbusError` for what is missing."""
    async with open_identity(CONTROL, settings, counters=counters) as identity:
        refused = RefusedConnections(
            lambda: connection_of(CONTROL, settings, identity, counters),
            subject=refused_subject(settings.names.token(identity.spiffe_id)),
            counters=counters,
        )
        async with (
            open_engine(settings.policy, identity) as engine,
            open_callout(
                settings, identity=identity, engine=engine, counters=counters, on_refused=refused.note
            ) as callout,
        ):
            yield CalloutRole(callout, refused)
