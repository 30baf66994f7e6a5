"""Completes tasks in batches: tells the requester, records the outcome, settles the delivery.

A terminal status is stored before its delivery is acknowledged: if a process dies between the two, the status is stored
again and its reader takes the first. The statuses of completed tasks are stored in one write, to save round trips.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import batch_from
from sealbus.bus.clocks import BusClock
from sealbus.bus.routing.routes import TaskReporter
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import Claim
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.status_writer import Statuses
from sealbus.envelopes.records.work import OutcomeRecord

TOGETHER: Final = 256
"""Tasks whose statuses are stored in one write: no more than the outbox puts under one signature."""

AT_A_TIME: Final = 4
"""Batches at a time: a batch that waits for its acknowledgements does not block the next."""


class Outcomes:
    """Records outcomes for one worker; each decision was recorded as allowed before."""

    def __init__(self, audit: AuditWriter, clock: BusClock) -> None:
        self._audit = audit
        self._clock = clock

    async def settle(self, work: Work, code: str | None) -> None:
        """Record the outcome and acknowledge the delivery once the record was tried, so that both go out together."""
        await self.note(work, code, work.ack)

    async def note(self, work: Work, code: str | None, then: Callable[[], None] = lambda: None) -> None:
        """Record the outcome of this attempt and call `then` once the record was tried."""
        permitted = work.permitted
        if permitted.span is not None and code is not None:
            permitted.span.failed(code)
        record = OutcomeRecord.of(
            decision=permitted.leaf,
            code=code,
            micros=max(0, self._clock() - work.started),
            delivery=work.delivery.number,
            sent=tuple(permitted.sent),
        )
        await self._audit.note(record, then)


class Finished(NamedTuple):
    """A task whose handler has returned `result`, and whose effect is noted as done."""

    work: Work
    claim: Claim
    reporter: TaskReporter
    result: Content


class Completion:
    """Stores the final statuses of completed tasks and settles their deliveries, for one worker.

    Start `AT_A_TIME` tasks that await `run`, and call `close` to end them.
    """

    def __init__(self, *, statuses: Statuses, effects: Effects, outcomes: Outcomes, waiting: int = 1_024) -> None:
        self._statuses = statuses
        self._effects = effects
        self._outcomes = outcomes
        self._queue: asyncio.Queue[Finished | None] = asyncio.Queue(waiting)

    async def put(self, finished: Finished) -> None:
        """Queue one task; waits while the queue is full."""
        await self._queue.put(finished)

    async def join(self) -> None:
        """Wait until everything that was queued is settled."""
        await self._queue.join()

    async def close(self) -> None:
        """Settle everything that was queued, then end `run`."""
        for _ in range(AT_A_TIME):
            await self._queue.put(None)

    async def run(self) -> None:
        """Tell requesters and settle deliveries in batches, until closed."""
        last = False
        while not last:
            batch, last = batch_from(await self._queue.get(), self._queue, TOGETHER)
            try:
                if batch:
                    await self._complete(batch)
            finally:
                for _ in range(len(batch) + last):
                    self._queue.task_done()

    async def _complete(self, batch: Sequence[Finished]) -> None:
        stored = await self._statuses.store_each(
            [
                (finished.work.header, finished.reporter.numbered(State.COMPLETED, result=finished.result))
                for finished in batch
            ]
        )
        for finished, is_stored in zip(batch, stored, strict=True):
            if is_stored:
                self._effects.told(finished.claim)
            else:
                self._effects.untold(finished.claim)
            await self._outcomes.settle(finished.work, None)
