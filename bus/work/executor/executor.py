"""Runs the handlers of permitted messages: bounded, in order of arrival, each under its deadline, each with an outcome.

A fixed number of handlers run at a time, each in a task that takes work from one bounded queue; a full queue blocks the
gate, which blocks the pull. Work whose handler or partition has reached its limit waits in a line beside the queue. An
exception from a handler ends its attempt, never that task. What follows the handler of a task or event (status, record,
acknowledgement) runs in the background while the next handler runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import Background, BoundedTasks
from sealbus.bus.ports import Delivery, Pull, Settlement
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.routing.stages import Decided
from sealbus.bus.routing.timers import Deadlines, take_back_cancellations
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.site import Site
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.parking import Parking
from sealbus.bus.work.executor.attempt import Attempts
from sealbus.bus.work.executor.completion import AT_A_TIME, Completion, Outcomes
from sealbus.bus.work.executor.concurrency import ConcurrencyLimits
from sealbus.bus.work.executor.durable import DurableWork
from sealbus.bus.work.executor.ending import AnswerError, TurnDown, decide_refusal
from sealbus.bus.work.executor.replies import Replier
from sealbus.bus.work.executor.settlement import Stores, WorkSettlement
from sealbus.bus.work.executor.told_detail import NO_DETAIL, ErrorDetail
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.denial import NOTHING_TOLD
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.message.kinds import Kind

_logger = logging.getLogger(__name__)

FINISHING = 1_024
"""Most deliveries whose handler is done and whose end is being stored. With so many, handlers and gate wait."""

SIGNALS = 3
"""Progress signals in each `ack_wait` for deliveries that wait or are handled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorLimits:
    """Bounds of an executor. `ack_wait` is that of its consumers, in seconds: the broker gets a sign of life in time."""

    concurrency: int = 64
    """Handlers that run at a time."""
    waiting: int = 1_024
    """Permitted messages that wait for a handler; with so many, the gate waits."""
    ack_wait: float = 30.0


