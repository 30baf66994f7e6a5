"""Tasks and events at their handler: claimed, attempted, told, and settled last of all (SPEC.md section 7).

A terminal status is stored before its delivery is acknowledged: a process that dies between the two says it again, and
its reader takes the first. What follows the handler takes round trips to the broker and is returned as a `Rest`, for
whoever calls to run while the lane goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

from sealbus.bus.handling.attempt import LASTING, attempt
from sealbus.bus.handling.completion import Done, Outcomes, delivery_of
from sealbus.bus.handling.dead_letters import DeadLetters
from sealbus.bus.handling.idempotency.claim import RESULT_BYTES
from sealbus.bus.handling.idempotency.claim_store import BusyEffect, Going, Happened
from sealbus.bus.handling.idempotency.effects import Effects
from sealbus.bus.handling.places import Cause, Places
from sealbus.bus.handling.status_writer import NOTHING, Statuses
from sealbus.bus.ports import Clock, Delivery, Pull, wall_clock
from sealbus.bus.routing.retry import UNTIL_EXPIRY, VERB_AWAITED, RetrySchedule
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.routing.stages import Work
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State, Status
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import Code, HandlingError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.decision import shows_reasons

__all__ = ["DurableWork", "Rest"]

_log = logging.getLogger(__name__)

BURY_AGAIN = 5.0
"""Seconds until a delivery comes again whose dead letter could not be stored."""

TELL_AGAIN = RetrySchedule(retries=8, backoff=Backoff(initial_interval=5.0, maximum_interval=60.0, jitter=0.5))
"""For a result that its requester could not be told: what is done stays done, and a few more deliveries say so."""

WORKING_AFTER = 1.0
"""Seconds that a handler runs before its requester is told that it does: most are done by then, and say so at once."""

Rest = Callable[[], Coroutine[None, None, None]]
"""What is left to do about a delivery; raises nothing, and takes a bounded time unless the audit stream is away."""


class DurableWork:
    """Handles the tasks and events of one worker. `soon` has a `Rest` run beside the lane that asks."""

    def __init__(
        self,
        *,
        statuses: Statuses,
        effects: Effects,
        dead: DeadLetters,
        outcomes: Outcomes,
        deadlines: Deadlines,
        counters: Counters,
        places: Places,
        random: Callable[[], float],
        soon: Callable[[Rest], None],
        clock: Clock = wall_clock,
    ) -> None:
        self._statuses = statuses
        self._effects = effects
        self._dead = dead
        self._outcomes = outcomes
        self._deadlines = deadlines
        self._counters = counters
        self._places = places
        self._random = random
        self._soon = soon
        self._clock = clock
        self._said = OperatorLog(_log)

    async def handle(self, work: Work) -> Rest | Done | None:
        """Run the handler if it may run, and return what is left to do, if anything takes a round trip.

        `Done` stands for the most frequent: to tell the requester, and to settle.
        """
        permitted = work.permitted
        started = self._clock()
        telling = permitted.telling
        if started >= permitted.message.header.exp:
            return partial(self._expired, work, telling, Code.EXPIRED, started)
        try:
            begun = await self._effects.begin(permitted)
        except BusyEffect as busy:
            return partial(self._again, work, telling, Code.REPLAYED, busy.seconds, started)
        except StateUnavailable as error:
            return partial(self._again, work, telling, error.code, None, started)
        except HandlingError as failure:
            return partial(self._bury, work, telling, failure, started)
        if isinstance(begun, Happened):
            return partial(self._happened, work, telling, begun, started)
        if telling is None or not permitted.route.status:
            return await self._run(work, begun, telling, started)
        with self._deadlines.after(WORKING_AFTER, partial(self._still_working, telling)):
            return await self._run(work, begun, telling, started)

    def _still_working(self, telling: TaskReporter) -> None:
        """Tell that the handler works, unless it has said so itself, or what it waits for: the newest status counts."""
        if not telling.begun:
            self._soon(partial(_store, telling, telling.numbered(State.WORKING)))

    async def reject(
        self, message: VerifiedMessage, delivery: Delivery, pull: Pull, code: Code, reasons: tuple[str, ...]
    ) -> None:
        """Tell the requester of a task that steps 14 to 17 said no, and end the delivery for good."""
        telling = self.telling(message, delivery)
        if telling is not None:
            await telling.tell(State.REJECTED, code=code, reasons=reasons)
        pull.term(delivery)

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off a genuine message for a verb that has no handler here, for a replica that has one, until its `exp`.

        Its requester hears of it at the first delivery, so that a mistyped verb is known at once. At the last try, or
        where no place is left, the task has failed; there is no dead letter, for DEAD drops the oldest, and anybody who
        may send could flush it so.
        """
        header, count = message.header, delivery.position.delivery if delivery.position is not None else 1
        delay = VERB_AWAITED.delay(count, random=self._random(), now=self._clock(), until=header.exp)
        again = delay is not None and self._places.put_off(
            Cause.UNKNOWN_VERB, delivery, pull, delay, sender=header.iss.value
        )
        extra = f"for {delay:.1f} s" if again else "given up"
        self._said.message("put off", header, action="no handler here", code=Code.UNKNOWN_VERB, extra=extra)
        telling = self.telling(message, delivery)
        if telling is not None and (not again or count == 1):
            await telling.tell(State.WORKING if again else State.FAILED, code=Code.UNKNOWN_VERB)
        if not again:
            pull.term(delivery)

    async def _run(self, work: Work, going: Going, telling: TaskReporter | None, started: int) -> Rest | Done | None:
        permitted = work.permitted
        failure: HandlingError | None = None
        answer: Content | None = None
        try:
            answer = await attempt(permitted, _no_chunks, self._deadlines)
        except HandlingError as error:
            failure = error
        self._counters.add(
            "sealbus_handled_total",
            1,
            action=permitted.route.action,
            outcome=str(failure.code) if failure is not None else "done",
        )
        if failure is not None:
            return partial(self._failed, work, going, telling, failure, started)
        if telling is not None and permitted.route.status:
            result = answer or NOTHING
            if going.last or len(result.body) > RESULT_BYTES:
                return partial(self._done, work, going, telling, answer, started)
            await self._effects.done(going, result)
            return Done(work, going, telling, result, started)
        if going.last:
            return partial(self._done, work, going, telling, answer, started)
        await self._done(work, going, telling, answer, started)
        return None

    async def _done(
        self, work: Work, going: Going, telling: TaskReporter | None, answer: Content | None, started: int
    ) -> None:
        code: Code | None = None
        if telling is None or not work.permitted.route.status:
            await self._effects.done(going, None)
        else:
            result = answer or NOTHING
            if len(result.body) > DEFAULT_LIMITS.body_bytes:
                code = Code.BAD_RESULT
                await self._effects.done(going, None)
                await telling.tell(State.FAILED, code=code, note="done, but its result is too large to be sent")
            elif len(result.body) > RESULT_BYTES:
                # Nobody could say it again, so it is said before the effect counts as done.
                await telling.completed(result)
                await self._effects.done(going, None)
            else:
                await self._effects.done(going, result)
                if not await telling.completed(result):
                    self._effects.untold(going)
                    # Only where STATE keeps the result is it said again, and not the handler run again elsewhere.
                    if going.last and await self._tell_later(work, code, started):
                        return
        await self._outcomes.settle(work, code, started)

    async def _tell_later(self, work: Work, code: Code | None, started: int) -> bool:
        """Have a delivery come again whose result was not stored for its requester; say whether it will."""
        delay = TELL_AGAIN.delay(
            delivery_of(work), random=self._random(), now=self._clock(), until=work.permitted.message.header.exp
        )
        if delay is None or work.pull is None:
            return False
        await self._outcomes.note(work, code, started)
        return self._again_in(delay, work.delivery, work.pull)

    async def _happened(self, work: Work, telling: TaskReporter | None, happened: Happened, started: int) -> None:
        """Acknowledge what has been done before, and say its result to a requester that may not know it."""
        self._say("not done again", work, Code.REPLAYED)
        if telling is not None and work.permitted.route.status and not happened.told:
            if happened.result is not None:
                if not await telling.completed(happened.result) and await self._tell_later(
                    work, Code.REPLAYED, started
                ):
                    return
            else:
                await telling.tell(
                    State.FAILED, code=Code.REPLAYED, note="done for an earlier copy; its result is not kept any more"
                )
        await self._outcomes.settle(work, Code.REPLAYED, started)

    async def _failed(
        self, work: Work, going: Going, telling: TaskReporter | None, failure: HandlingError, started: int
    ) -> None:
        """Try a task or event again by its route's schedule, or bury it with its reason; what was denied is denied."""
        await self._effects.failed(going)
        if failure.code is Code.DENIED:
            await self._denied(work, telling, failure, started)
            return
        if failure.code in LASTING:
            await self._bury(work, telling, failure, started)
            return
        route = work.permitted.route
        delay = route.retry.delay(
            delivery_of(work), random=self._random(), now=self._clock(), until=work.permitted.message.header.exp
        )
        if delay is None or work.pull is None:
            await self._bury(work, telling, failure, started)
            return
        told = telling if route.status else None
        await asyncio.gather(
            self._outcomes.note(work, failure.code, started),
            *([told.tell(State.WORKING, code=failure.code)] if told else ()),
        )
        self._say("retried", work, failure.code, f"attempt {delivery_of(work)} failed, the next in {delay:.1f} s")
        self._again_in(delay, work.delivery, work.pull)

    def _again_in(self, seconds: float, delivery: Delivery, pull: Pull) -> bool:
        return self._places.put_off(Cause.PASSING, delivery, pull, seconds)

    async def _denied(self, work: Work, telling: TaskReporter | None, failure: HandlingError, started: int) -> None:
        """End what asked for something that was denied: the next try would ask the same, and hear the same."""
        self._say("denied", work, failure.code, "by what its handler asked for")
        if telling is not None:
            reasons = failure.reasons if shows_reasons(work.permitted.obligations) else ()
            await telling.tell(State.REJECTED, code=failure.code, reasons=reasons)
        await self._outcomes.settle(work, failure.code, started)

    def _say(self, event: str, work: Work, code: Code, extra: str = "") -> None:
        permitted = work.permitted
        self._said.message(event, permitted.message.header, action=permitted.route.action, code=code, extra=extra)

    async def _bury(self, work: Work, telling: TaskReporter | None, failure: HandlingError, started: int) -> None:
        try:
            await self._dead.bury(work, failure)
        except SealbusError as error:
            _log.warning("dead letter not stored, trying again later: %s", error)
            if work.pull is not None:
                self._again_in(BURY_AGAIN, work.delivery, work.pull)
            return
        self._say("dead-lettered", work, failure.code, f"after {delivery_of(work)} deliveries")
        if telling is not None:
            await telling.tell(State.FAILED, code=failure.code)
        await self._outcomes.settle(work, failure.code, started)

    async def _again(
        self, work: Work, telling: TaskReporter | None, code: Code, delay: float | None, started: int
    ) -> None:
        """Put a delivery off that was not handled, at least `delay` seconds and with backoff, unless it expires before."""
        now, exp = self._clock(), work.permitted.message.header.exp
        backoff = UNTIL_EXPIRY.delay(delivery_of(work), random=self._random(), now=now, until=exp)
        if delay is None or now + delay * SECOND >= exp:
            # What we wait for may have until after our own time; but it may be done, or have failed, long before.
            delay = backoff
        elif backoff is not None:
            # Each look is a decision and its record: copies of one long task must not fill the audit stream.
            delay = max(delay, backoff)
        if delay is None or work.pull is None:
            await self._expired(work, telling, code, started)
            return
        told = telling if work.permitted.route.status and code is not Code.REPLAYED else None
        await asyncio.gather(
            self._outcomes.note(work, code, started), *([told.tell(State.WORKING, code=code)] if told else ())
        )
        self._say("put off", work, code, f"for {delay:.1f} s")
        self._again_in(delay, work.delivery, work.pull)

    async def _expired(self, work: Work, telling: TaskReporter | None, code: Code, started: int) -> None:
        self._say("expired", work, code)
        # While another copy is being handled nothing final is known: it may be done any moment, and would not be heard.
        if telling is not None and code is not Code.REPLAYED:
            await telling.tell(State.EXPIRED, code=code)
        await self._outcomes.settle(work, code, started)

    def telling(self, message: VerifiedMessage, delivery: Delivery) -> TaskReporter | None:
        """Return what tells the requester of a task; `None` for every other kind, whose progress nobody waits for."""
        if message.header.kind is not Kind.TASK:
            return None
        return self._statuses.about(message, delivery.position.delivery if delivery.position is not None else 1)


async def _store(telling: TaskReporter, status: Status | None) -> None:
    await telling.store(status)


async def _no_chunks(permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
    """Refuse to send: only a call is answered in chunks, and no other handler can be declared so."""
    raise HandlingError(Code.HANDLER_FAILED, "chunks without a caller")
