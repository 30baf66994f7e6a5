"""What came of permitted messages, recorded; and the acknowledgement that goes out with it."""

from __future__ import annotations

from collections.abc import Callable

from sealbus.bus.audit import AuditWriter
from sealbus.bus.clock import Clock, wall_clock
from sealbus.bus.work import Work
from sealbus.envelopes.errors import Code

__all__ = ["Outcomes", "delivery_of"]


class Outcomes:
    """Notes outcomes for one worker; each was decided and recorded as allowed before."""

    def __init__(self, audit: AuditWriter, clock: Clock = wall_clock) -> None:
        self._audit = audit
        self._clock = clock

    async def settle(self, work: Work, code: Code | None, started: int) -> None:
        """Record the outcome; the delivery is acknowledged once that was tried, so that both go out together."""
        pull = work.pull
        await self.note(work, code, started, (lambda: pull.ack([work.delivery])) if pull is not None else lambda: None)

    async def note(self, work: Work, code: Code | None, started: int, then: Callable[[], None] = lambda: None) -> None:
        """Record the outcome of this attempt and call `then` once that was tried."""
        permitted = work.permitted
        await self._audit.outcome(
            decision=permitted.leaf,
            code=code,
            micros=max(0, self._clock() - started),
            delivery=delivery_of(work),
            sent=permitted.sent,
            then=then,
        )


def delivery_of(work: Work) -> int:
    """Return which delivery this is, from 1."""
    return work.delivery.position.delivery if work.delivery.position is not None else 1