class Executor:
    """Runs the handlers of permitted messages; enter with `async with`, and `drain` before leaving to finish queued work.

    Without `parking` no task waits for an approval.
    """

    def __init__(
        self,
        site: Site,
        stores: Stores,
        *,
        outbox: Outbox,
        audit: AuditWriter,
        limits: ExecutorLimits,
        detail: ErrorDetail = NO_DETAIL,
        parking: Parking | None = None,
    ) -> None:
        self._site = site
        self._stores = stores
        self._limits = limits
        self._detail = detail
        self._parking = parking
        self._queue: asyncio.Queue[Work] = asyncio.Queue()
        """Messages that may be handled: at most `waiting`, and those that have a limited place."""
        self._room = asyncio.BoundedSemaphore(limits.waiting)
        self._concurrency = ConcurrencyLimits()
        self._unsettled: dict[Work, None] = {}
        self._deadlines = Deadlines()
        self._group = Background()
        self._background = BoundedTasks(self._group, FINISHING)
        outcomes = Outcomes(audit, site.bus_clock)
        self._completion = Completion(statuses=stores.statuses, effects=stores.effects, outcomes=outcomes)
        attempts = Attempts(deadlines=self._deadlines, give_up=self._give_up, ending=self._ending, tell=detail.of)
        self._replier = Replier(site, outbox=outbox, outcomes=outcomes, stops=stores.stops, attempts=attempts)
        self._settlement = WorkSettlement(
            site,
            stores,
            outcomes=outcomes,
            completion=self._completion,
            background=self._background,
            detail=detail,
        )
        self._durable = DurableWork(
            site, stores, attempts=attempts, settlement=self._settlement, background=self._background
        )
        self.reporter = stores.statuses.reporter
        """Returns the reporter of a task's status, or `None` for a call or an event."""
        self._running: set[asyncio.Task[None]] = set()
        self._alive: asyncio.Task[None] | None = None
        self._given_up: dict[Work, bool] = {}
        """Work whose handler did not stop, and runs on; and whether another runs in its place."""
        self._operator_log = OperatorLog(_logger)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for number in range(self._limits.concurrency):
            self._start(self._handle_queued(), f"handler-{number}")
        self._alive = self._start(self._stay_alive(), "handlers-alive")
        for number in range(AT_A_TIME):
            self._group.create_task(self._completion.run(), name=f"completion-{number}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in list(self._running):
            task.cancel()
        if kind is None:
            await self._completion.close()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            self._deadlines.close()

    async def mark(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """Return `decided`, with a mark on each task to park; unchanged without a `Parking`."""
        return decided if self._parking is None else await self._parking.mark(decided)

    async def put(self, permitted: Permitted, delivery: Delivery, settlement: Settlement | None) -> None:
        """Queue one permitted message; waits while the queue is full."""
        work = Work(permitted, delivery, settlement, self._unsettled)
        work.lined_up = permitted.route.limited and not self._concurrency.enter(work)
        if not work.lined_up:
            await self._room.acquire()
            self._queue.put_nowait(work)

    async def room(self, source: Settlement | str) -> None:
        """Wait until few enough messages of a consumer, or of the subject of a call, wait for limits of their handlers."""
        await self._concurrency.room(source)

    def unfinished(self) -> Collection[Work]:
        """Return the work that was put here and is not settled yet, in that order."""
        return self._unsettled

    def waiting(self) -> int:
        """Return the number of messages in `unfinished` whose handler has not started."""
        return sum(not work.started for work in self._unsettled)

    async def drain(self, within: float) -> bool:
        """Wait at most `within` seconds until everything queued was handled; return whether it was."""
        try:
            async with asyncio.timeout(within):
                await self._queue.join()
                await self._completion.join()
                await self._background.idle()
        except TimeoutError:
            return False
        return True

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off a message whose verb has no handler here, and tell its requester; return once there is room."""
        await self._background.start(self._settlement.put_off_unknown_verb, message, delivery, pull)

    async def turn_down(self, decided: Decided, pull: Settlement | None) -> None:
        """End a message that steps 14 to 16 refused: answer the call or tell the requester, then settle the delivery.

        Returns once there is room to do so.
        """
        message = decided.opened.message
        refusal = decide_refusal(decided, can_park=self._parking is not None)
        note = self._detail.of(decided.error) if decided.error is not None else ""
        if isinstance(refusal, AnswerError):
            await self._background.start(self._replier.refuse, message, refusal.code, refusal.explanation, note)
        elif pull is None:
            # Only a call comes without a consumer, and is answered.
            return
        elif isinstance(refusal, TurnDown):
            await self._background.start(self._settlement.reject, decided.opened, pull, refusal, note)
        elif self._parking is not None:
            await self._background.start(self._parking.park, decided, pull, refusal.explanation)

    async def answer_error(self, decided: Decided, error: SealbusError) -> None:
        """Answer a call whose decision is not recorded, without telling the decision. A stream delivery is retried."""
        message = decided.opened.message
        if message.header.kind is Kind.CALL:
            await self._background.start(
                self._replier.refuse, message, error.code, NOTHING_TOLD, self._detail.of(error)
            )

    async def _handle_queued(self) -> None:
        running = asyncio.current_task()
        assert running is not None  # noqa: S101  a coroutine that runs has a task
        poison = self._stores.poison
        while True:
            try:
                work = await self._queue.get()
            except asyncio.CancelledError:
                if self._ending():
                    raise
                # Code that a handler left behind has cancelled the handler's task, which is this task.
                await take_back_cancellations(0)
                continue
            if not work.lined_up:
                self._room.release()
            work.started = self._site.bus_clock()
            # The name that the operator is told if the handler blocks the event loop.
            running.set_name(f"handler of {work.permitted.route.action}")
            try:
                if work.header.kind is Kind.CALL:
                    await self._replier.handle(work)
                elif poison is None:
                    await self._durable.handle(work)
                elif work.is_first and not poison.apart and poison.in_flight is None:
                    poison.running.add(work)
                    await self._durable.handle(work)
                else:
                    await self._durable.handle_counted(work, poison)
            finally:
                if poison is not None:
                    if poison.apart or poison.in_flight is not None:
                        poison.end(work)
                    else:
                        poison.running.discard(work)
                self._stores.stops.leave(work.permitted)
                # Before `task_done` of this work, because `drain` waits for lines as well.
                if work.permitted.route.limited and (following := self._concurrency.leave(work)) is not None:
                    self._queue.put_nowait(following)
                if work not in self._given_up:
                    self._queue.task_done()
            # A handler may have swallowed the cancellation that ends this task.
            if self._ending():
                raise asyncio.CancelledError
            if self._given_up and self._given_up.pop(work, False):
                return

    def _ending(self) -> bool:
        """Return whether the executor ends. `_stay_alive` runs no handler, so only the executor cancels it."""
        return self._alive is None or self._alive.done() or self._alive.cancelling() > 0

    def _start(self, running: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = self._group.create_task(running, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _give_up(self, work: Work) -> None:
        """End work whose handler does not stop. Start a task in its place, unless `concurrency` handlers were given up."""
        action = work.permitted.route.action
        self._site.counters.add("sealbus_handlers_given_up_total", 1, action=action)
        self._operator_log.warning("a handler of %s does not stop: it was given up, and runs on", action)
        if (poison := self._stores.poison) is not None:
            poison.end(work)
        replaced = self._given_up[work] = len(self._given_up) < self._limits.concurrency
        if replaced:
            self._start(self._handle_queued(), "handler-again")
        self._background.start_at_once(self._end_given_up(work))

    async def _end_given_up(self, work: Work) -> None:
        try:
            if work.header.kind is Kind.CALL:
                await self._replier.end_given_up(work)
            else:
                await self._settlement.end_given_up(work)
        finally:
            self._stores.stops.leave(work.permitted)
            self._queue.task_done()

    def notes(self) -> dict[str, str]:
        """Return notes for operators, by part."""
        if not self._given_up:
            return {}
        actions = sorted({work.permitted.route.action for work in self._given_up})
        return {"handlers": f"{len(self._given_up)} do not stop and run on: {', '.join(actions)}"}

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ack_wait / SIGNALS)
            for work in list(self._unsettled):
                work.alive()
