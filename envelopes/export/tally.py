"""Counts over an export: entries, records, decisions and outcomes, by recorder; and processes without an end.

It also finds the records that a log has more than once. The leaf of a record names it, and the record counts at its first
place. A recorder that is not sure whether the stream has a record stores it again. An attacker who captured an audit message
may store it again, too. Memory is 22 bytes a record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.processes import OpenProcesses
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.envelopes.records.record import LaterRecord, Record
from sealbus.envelopes.records.work import READ_AGAIN, DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_LATER: Final = "later"
"""Under this, records of kinds that this version does not know are counted together."""

MOST_ROWS = 10_000
"""Most distinct rows, so that invented actions cannot fill memory. Further rows count under `...`."""

_CODES: Final = frozenset({"", *(code.value for code in Code)})

_new: Final = tuple.__new__
"""Makes a named tuple in half the time of its own `__new__`, which is written in Python."""


class Row(NamedTuple):
    """The key of a count. `verdict` is allow, deny, done or failed; `code` is empty if there is none."""

    agent: str
    action: str
    verdict: str
    code: str


class Span(NamedTuple):
    """The time in which entries are counted by row, in microseconds, from `since` to before `until`; None for no end."""

    since: int = 0
    until: int | None = None

    def holds(self, time: int) -> bool:
        """Return whether `time` is within the span."""
        return time >= self.since and (self.until is None or time < self.until)


@dataclass(slots=True)
class Tally:
    """Counts of entries by kind, of records by kind, and of decisions and outcomes by row."""

    entries: Counter[str] = field(default_factory=Counter)
    records: Counter[str] = field(default_factory=Counter)
    rows: Counter[Row] = field(default_factory=Counter)
    processes: OpenProcesses = field(default_factory=OpenProcesses)
    """The processes that started in the span, and have no end in the log."""

    @property
    def later(self) -> int:
        """The number of records of kinds that this version does not know."""
        return self.records[_LATER]

    def add(self, other: Tally) -> None:
        """Add the counts of another tally, of the part of the log that follows."""
        self.processes.add(other.processes)
        self.entries.update(other.entries)
        self.records.update(other.records)
        for row, count in other.rows.items():
            self._count(row, count)

    def remove(self, other: Tally) -> None:
        """Subtract the record counts of another tally, of repeated records; entries stay."""
        self.processes.remove(other.processes)
        self.records.subtract(other.records)
        for row, count in other.rows.items():
            self._count(row, -count)

    def take_record(self, record: Record, recorder: SpiffeId, *, counted: bool, time: int = 0) -> None:
        """Count a verified record, stored at `time` (microseconds), by kind and, if it is `counted`, by row."""
        # Any agent may invent kinds, and they must not fill memory.
        self.records[_LATER if isinstance(record, LaterRecord) else record.kind] += 1
        if isinstance(record, ProcessRecord):
            self.processes.take_record(record, recorder, time=time, counted=counted)
        if not counted:
            return
        agent = recorder.value
        if isinstance(record, DecisionRecord):
            self._count(_new(Row, (agent, record.action, "allow" if record.allow else "deny", record.code or "")), 1)
        elif isinstance(record, OutcomeRecord):
            self._count(_new(Row, (agent, "", "failed" if record.code else "done", record.code or "")), 1)
        elif isinstance(record, DenialsRecord):
            for code, count in record.counts.items():
                self._count(Row(agent, "", "allow" if code == READ_AGAIN else "deny", str(code)), count)

    def _count(self, row: Row, count: int) -> None:
        if len(self.rows) >= MOST_ROWS and row not in self.rows:
            # Any text of the right form may be a code, and invented codes must not fill memory, either.
            row = Row("...", "...", row.verdict, row.code if row.code in _CODES else "...")
        self.rows[row] += count


NAME_BYTES: Final = 16
"""Bytes of a leaf that identify a record. To find two leaves with the same beginning takes some 2^64 tries."""
_TILE_BYTES: Final = 6
"""Tiles of a log of 2^53 entries have numbers below 2^45."""
_ROW: Final = NAME_BYTES + _TILE_BYTES


class RepeatedRecords:
    """Finds repeated records from the names of each tile's records, in the order of tiles."""

    def __init__(self) -> None:
        # In parts by the first byte of the name, so that only one part's names are objects at a time.
        self._parts = [bytearray() for _ in range(256)]

    def take_names(self, tile: int, names: bytes) -> None:
        """Take the joined `names` of a tile's records: the first `NAME_BYTES` of each leaf."""
        place = tile.to_bytes(_TILE_BYTES, "big")
        for at in range(0, len(names), NAME_BYTES):
            self._parts[names[at]] += names[at : at + NAME_BYTES] + place

    def repeated_by_tile(self) -> dict[int, frozenset[bytes]]:
        """Return, by tile, the names of records that an earlier tile has, too."""
        repeated: dict[int, set[bytes]] = {}
        for part in self._parts:
            seen: set[bytes] = set()
            for at in range(0, len(part), _ROW):
                name = bytes(part[at : at + NAME_BYTES])
                if name in seen:
                    repeated.setdefault(int.from_bytes(part[at + NAME_BYTES : at + _ROW], "big"), set()).add(name)
                seen.add(name)
        return {tile: frozenset(names) for tile, names in sorted(repeated.items())}
