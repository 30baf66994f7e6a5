"""The streams of one cell, as a connection reaches them (`sealbus.bus.cells`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealbus.bus.cells import cell_prefix
from sealbus.bus.nats.connection.connection import Connection, NoResponder
from sealbus.bus.ports import NotPermitted
from sealbus.envelopes.errors import ConfigurationError

_NO_CELL: Final = "0"
"""The name of no cell: those begin with a letter."""
_WITHIN: Final = 5.0


@dataclass(frozen=True, slots=True)
class NatsCell:
    """The cell `name` as `connection` reaches it; without a name, the cell of the connection."""

    connection: Connection
    name: str = ""

    @property
    def prefix(self) -> str:
        """What stands before each subject that is sent to this cell."""
        return cell_prefix(self.name) if self.name else ""

    async def request(self, subject: str, payload: bytes) -> bytes:
        """Ask the JetStream API of this cell (`Connection.jetstream`)."""
        return await self.connection.jetstream(self.prefix + subject, payload)


async def refuse_cells(connection: Connection) -> None:
    """Raise `ConfigurationError` if NATS lets this workload ask other cells; raise `BusUnavailable` if that is not known.

    For a process that follows no policy: it knows no cells, and would handle what is canceled in another one. Where there are
    cells, the starter policy lets everybody list the streams of all (`sealbus.lib.connections`).
    """
    try:
        await connection.request(f"{cell_prefix(_NO_CELL)}$JS.API.STREAM.NAMES", b"", deadline=_WITHIN)
    except NotPermitted:
        return
    except NoResponder:
        pass
    raise ConfigurationError(
        "there may be cells, which only the policy names: set policy.bundle (NATS lets this workload publish under cell.*)"
    )
