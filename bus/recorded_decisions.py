"""The audit stream as a backtest reads it: verified decisions alone, what does not verify told apart."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable

from sealbus.bus.audit_trail import AuditEntry, Finding
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.work_records import DenialsRecord
from sealbus.policies.recorded import CountedDenials, Recorded, RecordedDecision

__all__ = ["recorded_decisions"]


async def recorded_decisions(
    entries: AsyncIterable[AuditEntry | Finding], on_finding: Callable[[Finding], None]
) -> AsyncGenerator[Recorded, None]:
    """Yield the decisions of `entries`, and the denials that were only counted, in order.

    Each finding is given to `on_finding` and is no decision. Other records say nothing that a policy could be asked.
    """
    async for entry in entries:
        if isinstance(entry, Finding):
            on_finding(entry)
        elif isinstance(entry.record, DenialsRecord):
            yield CountedDenials(caller=entry.record.iss.value, count=sum(entry.record.counts.values()))
        elif isinstance(entry.record, DecisionRecord) and entry.decided is not None:
            yield RecordedDecision.of(
                entry.record,
                sequence=entry.sequence,
                time=entry.stored,
                leaf=entry.leaf,
                recorder=entry.recorder.value,
                caller=entry.decided.iss.value,
            )
