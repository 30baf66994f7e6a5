"""Runs the handlers of permitted messages: bounded, in order of arrival, each under its deadline, each with an outcome.

Every lane is one task that takes the next piece of work from one bounded queue; a full queue holds the gate up, which
holds the pull up. What a handler raises ends its attempt, never its lane. What follows the handler of a task or event
(its status, its record, its acknowledgement) goes on beside the lane, which takes the next one meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import Background
from sealbus.bus.gate.calls import ERROR_TYPE
from sealbus.bus.handling.attempt import attempt
from sealbus.bus.handling.completion import AT_A_TIME, Completing, Done, Outcomes
from sealbus.bus.handling.dead_letters import DeadLetters
from sealbus.bus.handling.durable import DurableWork, Rest
from sealbus.bus.handling.idempotency.effects import Effects
from sealbus.bus.handling.places import Places
from sealbus.bus.handling.status_writer import Statuses
from sealbus.bus.ports import Clock, Delivery, Pull, wall_clock
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.routing.stages import Decided, Work
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, Denied, HandlingError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.decision import shows_reasons

__all__ = ["Executor"]

_log = logging.getLogger(__name__)

REPLY_LIFE = 60 * SECOND
FINISHING = 1_024
"""Deliveries whose handler is done and whose status, mark or record is on its way: beyond, lanes and gate wait."""

WORKING_EVERY = 10.0
"""Seconds between two signs of life for deliveries that wait or are handled: a third of the consumers' `ack_wait`."""


