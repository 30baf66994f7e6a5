"""What an export holds, counted: of how much, by whom, and what was decided.

Finds the records that a log holds more than once: a record is named by its leaf, and counts where it stands first.

A recorder that was not sure whether the stream had a record stores it again; and whoever captured an audit message may
have it stored again. 22 bytes for each record are all that is kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import Record
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["MOST_ROWS", "NAME_BYTES", "RepeatedRecords", "Row", "Span", "Tally"]

MOST_ROWS = 10_000
"""Rows that are told apart; whoever makes up actions fills no memory, and what is over counts under `...`."""

_CODES: Final = frozenset({"", *Code})

_new: Final = tuple.__new__
"""Makes a named tuple in half the time that its own `__new__` takes, which is Python."""


class Row(NamedTuple):
    """What counts together. `verdict` is allow, deny, done or failed; `code` is empty where there is none."""

    agent: str
    action: str
    verdict: str
    code: str


class Span(NamedTuple):
    """From when until before when entries are counted by row, in microseconds; no end: None."""

    since: int = 0
    until: int | None = None

    def holds(self, time: int) -> bool:
        """Tell whether `time` lies in it."""
        return time >= self.since and (self.until is None or time < self.until)


@dataclass(slots=True)
class Tally:
    """Counts of entries by kind, of records by kind, and of decisions and outcomes by row."""

    entries: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    rows: Counter[Row] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add what another counted."""
        self.entries.update(other.entries)
        self.records.update(other.records)
        for row, count in other.rows.items():
            self._count(row, count)

    def remove(self, other: Tally) -> None:
        """Take records away that another counted; entries stay."""
        self.records.subtract(other.records)
        for row, count in other.rows.items():
            self._count(row, -count)

    def take(self, record: Record, recorder: SpiffeId, *, counted: bool) -> None:
        """Count a verified record; by row only where it is `counted`."""
        self.records[record.kind] += 1
        if not counted:
            return
        agent = recorder.value
        if isinstance(record, DecisionRecord):
            self._count(_new(Row, (agent, record.action, "allow" if record.allow else "deny", record.code or "")), 1)
        elif isinstance(record, OutcomeRecord):
            self._count(_new(Row, (agent, "", "failed" if record.code else "done", record.code or "")), 1)
        elif isinstance(record, DenialsRecord):
            for code, count in record.counts.items():
                self._count(Row(agent, "", "deny", str(code)), count)

    def _count(self, row: Row, count: int) -> None:
        if len(self.rows) >= MOST_ROWS and row not in self.rows:
            # Any text of the right form may be a code: whoever makes those up fills no memory either.
            row = Row("...", "...", row.verdict, row.code if row.code in _CODES else "...")
        self.rows[row] += count


NAME_BYTES: Final = 16
"""How much of a leaf tells records apart: two leaves that begin alike are found by nobody in 2^64 tries."""
_TILE_BYTES: Final = 6
"""Tiles of a log of 2^53 entries have numbers below 2^45."""
_ROW: Final = NAME_BYTES + _TILE_BYTES


class RepeatedRecords:
    """Takes the names of the records of each tile, in the order of tiles."""

    def __init__(self) -> None:
        # In parts by the first byte of the name, so that names become objects of one part at a time only.
        self._parts = [bytearray() for _ in range(256)]

    def take(self, tile: int, names: bytes) -> None:
        """Take the `names` of a tile's records, joined: the first `NAME_BYTES` of each leaf."""
        place = tile.to_bytes(_TILE_BYTES, "big")
        for at in range(0, len(names), NAME_BYTES):
            self._parts[names[at]] += names[at : at + NAME_BYTES] + place

    def again(self) -> dict[int, frozenset[bytes]]:
        """Return by tile the names of those of its records that stand in an earlier tile, too."""
        found: dict[int, set[bytes]] = {}
        for part in self._parts:
            seen: set[bytes] = set()
            for at in range(0, len(part), _ROW):
                name = bytes(part[at : at + NAME_BYTES])
                if name in seen:
                    found.setdefault(int.from_bytes(part[at + NAME_BYTES : at + _ROW], "big"), set()).add(name)
                seen.add(name)
        return {tile: frozenset(names) for tile, names in sorted(found.items())}
