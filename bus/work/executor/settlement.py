"""Does what an ending says: claim, status, outcome record, and acknowledgement last of all (SPEC.md section 7).

A terminal status is stored before its delivery is acknowledged: if a process dies between the two, the status is stored
again and its reader takes the first. What follows a handler takes round trips to the broker, and so runs in the
background while the next handler runs.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from sealbus.bus.background import BoundedTasks
from sealbus.bus.ports import Delivery, Pull, Settlement
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.routing.retry import UNTIL_EXPIRY, RetryPolicy
from sealbus.bus.routing.routes import TaskReporter
from sealbus.bus.routing.stages import Opened
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.bus.site import Site
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.executor.attempt_counts import FailedAttempts
from sealbus.bus.work.executor.completion import Completion, Finished, Outcomes
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.ending import (
    Acknowledge,
    Again,
    Bury,
    Cancel,
    Close,
    Completed,
    Done,
    Failed,
    Late,
    Outcome,
    Repeat,
    TurnDown,
    decide_end,
    is_retried,
)
from sealbus.bus.work.executor.poison import PoisonGuard
from sealbus.bus.work.executor.told_detail import ErrorDetail
from sealbus.bus.work.executor.work import Work, delivery_of
from sealbus.bus.work.idempotency.claim import RESULT_BYTES
from sealbus.bus.work.idempotency.claim_store import BusyEffect, Claim
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.places import Cause, Places
from sealbus.bus.work.status_writer import Statuses
from sealbus.bus.work.verb_room import VerbRoom
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import Code, HandlingError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.trust.caches import BoundedMap

_logger: Final = logging.getLogger(__name__)

BURY_AGAIN: Final = 5.0
"""Seconds until redelivery if the dead letter could not be stored."""

TELL_AGAIN: Final = RetryPolicy(initial_interval=5.0, maximum_attempts=9)
"""For a result that its requester could not be told: the effect is not repeated, a few redeliveries tell the result.

