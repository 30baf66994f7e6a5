"""Find decisions in the audit stream: by an id, or page by page backwards. Each is verified as it is read.

Recent decisions are in memory (`feed`). To find an id in older ones, the stored bytes are searched without verifying them,
and only messages with the id are opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from sealbus.agents.console.decisions.feed import DecisionFeed
from sealbus.agents.console.decisions.rows import DecisionRow, OutcomeRow, row_of
from sealbus.agents.console.decisions.what_if import ReplayableDecision
from sealbus.bus.audit.trail import AuditEntry, AuditTrail, Finding, recorded_decision
from sealbus.bus.inspection.backwards import backwards
from sealbus.bus.nats.api import audit_stream
from sealbus.bus.ports import Delivery, Request, Transport
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.names import Names

SEARCHED: Final = 10.0
"""Seconds for which one request searches backwards. Then it returns the place where it stopped."""
BEHIND: Final = 2_000
"""Messages after a decision that are searched for its outcome."""
WINDOW: Final = 500
"""Messages of a page that are opened at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions to list; an empty field matches all. Times are microseconds."""

    agent: str = ""
    user: str = ""
    action: str = ""
    reason: str = ""
    allow: bool | None = None
    since: int = 0
    until: int | None = None

    def matches(self, row: DecisionRow) -> bool:
        """Return whether `row` passes the filter."""
        return (
            (not self.agent or self.agent in (row.sender, row.decider))
            and (not self.user or self.user == row.user)
            and (not self.action or self.action == row.action)
            and (not self.reason or self.reason in (*row.reasons, row.code))
            and (self.allow is None or self.allow == row.allow)
            and row.time >= self.since
            and (self.until is None or row.time < self.until)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPage:
    """Decisions, the newest first. The next page has those below the sequence `before`; 0 if there is no next page."""

    rows: tuple[DecisionRow, ...]
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDecision:
    """A decision, with its outcome if that is known."""

    entry: AuditEntry
    outcome: OutcomeRow | None


class DecisionSearch:
    """Finds decisions. `trail` opens the stream after a sequence."""

    def __init__(
        self,
        feed: DecisionFeed,
        trail: Callable[[int], AuditTrail],
        *,
        transport: Transport,
        request: Request,
        names: Names,
    ) -> None:
        self._feed = feed
        self._trail = trail
        self._transport = transport
        self._request = request
        self._names = names

    async def find_decisions(self, name: bytes) -> list[FoundDecision]:
        """Return the decisions that belong to `name`, the newest first.

        `name` is a message's id or hash, the id of a user's request (`X-Request-Id` of the edge), or a record's hash. The
        search goes backwards for `SEARCHED` seconds. Raises `BusUnavailable`.
        """
        sequences = sorted({row.sequence for row in self._feed.rows() if row.is_called(name)})
        if not sequences:
            sequences = await self._stored(name)
        results: list[FoundDecision] = []
        for sequence in reversed(sequences[-16:]):
            async with aclosing(self._entries(sequence, sequence)) as entries:
                decisions = [
                    entry
                    async for entry in entries
                    if isinstance(entry, AuditEntry)
                    and isinstance(row := row_of(entry, self._names), DecisionRow)
                    and row.is_called(name)
                    and isinstance(entry.record, DecisionRecord)
                ]
            results += [
                FoundDecision(entry=decision, outcome=await self._outcome(decision)) for decision in reversed(decisions)
            ]
        return results

    async def page(self, wanted: DecisionFilter, *, before: int | None, most: int) -> DecisionPage:
        """Return up to `most` decisions whose sequence is below `before`, by default the newest. Raises `BusUnavailable`."""
        rows: list[DecisionRow] = []
        recent = list(self._feed.rows())
        oldest = recent[-1].sequence if recent else self._feed.last + 1
        for row in recent:
            if (before is None or row.sequence < before) and wanted.matches(row):
                rows.append(row)
                if len(rows) == most:
                    return DecisionPage(rows=tuple(rows), before=row.sequence)
        end = (oldest if before is None else min(before, oldest)) - 1
        first = (await audit_stream(self._request)).first
        deadline = asyncio.get_running_loop().time() + SEARCHED
        while end >= max(first, 1) and len(rows) < most:
            begin = max(first, end - WINDOW + 1)
            async with aclosing(self._entries(begin, end)) as entries:
                window = [row_of(entry, self._names) async for entry in entries if isinstance(entry, AuditEntry)]
            matching = [row for row in window if isinstance(row, DecisionRow) and wanted.matches(row)]
            for row in reversed(matching):
                rows.append(row)
                if len(rows) == most:
                    return DecisionPage(rows=tuple(rows), before=row.sequence)
            end = begin - 1
            if asyncio.get_running_loop().time() > deadline or any(
                isinstance(row, DecisionRow) and row.time < wanted.since for row in window
            ):
                break
        reached = end >= max(first, 1) and not (rows and rows[-1].time < wanted.since)
        return DecisionPage(rows=tuple(rows), before=end + 1 if reached else 0)

    async def period(self, *, since: int, until: int, most: int) -> list[ReplayableDecision]:
        """Return up to `most` decisions of a period with records of their own, the newest first. Raises `BusUnavailable`."""
        decisions: list[ReplayableDecision] = []
        state = await audit_stream(self._request)
        end = state.last
        deadline = asyncio.get_running_loop().time() + SEARCHED
        while end >= max(state.first, 1) and len(decisions) < most and asyncio.get_running_loop().time() < deadline:
            begin = max(state.first, end - WINDOW + 1)
            window: list[ReplayableDecision] = []
            oldest = until
            async with aclosing(self._entries(begin, end)) as entries:
                async for entry in entries:
                    oldest = min(oldest, entry.stored)
                    decision = _again(entry, self._names)
                    if decision is not None and since <= decision.row.time < until:
                        window.append(decision)
            decisions += reversed(window)
            end = begin - 1
            if oldest < since:
                break
        return decisions[:most]

    async def _stored(self, name: bytes) -> list[int]:
        """Return the sequences of the messages that hold `name`, in the newest window that has any."""
        state = await audit_stream(self._request)

        def holds(delivery: Delivery) -> int:
            at = delivery.arrival.sequence if delivery.arrival is not None else 0
            return at if name in delivery.payload else 0

        source = backwards(
            self._transport, state.name, [SUBJECTS[AUDIT]], first=state.first, last=state.last, keep=holds
        )
        deadline = asyncio.get_running_loop().time() + SEARCHED
        async with aclosing(source) as windows:
            async for window in windows:
                if sequences := sorted({sequence for sequence in window if sequence}):
                    return sequences
                if asyncio.get_running_loop().time() > deadline:
                    break
        return []

    async def _outcome(self, entry: AuditEntry) -> OutcomeRow | None:
        outcome = self._feed.outcome(entry.leaf)
        if outcome is not None or not isinstance(entry.record, DecisionRecord) or not entry.record.allow:
            return outcome
        async with aclosing(self._entries(entry.sequence, entry.sequence + BEHIND)) as entries:
            async for later in entries:
                row = row_of(later, self._names) if isinstance(later, AuditEntry) else None
                if isinstance(row, OutcomeRow) and row.record == entry.leaf:
                    return row
        return None

    async def _entries(self, first: int, last: int) -> AsyncGenerator[AuditEntry | Finding, None]:
        """Yield the entries from sequence `first` to `last`, verified."""
        async with aclosing(self._trail(first - 1).entries()) as entries:
            async for entry in entries:
                if entry.sequence > last:
                    return
                yield entry


def _again(entry: AuditEntry | Finding, names: Names) -> ReplayableDecision | None:
    if isinstance(entry, Finding):
        return None
    row, recorded = row_of(entry, names), recorded_decision(entry)
    if not isinstance(row, DecisionRow) or not row.message or recorded is None:
        return None
    return ReplayableDecision(row=row, recorded=recorded)
