"""What happens now: decisions and outcomes of the last seconds, by who decided and about what (pure)."""

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
"""How long an event counts, microseconds."""
MOST: Final = 100_000
"""Events that are counted: of more in one span the oldest do not count."""


class _Event(NamedTuple):
    at: int
    key: tuple[str, str]
    allowed: int = 0
    denied: int = 0
    failed: int = 0
    micros: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One agent and one action. Rates are events a second; of handling, the median and the 99th percentile in milliseconds.

    `p50` and `p99` are `None` where nothing was handled.
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
        """Count one record; those that say nothing of decisions or handling do not count."""
        agent, record = entry.recorder.path, entry.record
        if isinstance(record, DecisionRecord):
            said = _Event(entry.stored, (agent, record.action), allowed=record.allow, denied=not record.allow)
        elif isinstance(record, OutcomeRecord) and entry.decision is not None:
            failed = record.code is not None
            said = _Event(entry.stored, (agent, entry.decision.action), failed=failed, micros=record.micros)
        elif isinstance(record, DenialsRecord):
            said = _Event(entry.stored, (agent, "(only counted)"), allowed=record.allowed, denied=record.denied)
        else:
            return
        self._events.append(said)

    def rows(self, now: int) -> list[Rate]:
        """Return the rates at `now` (microseconds), the busiest first; what is older is forgotten."""
        while self._events and self._events[0].at <= now - SPAN:
            self._events.popleft()
        found: dict[tuple[str, str], list[_Event]] = {}
        for one in self._events:
            found.setdefault(one.key, []).append(one)
        return sorted(_rates(found), key=lambda one: (-(one.allowed + one.denied), one.agent, one.action))


def _rates(found: dict[tuple[str, str], list[_Event]]) -> Iterator[Rate]:
    seconds = SPAN / SECOND
    for (agent, action), events in found.items():
        taken = sorted(one.micros for one in events if one.micros is not None)
        yield Rate(
            agent=agent,
            action=action,
            allowed=sum(one.allowed for one in events) / seconds,
            denied=sum(one.denied for one in events) / seconds,
            failed=sum(one.failed for one in events) / seconds,
            p50=taken[len(taken) // 2] / 1_000 if taken else None,
            p99=taken[min(len(taken) - 1, len(taken) * 99 // 100)] / 1_000 if taken else None,
        )
