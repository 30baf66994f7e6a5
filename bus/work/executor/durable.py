"""Handles tasks and events: claim, attempt, status, and acknowledgement last of all (SPEC.md section 7).

A terminal status is stored before its delivery is acknowledged: if a process dies between the two, the status is stored
again and its reader takes the first. What follows a handler takes round trips to the broker, and so runs in the
background while the next handler runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial

from sealbus.bus.background import BoundedTasks
from sealbus.bus.ports import Clock, Delivery, Pull, wall_clock
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.routing.retry import UNTIL_EXPIRY, Reject, Retry, RetryPolicy
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE
from sealbus.bus.sending.status import State, Status
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.executor.attempt import LASTING, REJECTED, GivenUp, SendChunk, attempt, passed_on
from sealbus.bus.work.executor.attempt_counts import FailedAttempts
from sealbus.bus.work.executor.completion import Completion, Done, Outcomes
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.poison import PoisonGuard
from sealbus.bus.work.executor.told_detail import TellDetail, tell_nothing
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim import RESULT_BYTES
from sealbus.bus.work.idempotency.claim_store import AlreadyDone, BusyEffect, Claim
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.places import Places
from sealbus.bus.work.status_writer import NOTHING, PartWriter, Statuses
from sealbus.bus.work.verb_room import VerbRoom
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.denial import Explanation
from sealbus.envelopes.errors import Code, HandlingError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

__all__ = ["DurableWork"]

_log = logging.getLogger(__name__)

BURY_AGAIN = 5.0
"""Seconds until redelivery if the dead letter could not be stored."""

TELL_AGAIN = RetryPolicy(initial_interval=5.0, maximum_attempts=9)
"""For a result that its requester could not be told: the effect is not repeated, a few redeliveries tell the result."""

END_AGAIN = (1.0, 5.0, 15.0, 0.0)
"""Seconds between tries to tell that what was put off is canceled."""

WORKING_AFTER = 1.0
"""Seconds that a handler runs before its requester is told so: most handlers are done by then and need no such status."""


class DurableWork:
    """Handles the tasks and events of one worker; round trips run in `background`, each in bounded time."""

    def __init__(
        self,
        *,
        statuses: Statuses,
        effects: Effects,
        stops: Stops,
        dead: DeadLetters,
        outcomes: Outcomes,
        completion: Completion,
        deadlines: Deadlines,
        counters: Counters,
        places: Places,
        verb_room: VerbRoom | None,
        failed: FailedAttempts,
        random: Callable[[], float],
        background: BoundedTasks,
        give_up: Callable[[Work], None],
        ending: Callable[[], bool],
        poison: PoisonGuard | None = None,
        tell: TellDetail = tell_nothing,
        verbs: str = "",
        clock: Clock = wall_clock,
    ) -> None:
        self._statuses = statuses
        self._effects = effects
        self._stops = stops
        self._dead = dead
        self._outcomes = outcomes
        self._completion = completion
        self._deadlines = deadlines
        self._counters = counters
        self._took = counters.histogram("sealbus_handler_seconds", ("action",))
        self._places = places
        self._verb_room = verb_room
        self._failed_attempts = failed
        self._random = random
        self._background = background
        self._give_up = give_up
        self._ending = ending
        self._poison = poison
        self._tell_detail = tell
        self._verbs = verbs
        self._clock = clock
        self._said = OperatorLog(_log)

    async def handle_counted(self, work: Work, poison: PoisonGuard) -> None:
        """Handle a delivery as `handle` does, once its attempt is counted; bury it if it has ended too many processes."""
        try:
            await poison.begin(work)
        except BusyEffect as busy:
            await self._background.start(self._again, work, Code.OVERLOADED, busy.seconds)
            return
        except StateUnavailable as error:
            await self._background.start(self._again, work, error.code, None)
            return
        except HandlingError as failure:
            await self._background.start(self._bury, work, failure)
            return
        await self.handle(work)
        await poison.close(work)

    async def handle(self, work: Work) -> None:
        """Run the handler if it may run; return once what follows has been started or queued."""
        if work.started >= work.exp:
            await self._background.start(self._expired, work, Code.EXPIRED)
            return
        try:
            canceled = await self._stops.met(work.permitted)
            if canceled is not None:
                await self._background.start(self._canceled, work, canceled)
                return
            begun = await self._effects.begin(work.permitted)
        except BusyEffect as busy:
            await self._background.start(self._again, work, Code.REPLAYED, busy.seconds)
            return
        except StateUnavailable as error:
            await self._background.start(self._again, work, error.code, None)
            return
        except HandlingError as failure:
            await self._background.start(self._bury, work, failure)
            return
        if isinstance(begun, AlreadyDone):
            await self._background.start(self._not_again, work, begun)
            return
        work.claim = begun
        left = (_deadline(work) - self._clock()) / SECOND
        try:
            if left <= 0:
                raise _over(work)
            if (progress := work.progress) is None:
                content = await self._attempt(work, _no_chunks, left)
            else:
                parts = PartWriter(progress)
                with self._deadlines.after(WORKING_AFTER, partial(self._still_working, progress)):
                    content = await self._attempt(work, parts.write, left)
                    content = content or parts.result
        except GivenUp as late:
            await (self._effects.done(begun, late.result) if late.done else self._effects.failed(begun))
            return
        except Reject as rejected:
            self._count(work, REJECTED)
            await self._background.start(self._rejected, work, begun, rejected)
            return
        except Retry as asked:
            self._count(work, Code.HANDLER_FAILED)
            await self._background.start(self._failed, work, begun, HandlingError(Code.HANDLER_FAILED, "Retry"), asked)
            return
        except HandlingError as failure:
            self._count(work, failure.code)
            canceled = work.permitted.cancellation.canceled
            if failure.code is Code.CANCELED and canceled is not None:
                await self._background.start(self._canceled, work, canceled, begun)
            else:
                await self._background.start(self._failed, work, begun, failure)
            return
        self._count(work, "done")
        result = content or NOTHING
        if begun.last or (progress is not None and len(result.body) > RESULT_BYTES):
            await self._background.start(self._done, work, begun, result)
        elif progress is None:
            await self._done(work, begun, result)
        else:
            await self._effects.done(begun, result)
            await self._completion.put(Done(work, begun, progress, result))

    async def _attempt(self, work: Work, send: SendChunk, left: float) -> Content | None:
        give_up = partial(self._give_up, work)
        return await attempt(
            work.permitted,
            send,
            self._deadlines,
            give_up=give_up,
            ending=self._ending,
            left=left,
            tell=self._tell_detail,
        )

    async def end_given_up(self, work: Work) -> None:
        """End a task or event whose handler does not stop, as what it would be had it stopped; it is not tried again.

        Its effect stays claimed: whether it happens is not known.
        """
        canceled = work.permitted.cancellation.canceled
        if canceled is not None:
            await self._canceled(work, canceled)
        else:
            await self._bury(work, HandlingError(Code.HANDLER_TIMEOUT, "it did not stop"))

    async def reject(
        self,
        message: VerifiedMessage,
        delivery: Delivery,
        pull: Pull,
        code: Code,
        explanation: Explanation,
        note: str = "",
    ) -> None:
        """Tell the requester of a task that steps 14 to 17 refused it, and terminate the delivery."""
        if (reporter := self._statuses.reporter(message, delivery)) is not None:
            await reporter.tell(State.REJECTED, code=code, explanation=explanation, note=note)
        pull.term(delivery)

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off a genuine message whose verb has no handler here, for a replica that has one, until its `exp`.

        The requester is told at the first delivery, so that a mistyped verb shows at once. At the last try, or if there is no
        room, the task fails. There is no dead letter: DEAD drops the oldest, so any permitted sender could flush it. Returns
        once what is to be told has begun to be told.
        """
        pause = None
        if (room := self._verb_room) is not None:
            pause = await room.put_off(message, delivery, pull, random=self._random(), now=self._clock())
        self._said.message(
            "put off",
            message.header,
            action="no handler here",
            code=Code.UNKNOWN_VERB,
            extra=f"for {pause:.1f} s" if pause is not None else "given up",
            context=message.context,
        )
        if pause is None or delivery.number == 1:
            # In the background: the batch behind it does not wait for a round trip for each of these.
            await self._background.start(self._tell_unknown_verb, message, delivery, pull, pause is not None)

    async def _tell_unknown_verb(self, message: VerifiedMessage, delivery: Delivery, pull: Pull, again: bool) -> None:
        if (reporter := self._statuses.reporter(message, delivery)) is not None:
            state = State.WORKING if again else State.FAILED
            await reporter.tell(state, code=Code.UNKNOWN_VERB, note=self._verbs)
        if not again:
            pull.term(delivery)

    def _still_working(self, progress: TaskReporter) -> None:
        """Report that the handler is working, unless it has reported a status itself: the newest status counts."""
        if not progress.begun:
            self._background.start_at_once(_store(progress, progress.numbered(State.WORKING)))

    def _count(self, work: Work, outcome: str) -> None:
        action = work.permitted.route.action
        self._counters.add("sealbus_handled_total", 1, action=action, outcome=outcome)
        self._took.observe((self._clock() - work.started) / SECOND, action)

    async def _done(self, work: Work, claim: Claim, result: Content) -> None:
        code: Code | None = None
        progress = work.progress
        if progress is None:
            await self._effects.done(claim, None)
        elif len(result.body) > DEFAULT_LIMITS.body_bytes:
            code = Code.BAD_RESULT
            await self._effects.done(claim, None)
            await progress.tell(State.FAILED, code=code, note="done, but its result is too large to be sent")
        elif len(result.body) > RESULT_BYTES:
            # No process could tell this result again, so it is told before the effect counts as done.
            await progress.completed(result)
            await self._effects.done(claim, None)
        else:
            await self._effects.done(claim, result)
            if not await progress.completed(result):
                self._effects.untold(claim)
                # Only if STATE keeps the result does a redelivery tell it again instead of running the handler elsewhere.
                if claim.last and await self._tell_later(work, code):
                    return
        await self._outcomes.settle(work, code)

    async def _tell_later(self, work: Work, code: Code | None) -> bool:
        """Put off a delivery whose result was not stored for its requester; return whether it will be redelivered."""
        delay = self._delay(work, TELL_AGAIN)
        if delay is None:
            return False
        await self._outcomes.note(work, code)
        work.put_off(delay, self._places)
        return True

    async def _not_again(self, work: Work, done: AlreadyDone) -> None:
        """Acknowledge a delivery whose effect has happened, and tell its result to a requester that may not know it."""
        self._say("not done again", work, Code.REPLAYED)
        if (progress := work.progress) is not None and not done.told:
            # A result in parts is their count and their hash: they themselves were told as parts of their own message.
            others = done.result is not None and done.result.typ == PARTS_TYPE and not done.same
            if done.result is None or others:
                kept = "in parts, which are that copy's" if others else "not kept any more"
                note = f"done for an earlier copy; its result is {kept}"
                await progress.tell(State.FAILED, code=Code.REPLAYED, note=note)
            elif not await progress.completed(done.result) and await self._tell_later(work, Code.REPLAYED):
                return
        await self._outcomes.settle(work, Code.REPLAYED)

    async def _failed(self, work: Work, claim: Claim, failure: HandlingError, asked: Retry | None = None) -> None:
        """Retry a task or event by its route's policy, or bury it with its reason; a denial is not retried."""
        canceled = await self._stops.expected(work.permitted.message) if failure.code is Code.CANCELED else None
        if canceled is not None:
            await self._canceled(work, canceled, claim)
            return
        await self._effects.failed(claim)
        if failure.code is Code.DENIED:
            await self._denied(work, failure)
            return
        policy = work.permitted.route.retry
        if failure.code in LASTING or not policy.is_retryable(failure):
            await self._bury(work, failure)
            return
        number = await self._count_failed(work, policy)
        if policy.is_last(number):
            await self._bury(work, failure)
            return
        delay = policy.delay(
            number,
            random=self._random(),
            now=self._clock(),
            until=min(work.exp, _deadline(work)),
            after=asked.after if asked is not None else None,
        )
        if delay is None:
            await self._bury(work, failure if _deadline(work) >= work.exp else _over(work))
            return
        await self._note_and_tell(work, failure.code, work.progress, asked, self._tell_detail(failure))
        self._say("retried", work, failure.code, f"attempt {number} failed, the next in {delay:.1f} s")
        self._put_off(work, delay)

    async def _denied(self, work: Work, failure: HandlingError) -> None:
        """End a task or event whose own request was denied: a retry would make the same request and be denied again."""
        self._say("denied", work, failure.code, "a request of its handler was denied")
        if (reporter := work.permitted.reporter) is not None:
            await reporter.tell(State.REJECTED, code=failure.code, explanation=passed_on(work.permitted, failure))
        await self._outcomes.settle(work, failure.code)

    async def _rejected(self, work: Work, claim: Claim, rejected: Reject) -> None:
        """End a task or event that its handler rejected, without a dead letter: no operator needs to look at it."""
        await self._effects.failed(claim)
        self._say("rejected", work, rejected.code, "by its handler")
        if (reporter := work.permitted.reporter) is not None:
            await reporter.tell(State.FAILED, code=rejected.code, note=rejected.note)
        await self._outcomes.settle(work, rejected.code)

    async def _canceled(self, work: Work, canceled: Canceled, claim: Claim | None = None) -> None:
        """End a task that was canceled, before or while it was handled: it is neither tried again nor a dead letter."""
        if claim is not None:
            await self._effects.failed(claim)
        # If its requester cannot be told, it is delivered again, meets the stop again, and tells it then.
        if not await self._tell_canceled(work, canceled) and await self._tell_later(work, Code.CANCELED):
            return
        await self._outcomes.settle(work, Code.CANCELED)

    async def _tell_canceled(self, work: Work, canceled: Canceled) -> bool:
        """Tell the requester who canceled its task, and why; return whether that was stored, or nobody is to be told."""
        self._say("canceled", work, Code.CANCELED)
        reporter = work.permitted.reporter
        return reporter is None or await reporter.tell(
            State.CANCELED, code=Code.CANCELED, note=canceled.reason, by=canceled.by
        )

    def _put_off(self, work: Work, delay: float) -> None:
        """Put off a delivery that is to be handled again; if it is canceled meanwhile, it ends at once."""
        work.put_off(delay, self._places)
        if self._poison is not None:
            self._poison.put_off(work)

        def end(canceled: Canceled) -> None:
            self._background.start_at_once(self._end_put_off(work, canceled))

        self._stops.put_off(work.permitted.message, delay, end)

    async def _end_put_off(self, work: Work, canceled: Canceled) -> None:
        """End what was put off; what cannot be told in several tries is told when it is delivered again."""
        for pause in END_AGAIN:
            if await self._tell_canceled(work, canceled):
                if work.pull is not None:
                    work.pull.term(work.delivery)
                return
            await asyncio.sleep(pause)

    async def _bury(self, work: Work, failure: HandlingError) -> None:
        try:
            await self._dead.bury(work, failure)
        except SealbusError as error:
            _log.warning("dead letter not stored, will be retried: %s", error)
            work.put_off(BURY_AGAIN, self._places)
            return
        self._say("dead-lettered", work, failure.code, f"after {work.delivery.number} deliveries")
        if (reporter := work.permitted.reporter) is not None:
            told = await reporter.tell(State.FAILED, code=failure.code, note=self._tell_detail(failure))
            # Not claimed: nothing was run, and a redelivery runs nothing but tells the same.
            repeatable = failure.code is Code.OUTCOME_UNKNOWN and work.claim is None
            if not told and repeatable and await self._tell_later(work, failure.code):
                return
        await self._outcomes.settle(work, failure.code)

    async def _again(self, work: Work, code: Code, delay: float | None) -> None:
        """Put off a delivery that was not handled, at least `delay` seconds and with backoff, unless it expires before."""
        backoff = self._delay(work, UNTIL_EXPIRY)
        if delay is None or self._clock() + delay * SECOND >= work.exp:
            # The copy that we wait for may have more time than we have, but it may be done, or have failed, long before.
            delay = backoff
        elif backoff is not None:
            # Each try costs a decision and its record: copies of one long task must not fill the audit stream.
            delay = max(delay, backoff)
        if delay is None:
            await self._expired(work, code)
            return
        await self._note_and_tell(work, code, work.progress if code is not Code.REPLAYED else None)
        self._say("put off", work, code, f"for {delay:.1f} s")
        self._put_off(work, delay)

    async def _expired(self, work: Work, code: Code) -> None:
        self._say("expired", work, code)
        # While another copy is being handled nothing final is known: its result may come any moment and would go unheard.
        if (reporter := work.permitted.reporter) is not None and code is not Code.REPLAYED:
            await reporter.tell(State.EXPIRED, code=code)
        await self._outcomes.settle(work, code)

    async def _note_and_tell(
        self, work: Work, code: Code, progress: TaskReporter | None, asked: Retry | None = None, detail: str = ""
    ) -> None:
        """Record the outcome of an attempt that is not the last, and report it to `progress`."""
        # A handler that asks for another attempt has not failed as far as the requester is concerned.
        why, note = (code, detail) if asked is None else ("", asked.note)
        told = (progress.tell(State.WORKING, code=why, note=note),) if progress is not None else ()
        await asyncio.gather(self._outcomes.note(work, code), *told)

    async def _count_failed(self, work: Work, policy: RetryPolicy) -> int:
        """Return which attempt of the handler has failed, from 1."""
        if policy.maximum_attempts in {None, 1}:
            # The count would decide nothing but how long the next pause is.
            return work.tried.number
        return await self._failed_attempts.count(work)

    def _delay(self, work: Work, schedule: RetryPolicy) -> float | None:
        """Return the seconds until the next delivery, or `None` if there is none."""
        return schedule.delay(work.tried.number, random=self._random(), now=self._clock(), until=work.exp)

    def _say(self, event: str, work: Work, code: str, extra: str = "") -> None:
        action, context = work.permitted.route.action, work.permitted.message.context
        self._said.message(event, work.header, action=action, code=code, extra=extra, context=context)


def _deadline(work: Work) -> float:
    """Return when all attempts have to be over, in microseconds; infinite where the handler does not say."""
    return work.since + work.permitted.route.total_timeout * SECOND if work.since is not None else math.inf


def _over(work: Work) -> HandlingError:
    return HandlingError(Code.HANDLER_TIMEOUT, f"over {work.permitted.route.total_timeout:g} s in all")


async def _store(reporter: TaskReporter, status: Status | None) -> None:
    await reporter.store(status)


async def _no_chunks(permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
    """Refuse to send: only a call is answered in chunks, and only its handler can be declared so."""
    raise HandlingError(Code.HANDLER_FAILED, "chunks without a caller")
