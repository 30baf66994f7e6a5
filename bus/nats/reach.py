"""The streams of one cell, as a connection reaches them (`sealbus.bus.cells`)."""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.bus.nats.connection.connection import Connection


@dataclass(frozen=True, slots=True)
class NatsCell:
    """The cell whose subjects `connection` finds under `prefix`; without one, the cell of the connection."""

    connection: Connection
    prefix: str = ""
    """What stands before each subject that is sent to this cell."""

    async def request(self, subject: str, payload: bytes) -> bytes:
        """Ask the JetStream API of this cell (`Connection.jetstream`)."""
        return await self.connection.jetstream(self.prefix + subject, payload)