Tries of this process count, not deliveries: the message may have been delivered many times before its handler ran, for
instance to a replica without the verb.
"""
UNTOLD: Final = 4_096
"""Messages whose tries are remembered."""

END_AGAIN: Final = (1.0, 5.0, 15.0, 0.0)
"""Seconds between tries to tell that a message that was put off is canceled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where one executor stores how its messages end, and where they wait. Without `verb_room` no unknown verb waits."""

    statuses: Statuses
    effects: Effects
    stops: Stops
    dead_letters: DeadLetters
    failed_attempts: FailedAttempts
    places: Places
    verb_room: VerbRoom | None = None
    poison: PoisonGuard | None = None


class WorkSettlement:
    """Settles the tasks and events of one executor; round trips run in `background`, each in bounded time."""

    def __init__(
        self,
        site: Site,
        stores: Stores,
        *,
        outcomes: Outcomes,
        completion: Completion,
        background: BoundedTasks,
        detail: ErrorDetail,
    ) -> None:
        self._site = site
        self._stores = stores
        self._outcomes = outcomes
        self._completion = completion
        self._background = background
        self._detail = detail
        self._operator_log = OperatorLog(_logger)
        self._untold: BoundedMap[bytes, int] = BoundedMap(UNTOLD)
        """How often the end of a message was put off, by its hash."""

    async def settle(self, work: Work, outcome: Outcome | Late) -> None:
        """Do what follows `outcome`; return once it has been started or queued."""
        claim = work.claim
        if isinstance(outcome, Late):
            if claim is not None and outcome.done:
                await self._stores.effects.done(claim, outcome.result)
                self._stores.effects.told(claim)
            elif claim is not None:
                await self._release(work)
            return
        if not isinstance(outcome, Completed) or claim is None:
            await self._background.start(self._end, work, outcome)
            return
        result, progress = outcome.result, work.progress
        if claim.last or (progress is not None and len(result.body) > RESULT_BYTES):
            await self._background.start(self._finish, work, claim, result)
        elif progress is None:
            await self._finish(work, claim, result)
        else:
            await self._stores.effects.done(claim, result)
            await self._completion.put(Finished(work, claim, progress, result))

    async def end_given_up(self, work: Work) -> None:
        """End a task or event whose handler does not stop, as if it had stopped; it is not tried again.

        Its effect stays claimed: whether it happens is not known.
        """
        canceled = work.permitted.cancellation.canceled
        if canceled is not None:
            await self._cancel(work, canceled)
        else:
            await self._bury(work, HandlingError(Code.HANDLER_TIMEOUT, "it did not stop"))

    async def reject(self, opened: Opened, settlement: Settlement, refusal: TurnDown, note: str) -> None:
        """Tell the requester of a task that steps 14 to 17 refused it, and terminate the delivery.

        An earlier delivery may have been allowed and have had its effect. Then the requester is told that the outcome is not
        known. While a later delivery may find that out, this one is put off.
        """
        message, delivery = opened.message, opened.delivery
        reporter, effects = self._stores.statuses.reporter(message, delivery), self._stores.effects
        if reporter is None or effects.was_told(message):
            settlement.term(delivery)
            return
        tried = delivery if opened.resumed is None else delivery_of(opened.resumed.approval)
        until = (message if opened.resumed is None else opened.resumed.approval).header.exp
        try:
            is_known = not await effects.may_have_happened(message, once=opened.route.options.once)
        except (BusyEffect, StateUnavailable) as error:
            # A first delivery does not wait for STATE: a sender whose messages are all denied could fill the places.
            is_known = tried.number == 1 and isinstance(error, StateUnavailable)
            if not is_known and (delay := self._looking_again(tried.number, error, until)) is not None:
                self._stores.places.put_off(Cause.PASSING, delivery, settlement, delay)
                return
        state, code = (State.REJECTED, refusal.code) if is_known else (State.FAILED, Code.OUTCOME_UNKNOWN)
        if not is_known:
            self._operator_log.message(
                "refused", message.header, action="begun before", code=code, context=message.context
            )
        is_told = await reporter.tell(state, code=code, explanation=refusal.explanation, note=note)
        # A denial of what was not begun is no reason for another delivery, which would be decided and recorded again.
        delay = None if is_told or is_known else self._telling_again(message.header, until)
        if delay is not None:
            self._stores.places.put_off(Cause.PASSING, delivery, settlement, delay)
        else:
            settlement.term(delivery)

    def _looking_again(self, number: int, error: BusyEffect | StateUnavailable, until: int) -> float | None:
        """Return in how many seconds a refused delivery is looked at again; `None` if none comes before `until`."""
        random, now = self._site.random(), self._site.bus_clock()
        backoff = UNTIL_EXPIRY.delay(number, random=random, now=now, until=until)
        if backoff is None or not isinstance(error, BusyEffect):
            return backoff
        # Each try costs a decision and its record.
        delay = max(backoff, error.seconds)
        return delay if now + delay * SECOND < until else backoff

    async def put_off_unknown_verb(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off a genuine message whose verb has no handler here, for a replica that has one, until its `exp`.

        The requester is told at the first delivery, so that a mistyped verb shows at once. At the last try, or if there is no
        room, the task fails. There is no dead letter: DEAD drops the oldest, so any permitted sender could flush it. Returns
        once the requester begins to be told.
        """
        pause = None
        if (room := self._stores.verb_room) is not None:
            random, now = self._site.random(), self._site.bus_clock()
            pause = await room.put_off(message, delivery, pull, random=random, now=now)
        self._operator_log.message(
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
        if (reporter := self._stores.statuses.reporter(message, delivery)) is not None:
            state = State.WORKING if again else State.FAILED
            await reporter.tell(state, code=Code.UNKNOWN_VERB, note=self._detail.verbs)
        if not again:
            pull.term(delivery)

    async def _end(self, work: Work, outcome: Outcome) -> None:
        """Do what `decide_end` says; a claim is released first, so that the next delivery may be handled."""
        if isinstance(outcome, Failed):
            outcome = await self._with_reasons(work, outcome)
        else:
            await self._release(work)
        ending = decide_end(work, outcome, now=self._site.bus_clock(), random=self._site.random())
        match ending:
            case Done():
                raise TypeError("a message without a claim is not done")
            case Again():
                await self._try_again(work, ending)
            case Bury():
                await self._bury(work, ending.failure)
            case Close():
                await self._close(work, ending)
            case Cancel():
                await self._cancel(work, ending.canceled)
            case Repeat():
                self._log(work, "not done again", Code.REPLAYED)
                await self._repeat(work, ending.result)
            case Acknowledge():
                self._log(work, "not done again", Code.REPLAYED)
                await self._outcomes.settle(work, Code.REPLAYED)

    async def _with_reasons(self, work: Work, outcome: Failed) -> Failed:
        """Return a failure with who canceled the message, or with the number of its attempt if it may be tried again."""
        failure, canceled = outcome.failure, outcome.canceled
        if canceled is None and failure.code is Code.CANCELED:
            canceled = await self._stores.stops.expected(work.permitted.message)
        await self._release(work)
        retried = canceled is None and is_retried(work, failure)
        return outcome._replace(canceled=canceled, number=await self._count_failed(work) if retried else 0)

    async def _release(self, work: Work) -> None:
        if work.claim is not None:
            await self._stores.effects.failed(work.claim)

    async def _count_failed(self, work: Work) -> int:
        """Return which attempt of the handler has failed, from 1."""
        if work.permitted.route.options.retry.maximum_attempts in {None, 1}:
            # The count would decide nothing but how long the next pause is.
            return work.tried.number
        return await self._stores.failed_attempts.count(work)

    async def _finish(self, work: Work, claim: Claim, result: Content) -> None:
        """Note the effect of a handler that returned, tell its result, and acknowledge."""
        code: Code | None = None
        progress, effects, is_told = work.progress, self._stores.effects, True
        if progress is None:
            await effects.done(claim, None)
        elif len(result.body) > DEFAULT_LIMITS.body_bytes:
            code = Code.BAD_RESULT
            await effects.done(claim, None)
            await progress.tell(State.FAILED, code=code, note="done, but its result is too large to be sent")
        elif len(result.body) > RESULT_BYTES:
            # No process could tell this result again, so it is told before the effect counts as done.
            await progress.completed(result)
            await effects.done(claim, None)
        else:
            await effects.done(claim, result)
            is_told = await progress.completed(result)
        if is_told:
            effects.told(claim)
        else:
            effects.untold(claim)
            # Only if STATE keeps the result does a redelivery tell it again instead of running the handler elsewhere.
            if claim.last and await self._tell_later(work, code):
                return
        await self._outcomes.settle(work, code)

    async def _repeat(self, work: Work, result: Content) -> None:
        """Tell a result that its requester may not know, or have it told by a later delivery."""
        progress = work.progress
        is_told = progress is not None and await progress.completed(result)
        if not is_told and await self._tell_later(work, Code.REPLAYED):
            return
        await self._outcomes.settle(work, Code.REPLAYED)

    async def _tell_later(self, work: Work, code: Code | None) -> bool:
        """Put off a delivery whose end was not stored for its requester; return whether it will be redelivered."""
        delay = self._telling_again(work.header, work.exp)
        if delay is None:
            return False
        await self._outcomes.note(work, code)
        work.put_off(delay, self._stores.places)
        return True

    def _telling_again(self, header: Header, until: int) -> float | None:
        """Count a try to tell the end of a message; return the seconds until the next, `None` after the last."""
        tries = (self._untold.get(header.digest) or 0) + 1
        delay = TELL_AGAIN.delay(tries, random=self._site.random(), now=self._site.bus_clock(), until=until)
        if delay is not None:
            self._untold.put(header.digest, tries)
        return delay

    async def _close(self, work: Work, ending: Close) -> None:
        self._log(work, ending.event, ending.code, ending.extra)
        if (reporter := work.permitted.reporter) is not None and ending.is_told:
            await reporter.tell(ending.state, code=ending.code, explanation=ending.explanation, note=ending.note)
        await self._outcomes.settle(work, ending.code)

    async def _cancel(self, work: Work, canceled: Canceled) -> None:
        # If its requester cannot be told, it is delivered again, meets the stop again, and tells it then.
        if not await self._tell_canceled(work, canceled) and await self._tell_later(work, Code.CANCELED):
            return
        await self._outcomes.settle(work, Code.CANCELED)

    async def _tell_canceled(self, work: Work, canceled: Canceled) -> bool:
        """Tell the requester who canceled its task, and why; return whether that was stored, or there is no requester."""
        self._log(work, "canceled", Code.CANCELED)
        reporter = work.permitted.reporter
        return reporter is None or await reporter.tell(
            State.CANCELED, code=Code.CANCELED, note=canceled.reason, by=canceled.by
        )

    async def _bury(self, work: Work, failure: HandlingError) -> None:
        try:
            await self._stores.dead_letters.bury(work, failure)
        except SealbusError as error:
            _logger.warning("dead letter not stored, will be retried: %s", error)
            work.put_off(BURY_AGAIN, self._stores.places)
            return
        self._log(work, "dead-lettered", failure.code, f"after {work.delivery.number} deliveries")
        if (reporter := work.permitted.reporter) is not None:
            is_told = await reporter.tell(State.FAILED, code=failure.code, note=self._detail.of(failure))
            # Not claimed: no handler was run, and a redelivery runs none but tells the same.
            repeatable = failure.code is Code.OUTCOME_UNKNOWN and work.claim is None
            if not is_told and repeatable and await self._tell_later(work, failure.code):
                return
        await self._outcomes.settle(work, failure.code)

    async def _try_again(self, work: Work, ending: Again) -> None:
        """Record the outcome of an attempt that is not the last, tell it, and put the delivery off."""
        failed, requested = ending.failed, ending.requested
        reporter: TaskReporter | None = work.progress if ending.is_told else None
        if reporter is None:
            await self._outcomes.note(work, ending.code)
        else:
            detail = self._detail.of(failed) if failed is not None else ""
            # A handler that asks for another attempt has not failed as far as the requester is concerned.
            code, note = (ending.code, detail) if requested is None else ("", requested.note)
            tell = reporter.tell(State.WORKING, code=code, note=note)
            await asyncio.gather(self._outcomes.note(work, ending.code), tell)
        if failed is None:
            self._log(work, "put off", ending.code, f"for {ending.delay:.1f} s")
        else:
            next_attempt = f"attempt {ending.number} failed, the next in {ending.delay:.1f} s"
            self._log(work, "retried", ending.code, next_attempt)
        self._put_off(work, ending.delay)

    def _put_off(self, work: Work, delay: float) -> None:
        """Put off a delivery that is to be handled again; if it is canceled meanwhile, it ends at once."""
        work.put_off(delay, self._stores.places)
        if self._stores.poison is not None:
            self._stores.poison.put_off(work)

        def end(canceled: Canceled) -> None:
            self._background.start_at_once(self._end_put_off(work, canceled))

        self._stores.stops.put_off(work.permitted.message, delay, end)

    async def _end_put_off(self, work: Work, canceled: Canceled) -> None:
        """End a canceled message that was put off; after several tries its requester is told at its next delivery."""
        for pause in END_AGAIN:
            if await self._tell_canceled(work, canceled):
                if work.settlement is not None:
                    work.settlement.term(work.delivery)
                return
            await asyncio.sleep(pause)

    def _log(self, work: Work, event: str, code: str, extra: str = "") -> None:
        action, context = work.permitted.route.action, work.permitted.message.context
        self._operator_log.message(event, work.header, action=action, code=code, extra=extra, context=context)
