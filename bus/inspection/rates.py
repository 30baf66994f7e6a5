"""Rates of decisions and outcomes in the last seconds, by agent and action (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord

SPAN: Final = 10 * SECOND
"""Microseconds for which an event counts."""
MOST: Final = 100_000
"""Most events that are counted. If one span has more, the oldest do not count."""


class _Event(NamedTuple):
    at: int
    key: tuple[str, str]
    allowed: int = 0
    denied: int = 0
    failed: int = 0
    micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The rates of one agent and action, in events a second.

    `p50` and `p99` are percentiles of the handling time in milliseconds; `None` where nothing was handled.
    """

    agent: str
    action: str
    allowed: float
    denied: float
    failed: float
    p50: float | None
    p99: float | None


class Rates:
    """The events of the last `SPAN`. Times are those at which the broker stored records, microseconds."""

    def __init__(self) -> None:
        self._events: deque[_Event] = deque(maxlen=MOST)

    def add(self, entry: AuditEntry) -> None:
        """Count one record of a decision, an outcome or denials; other records do not count."""
        agent, record = entry.recorder.path, entry.record
        if isinstance(record, DecisionRecord):
            event = _Event(entry.stored, (agent, record.action), allowed=record.allow, denied=not record.allow)
        elif isinstance(record, OutcomeRecord) and entry.decision is not None:
            failed = record.code is not None
            event = _Event(entry.stored, (agent, entry.decision.action), failed=failed, micros=record.micros)
        elif isinstance(record, DenialsRecord):
            event = _Event(entry.stored, (agent, "(only counted)"), allowed=record.allowed, denied=record.denied)
        else:
            return
        self._events.append(event)

    def rows(self, now: int) -> list[Rate]:
        """Return the rates at `now` (microseconds), the busiest first, and forget older events."""
        while self._events and self._events[0].at <= now - SPAN:
            self._events.popleft()
        groups: dict[tuple[str, str], list[_Event]] = {}
        for event in self._events:
            groups.setdefault(event.key, []).append(event)
        return sorted(_rates(groups), key=lambda rate: (-(rate.allowed + rate.denied), rate.agent, rate.action))


def _rates(groups: dict[tuple[str, str], list[_Event]]) -> Iterator[Rate]:
    seconds = SPAN / SECOND
    for (agent, action), events in groups.items():
        durations = sorted(event.micros for event in events if event.micros is not None)
        yield Rate(
            agent=agent,
            action=action,
            allowed=sum(event.allowed for event in events) / seconds,
            denied=sum(event.denied for event in events) / seconds,
            failed=sum(event.failed for event in events) / seconds,
            p50=durations[len(durations) // 2] / 1_000 if durations else None,
            p99=durations[min(len(durations) - 1, len(durations) * 99 // 100)] / 1_000 if durations else None,
        )
