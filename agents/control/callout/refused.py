"""Refused connections on their way to the operators: kept while they cannot be published, up to a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from sealbus.agents.control.callout.opening import into_refusals
from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.bus.refusals import Refusals
from sealbus.bus.transport import NatsTransport

__all__ = ["KEPT", "RefusedConnections"]

KEPT: Final = 256
"""Refusals that are kept while there is no connection to publish them on; of more, the oldest are dropped and counted."""


class RefusedConnections:
    """Takes down refused connections, and publishes their counts and samples under `subject` while `publish` runs."""

    def __init__(self, *, subject: str, counters: Counters) -> None:
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

    async def publish(self, connection: Connection) -> None:
        """Publish what was taken down and what comes, until cancelled."""
        refusals = Refusals(transport=NatsTransport(connection), subject=self._subject, counters=self._counters)
        self._note = into_refusals(refusals)
        try:
            while self._kept:
                self._note(self._kept.popleft())
            await refusals.run()
        finally:
            self._note = None