class Executor:
    """`concurrency` handlers at a time; enter with `async with`, then `drain` before leaving to finish what was taken."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        audit: AuditWriter,
        dead: DeadLetters,
        statuses: Statuses,
        effects: Effects,
        counters: Counters,
        places: Places,
        random: Callable[[], float],
        concurrency: int = 64,
        waiting: int = 1_024,
        clock: Clock = wall_clock,
    ) -> None:
        self._outbox = outbox
        self._outcomes = Outcomes(audit, clock)
        self._counters = counters
        self._concurrency = concurrency
        self._clock = clock
        self._queue: asyncio.Queue[Work] = asyncio.Queue(waiting)
        self._open: dict[int, Work] = {}
        self._deadlines = Deadlines()
        self._durable = DurableWork(
            statuses=statuses,
            effects=effects,
            dead=dead,
            outcomes=self._outcomes,
            deadlines=self._deadlines,
            counters=counters,
            places=places,
            random=random,
            soon=self._soon,
            clock=clock,
        )
        self._completing = Completing(
            statuses=statuses, effects=effects, outcomes=self._outcomes, settled=self._settled
        )
        self._finishing: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(FINISHING)
        self._group = Background()
        self._lanes: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._lanes = [
            self._group.create_task(self._lane(), name=f"lane-{number}") for number in range(self._concurrency)
        ]
        self._lanes.append(self._group.create_task(self._stay_alive(), name="lanes-working"))
        for number in range(AT_A_TIME):
            self._group.create_task(self._completing.run(), name=f"completing-{number}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.cancel()
        if kind is None:
            await self._completing.close()
        try:
            await self._group.__aexit__(kind, error, trace)
        finally:
            self._deadlines.close()

    def telling(self, message: VerifiedMessage, delivery: Delivery) -> TaskReporter | None:
        """Return what tells the requester of a task; `None` for a call, which is answered, and an event."""
        return self._durable.telling(message, delivery)

    async def put(self, work: Work) -> None:
        """Queue one permitted message; waits while the queue is full."""
        self._open[id(work)] = work
        await self._queue.put(work)

    async def drain(self, within: float) -> bool:
        """Wait until everything queued was handled, at most `within` seconds; tell whether that was so."""
        try:
            async with asyncio.timeout(within):
                await self._queue.join()
                await self._completing.join()
                while self._finishing:
                    await asyncio.wait(set(self._finishing))
        except TimeoutError:
            return False
        return True

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off what is for a verb that has no handler here, and tell its requester; returns once there is room."""
        await self._spawn(partial(self._durable.put_off, message, delivery, pull))

    async def turn_down(self, judged: Decided, pull: Pull | None) -> None:
        """End what steps 14 to 16 decided against: answer a call, tell a task's requester, and settle for good.

        Returns once there is room to do so.
        """
        opened = judged.opened
        code = judged.code or Code.DENIED
        if opened.message.header.kind is Kind.CALL:
            await self._spawn(partial(self._quiet_reply, opened.message, error_answer(code, _shown(judged))))
        elif pull is not None:
            await self._spawn(
                partial(self._durable.reject, opened.message, opened.delivery, pull, code, _shown(judged))
            )

    async def answer_error(self, judged: Decided, error: SealbusError) -> None:
        """Answer a call whose decision is not recorded; a stream delivery is tried again, and nobody is told."""
        message = judged.opened.message
        if message.header.kind is Kind.CALL:
            await self._spawn(partial(self._quiet_reply, message, error_answer(error.code, _shown(judged))))

    async def _lane(self) -> None:
        while True:
            work = await self._queue.get()
            kept = False
            try:
                if work.permitted.message.header.kind is Kind.CALL:
                    await self._call(work)
                else:
                    rest = await self._durable.handle(work)
                    if isinstance(rest, Done):
                        await self._completing.put(rest)
                        kept = True
                    elif rest is not None:
                        await self._spawn(rest, work)
                        kept = True
            finally:
                if not kept:
                    self._settled(work)
                self._queue.task_done()

    async def _spawn(self, rest: Rest, work: Work | None = None) -> None:
        """Run `rest` beside the lanes, and `work` counts as open until it is over; wait where too much is going on."""
        await self._room.acquire()
        task = self._group.create_task(rest(), name="lane-rest")
        self._finishing.add(task)
        task.add_done_callback(partial(self._finished, work))

    def _soon(self, rest: Rest) -> None:
        """Run `rest` beside the lanes at once; each lane has at most one such."""
        task = self._group.create_task(rest(), name="lane-soon")
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    def _finished(self, work: Work | None, task: asyncio.Task[None]) -> None:
        self._finishing.discard(task)
        self._room.release()
        if work is not None:
            self._settled(work)

    def _settled(self, work: Work) -> None:
        self._open.pop(id(work), None)

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(WORKING_EVERY)
            for work in list(self._open.values()):
                if work.pull is not None:
                    work.pull.working(work.delivery)

    async def _call(self, work: Work) -> None:
        """Handle a call: it is answered before its outcome is recorded, and never tried again."""
        permitted = work.permitted
        started = self._clock()
        if started >= permitted.message.header.exp:
            await self._outcomes.settle(work, Code.EXPIRED, started)
            return
        code: Code | None = None
        try:
            answer = await attempt(permitted, self._chunk, self._deadlines)
        except HandlingError as error:
            code = error.code
            answer = error_answer(code, error.reasons if shows_reasons(permitted.obligations) else ())
        self._counters.add(
            "sealbus_handled_total", 1, action=permitted.route.action, outcome=str(code) if code is not None else "done"
        )
        if answer is not None:
            await self._quiet_reply(permitted.message, answer)
        await self._outcomes.settle(work, code, started)

    async def _quiet_reply(self, message: VerifiedMessage, answer: Content) -> None:
        """Send a reply; one that cannot leave is logged, and its caller concludes `expired`."""
        try:
            await self._outbox.send(reply_letter(message, answer))
        except SealbusError as error:
            _log.warning("reply not sent: %s", error)

    async def _chunk(self, permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
        await self._outbox.send(reply_letter(permitted.message, chunk, seq=number, fin=fin))


def _shown(judged: Decided) -> tuple[str, ...]:
    """Return the policy's reasons where one of its obligations lets them be shown."""
    decision = judged.decision
    if decision is None or not shows_reasons(decision.obligations):
        return ()
    return decision.reasons


def error_answer(code: Code, reasons: tuple[str, ...]) -> Content:
    """Return the body of an error reply: a code, and reasons only where the policy lets them be shown."""
    body = json.dumps({"code": str(code), "reasons": list(reasons)}, separators=(",", ":")).encode()
    return Content(body=body, typ=ERROR_TYPE)


def reply_letter(
    message: VerifiedMessage, answer: Content, *, seq: int | None = None, fin: bool = False
) -> OutgoingMessage:
    """Return the reply, or the chunk numbered `seq`, to a call."""
    header = message.header
    if header.rpl is None:
        raise Denied("the message has no reply subject")
    return OutgoingMessage(
        kind=Kind.REPLY if seq is None else Kind.CHUNK,
        to=header.rpl,
        aud=header.iss,
        life=REPLY_LIFE,
        body=answer.body,
        typ=answer.typ,
        re=header.digest,
        seq=seq,
        fin=fin,
        tid=header.tid,
    )
