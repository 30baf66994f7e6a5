"""What an export holds, counted: of how much, by whom, and what was decided."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records import Record
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.work_records import DenialsRecord, OutcomeRecord

__all__ = ["MOST_ROWS", "Row", "Span", "Tally"]

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
