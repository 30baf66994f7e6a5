"""How a message ends: what happened is an outcome, what follows is an ending, and `decide_end` maps one to the other.

::

    NotBegun --------------------------------------------> Again, or Close (expired)
    NotRunnable -----------------------------------------> Bury
    AlreadyDone -----------------------------------------> Repeat, Close or Acknowledge
    Stopped ---------------------------------------------> Cancel
    Completed -------------------------------------------> Done
    Rejected (by its handler) ---------------------------> Close (failed)
    Failed --canceled--> Cancel   --denied--> Close (rejected)   --by its retry policy--> Again or Bury

Nothing here reads a clock or stores anything: `settlement` does what an ending says.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.routing.retry import UNTIL_EXPIRY, Reject, Retry, RetryPolicy
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE
from sealbus.bus.sending.status import State
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import AlreadyDone
from sealbus.envelopes.denial import NOTHING_TOLD, REMEDIES, Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.approval import approval_of
from sealbus.policies.decision.decision import remedies, shows_reasons

LASTING: Final = frozenset(
    {Code.BAD_BODY, Code.RESOURCE_NOT_FOUND, Code.IDEMPOTENCY_CONFLICT, Code.OUTCOME_UNKNOWN, Code.CANCELED}
)
"""Errors of another agent that a retry would not change: a handler that does not catch one is not retried."""


class Completed(NamedTuple):
    """The handler returned, with `result` or with its parts."""

    result: Content


class Rejected(NamedTuple):
    """The handler rejected the message."""

    rejection: Reject


class Failed(NamedTuple):
    """The handler failed in its attempt `number`; 0 if that does not matter.

    `requested` is the handler's own request for another attempt, `canceled` who canceled the message, if somebody did.
    """

    failure: HandlingError
    requested: Retry | None = None
    number: int = 0
    canceled: Canceled | None = None


class NotBegun(NamedTuple):
    """No handler ran, for a reason that passes: `code`. It may be gone in `seconds`, if that is known."""

    code: Code
    seconds: float | None = None


class NotRunnable(NamedTuple):
    """No handler ran, nor will one: the message conflicts with another, or may have had its effect before."""

    failure: HandlingError


class Expired(NamedTuple):
    """The time of the message was over before its turn came."""


class Stopped(NamedTuple):
    """The message was canceled."""

    canceled: Canceled


class Late(NamedTuple):
    """A handler that was given up has ended after all, and its message had its ending before.

    `done` says whether the handler returned, with `result`.
    """

    done: bool
    result: Content | None = None


Outcome = Completed | Rejected | Failed | NotBegun | NotRunnable | Expired | Stopped | AlreadyDone


class Done(NamedTuple):
    """Note the effect, tell the result, acknowledge."""

    result: Content


class Again(NamedTuple):
    """Have the message delivered again in `delay` seconds, because of `code`; tell its requester if `is_told`.

    `failed` is what failed in attempt `number`, and absent if no handler ran. `requested` is the handler's own request.
    """

    code: Code
    delay: float
    is_told: bool = True
    failed: HandlingError | None = None
    number: int = 0
    requested: Retry | None = None


class Bury(NamedTuple):
    """Store a dead letter with its reason, tell the requester that the task failed, acknowledge."""

    failure: HandlingError


class Close(NamedTuple):
    """Tell the requester the last status `state`, log `event`, acknowledge; there is no dead letter."""

    state: State
    code: str
    event: str
    extra: str = ""
    note: str = ""
    explanation: Explanation = NOTHING_TOLD
    is_told: bool = True


class Cancel(NamedTuple):
    """Tell the requester who canceled the task, acknowledge; it is neither tried again nor a dead letter."""

    canceled: Canceled


class Repeat(NamedTuple):
    """Tell the result of an earlier delivery once more, acknowledge."""

    result: Content


class Acknowledge(NamedTuple):
    """Acknowledge: the requester knows the result of the earlier delivery."""


Ending = Done | Again | Bury | Close | Cancel | Repeat | Acknowledge


class Park(NamedTuple):
    """Have the task wait for an approval, and tell its requester so."""

    explanation: Explanation


class AnswerError(NamedTuple):
    """AnswerError the call with an error."""

    code: Code
    explanation: Explanation


class TurnDown(NamedTuple):
    """Tell the requester of a task that it is rejected, and terminate the delivery."""

    code: Code
    explanation: Explanation


def decide_end(work: Work, outcome: Outcome, *, now: int, random: float) -> Ending:
    """Return what follows an outcome of a task or event; `now` is the time of the bus, `random` a number in [0, 1)."""
    match outcome:
        case Completed():
            return Done(outcome.result)
        case Stopped():
            return Cancel(outcome.canceled)
        case Expired():
            return Close(State.EXPIRED, Code.EXPIRED, "expired")
        case NotRunnable():
            return Bury(outcome.failure)
        case Rejected():
            rejection = outcome.rejection
            return Close(State.FAILED, rejection.code, "rejected", extra="by its handler", note=rejection.note)
        case AlreadyDone():
            return _end_of_copy(work, outcome)
        case NotBegun():
            return _end_of_unbegun(work, outcome, now=now, random=random)
        case Failed():
            return _end_of_failed(work, outcome, now=now, random=random)


def _end_of_copy(work: Work, done: AlreadyDone) -> Ending:
    """Return the ending of a delivery whose effect has happened."""
    if work.progress is None or done.told:
        return Acknowledge()
    # A result in parts is their count and their hash: the parts were told as parts of their own message.
    in_parts = done.result is not None and done.result.typ == PARTS_TYPE and not done.same
    if done.result is not None and not in_parts:
        return Repeat(done.result)
    reason = "in parts, which are that copy's" if in_parts else "not kept any more"
    note = f"done for an earlier copy; its result is {reason}"
    return Close(State.FAILED, Code.REPLAYED, "not done again", note=note)


def _end_of_unbegun(work: Work, outcome: NotBegun, *, now: int, random: float) -> Ending:
    """Return when a message is tried again that was not handled: after at least its seconds and with backoff."""
    delay, backoff = outcome.seconds, delay_of(work, UNTIL_EXPIRY, now=now, random=random)
    if delay is None or now + delay * SECOND >= work.exp:
        # The copy that this one waits for may have more time, but may be done, or have failed, long before.
        delay = backoff
    elif backoff is not None:
        # Each try costs a decision and its record: copies of one long task must not fill the audit stream.
        delay = max(delay, backoff)
    # While another copy is being handled nothing final is known: its result may come any moment and would go unheard.
    is_told = outcome.code is not Code.REPLAYED
    if delay is None:
        return Close(State.EXPIRED, outcome.code, "expired", is_told=is_told)
    return Again(outcome.code, delay, is_told=is_told)


def _end_of_failed(work: Work, outcome: Failed, *, now: int, random: float) -> Ending:
    """Return when a failed message is tried again by its route's policy, or why it is not."""
    failure = outcome.failure
    if outcome.canceled is not None:
        return Cancel(outcome.canceled)
    if failure.code is Code.DENIED:
        # A retry would make the same request and be denied again.
        explanation = passed_on(work.permitted, failure)
        return Close(
            State.REJECTED, failure.code, "denied", extra="a request of its handler was denied", explanation=explanation
        )
    policy, deadline = work.permitted.route.options.retry, deadline_of(work)
    if not is_retried(work, failure) or policy.is_last(outcome.number):
        return Bury(failure)
    after = outcome.requested.after if outcome.requested is not None else None
    delay = policy.delay(outcome.number, random=random, now=now, until=min(work.exp, deadline), after=after)
    if delay is None:
        return Bury(failure if deadline >= work.exp else over(work))
    return Again(failure.code, delay, failed=failure, number=outcome.number, requested=outcome.requested)


