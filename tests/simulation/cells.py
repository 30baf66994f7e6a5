"""The cells of a simulation: the second one beside the default, and the log that the notaries of each keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sealbus.bus.cells import DEFAULT
from sealbus.envelopes.log.note import NoteSigner

__all__ = ["CELLS", "EAST", "LOGS", "CellLog", "agent_on"]

EAST: Final = "east"
"""The cell into which some seeds put some of the agents."""
CELLS: Final = (DEFAULT, EAST)


@dataclass(frozen=True, slots=True)
class CellLog:
    """The log of the records of one cell: the identity of its notaries, their hosts, and what it is named and signed by."""

    notary: str
    hosts: tuple[str, ...]
    console: str
    """The host of the console that shows these records, where there are consoles."""
    origin: str
    signer: NoteSigner


def _log(notary: str, hosts: tuple[str, ...], console: str, origin: str, key: bytes) -> CellLog:
    return CellLog(notary, hosts, console, origin, NoteSigner(origin, key))


LOGS: Final[Mapping[str, CellLog]] = MappingProxyType(
    {
        DEFAULT: _log("notary", ("notary-1", "notary-2"), "console", "log.example.org/audit", bytes(range(32))),
        EAST: _log("notary-east", ("notary-east",), "console-east", "log.example.org/audit-east", bytes(range(1, 33))),
    }
)
"""The log of each cell."""


def agent_on(host: str) -> str:
    """Return the name of the agent whose process runs on a host: several have a number."""
    name, _, number = host.rpartition("-")
    return name if number.isdigit() else host