def is_retried(work: Work, failure: HandlingError) -> bool:
    """Return whether the policy of the message's route retries `failure` while there are attempts left."""
    lasting = failure.code in LASTING or failure.code is Code.DENIED
    return not lasting and work.permitted.route.options.retry.is_retryable(failure)


def delay_of(work: Work, schedule: RetryPolicy, *, now: int, random: float) -> float | None:
    """Return the seconds until the next delivery, or `None` if there is none before the message's end."""
    return schedule.delay(work.tried.number, random=random, now=now, until=work.exp)


def deadline_of(work: Work) -> float:
    """Return when all attempts have to be over, in microseconds; infinite where the handler does not say."""
    seconds = work.permitted.route.options.total_timeout
    if seconds == math.inf or (since := work.since) is None:
        return math.inf
    return since + seconds * SECOND


def over(work: Work) -> HandlingError:
    """Return the failure of a message whose attempts took too long together."""
    return HandlingError(Code.HANDLER_TIMEOUT, f"over {work.permitted.route.options.total_timeout:g} s in all")


def passed_on(permitted: Permitted, failure: HandlingError) -> Explanation:
    """Return the explanation for the requester of a failure: of a denial the handler's, if our decision shows reasons."""
    header = permitted.message.header
    if failure.code is not Code.DENIED or header.aud is None or not shows_reasons(permitted.obligations):
        return NOTHING_TOLD
    return failure.explanation.passed_on(Denier(header.aud.value, permitted.route.action, Code.DENIED.value))


def decide_refusal(decided: Decided, *, can_park: bool) -> Park | AnswerError | TurnDown:
    """Return what follows for a message that steps 14 to 16 refused; `can_park` tells whether its executor parks tasks."""
    code = decided.code or Code.DENIED
    explanation = _explanation_of(decided, code)
    if decided.parks and can_park:
        return Park(explanation)
    if decided.opened.message.header.kind is Kind.CALL:
        return AnswerError(code, explanation)
    return TurnDown(code, explanation)


def _explanation_of(decided: Decided, code: str) -> Explanation:
    """Return the explanation for the requester: none, unless an obligation of the decision allows showing its reasons."""
    decision, opened = decided.decision, decided.opened
    header, action = opened.message.header, opened.route.action
    if decision is None or not shows_reasons(decision.obligations):
        return NOTHING_TOLD
    explanation = Explanation(reasons=decision.reasons, remedies=remedies(decision))
    if header.kind is Kind.CALL and decision.allow is False and approval_of(decision.obligations) is not None:
        # A call cannot wait for an approval; a task can.
        remedy = Remedy(kind=RemedyKind.APPROVAL, action=action)
        explanation = explanation._replace(remedies=(remedy, *explanation.remedies)[:REMEDIES])
    # An event has no addressee, so there is no requester to explain it to.
    return explanation if header.aud is None else explanation.passed_on(Denier(header.aud.value, action, str(code)))
