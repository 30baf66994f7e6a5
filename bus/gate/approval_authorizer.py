"""Steps 14 to 16 of an approval: what is approved, the floors that no policy lifts, and the question who may approve it.

The floors are checked before any policy is asked: it is a person, by an edge; the task waits, for exactly this decision;
nobody approves their own; nobody counts twice; their login is strong and fresh enough.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.bus.clocks import BusClock
from sealbus.bus.gate.authorizer import request_of
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.routing.timers import being_cancelled
from sealbus.bus.sending.approval import ApprovalRequest, Verdict, parse_approval
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.parked_cancels import ParkedCancels
from sealbus.bus.work.approvals.parked_tasks import (
    MOST_VERDICTS,
    CountedVerdict,
    Parked,
    ParkedState,
    ParkedTasks,
    without,
)
from sealbus.bus.work.cancel.stop import Stop
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import (
    BadBody,
    Code,
    ConfigurationError,
    DecisionError,
    InfrastructureError,
    ObligationUnknown,
    PolicyFailed,
    PolicyUnavailable,
    ResourceUnavailable,
    SealbusError,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.user_context import UserContext
from sealbus.policies.decision.approval import ApprovalObligation, approval_question
from sealbus.policies.decision.decision import Decision, unknown_obligation
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.engine import Answer, PolicyEngine
from sealbus.policies.decision.request import Resource, input_document

__all__ = [
    "ApprovalAuthorizer",
    "ApprovalCase",
    "ApprovalRefused",
    "ask_about",
    "floors",
    "strong_enough",
    "verdict_of",
]

_log: Final = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Approvals that are looked up at a time: each takes some round trips."""
TAKEN_UP: Final = 10 * SECOND
"""How long what another approval has just taken up may still come back (microseconds): this one is tried again."""


class ApprovalRefused(DecisionError):
    """Step 15: an approval that cannot count, whatever the policy says; `code` says why."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalCase:
    """An approval, and the parked task that it is about as it stood when it was decided."""

    request: ApprovalRequest
    parked: Parked


class ApprovalAuthorizer:
    """Decides about approvals for one agent. `cancels` knows whether a parked task was canceled, or what it follows from.

    `under_way` holds H(header) of each approval that this process has taken and not settled.
    """

    def __init__(
        self,
        *,
        tasks: ParkedTasks,
        engine: PolicyEngine,
        cancels: ParkedCancels,
        under_way: Container[bytes],
        clock: BusClock,
    ) -> None:
        self._tasks = tasks
        self._engine = engine
        self._cancels = cancels
        self._under_way = under_way
        self._clock = clock
        self._said = OperatorLog(_log)

    async def authorize(self, opened: Sequence[Opened]) -> list[Decided]:
        """Return the decision about each approval, in order, without approvals under way; a failure affects only its own.

        The server delivers an approval again if its task takes longer than `ack_wait`. Counted again, it would take the task
        away from its own earlier delivery, which then could not end it. The earlier delivery settles both.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def decided(one: Opened) -> Decided:
            async with room:
                return await self._authorize(one)

        decisions = await asyncio.gather(*[decided(one) for one in opened])
        return [decision for decision in decisions if decision.opened.message.header.digest not in self._under_way]

    async def _authorize(self, opened: Opened) -> Decided:
        message, document = opened.message, b""
        case: ApprovalCase | None = None
        decision: Decision | None = None
        error: SealbusError | None = None
        try:
            request = parse_approval(message.body, message.header.typ)
            parked, stops = await self._kept(message)
            case = ApprovalCase(request=request, parked=parked)
            # What this approval has taken up already meets its stop before its handler, and its requester is told there.
            if not parked.taken_up_by(message.header.digest) and await self._cancels.met(parked, stops):
                raise ApprovalRefused(Code.APPROVAL_CLOSED, "it was canceled")
            floors(case, message, now=self._clock())
            document = approval_question(
                _about(opened, case, now=self._clock()),
                of=case.parked.decision.input or b"",
                obligation=case.parked.obligation.json,
            )
            answer = await ask_about(self._engine, document)
            if isinstance(answer, Decision):
                decision = answer
                unknown = unknown_obligation(answer.obligations, frozenset())
                if answer.allow is True and unknown is not None:
                    error = ObligationUnknown(f"no approval honours {unknown[:64]!a}")
            else:
                error = answer
        except (DecisionError, PolicyFailed) as failure:
            error = failure
        except (InfrastructureError, ConfigurationError) as failure:
            self._said.warning("an approval cannot be decided now: %s", failure.code)
            error = ResourceUnavailable("what is parked or canceled cannot be read")
        except SealbusError as failure:
            self._said.warning("an approval cannot be decided: %s", failure.code)
            error = PolicyFailed(failure.detail)
        return Decided(opened=opened, value=case, input_document=document, decision=decision, error=error)

    async def _kept(self, message: VerifiedMessage) -> tuple[Parked, Sequence[Stop]]:
        """Return the task that an approval is about, and the stops of it."""
        digest = message.header.re
        if digest is None:
            raise BadBody("an approval says which task it is about")
        # At once, because each takes some round trips.
        parked, stops = await asyncio.gather(
            self._tasks.find(digest), self._cancels.under(digest), return_exceptions=True
        )
        if isinstance(parked, BaseException):
            raise parked
        if parked is None:
            raise ApprovalRefused(Code.APPROVAL_CLOSED, "nothing waits under this hash")
        if isinstance(stops, BaseException):
            raise stops
        return parked, stops


async def ask_about(engine: PolicyEngine, document: bytes) -> Answer:
    """Ask who may approve; whatever the engine raises is a failure, and its text is not passed on."""
    try:
        return await engine.approve(document)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        return PolicyUnavailable("CancelledError")
    except Exception as error:  # noqa: BLE001  an engine's fault must not end a worker; only its type is logged
        _log.warning("the policy engine failed: %s", type(error).__name__)
        return PolicyUnavailable(type(error).__name__)


def floors(case: ApprovalCase, message: VerifiedMessage, *, now: int) -> UserContext:
    """Return the context of a person who may approve as far as no policy says otherwise; raise `ApprovalRefused`."""
    parked, header, context, arrival = case.parked, message.header, message.context, message.arrival
    obligation = parked.obligation
    if context is None or header.par is not None or context.typ is not None:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it is by no person")
    if header.iss != context.iss or context.wkl is not None:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it is not by the edge where the person is")
    if header.grt != obligation.follows:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it lets other actions follow")
    stored = arrival.stored if isinstance(arrival, StreamArrival) else now
    again = parked.taken_up_by(header.digest)
    # What was counted in time is tried as long as the approval lives: its handler may have run.
    if not (stored < parked.until and (again or now < parked.until)):
        raise ApprovalRefused(Code.APPROVAL_CLOSED, "it is too late")
    if parked.state is ParkedState.ENDED:
        raise ApprovalRefused(Code.APPROVAL_CLOSED, "the task has ended")
    if case.request.decision != parked.leaf:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it is about another decision")
    if parked.state is ParkedState.RUNNING and not again:
        if now < parked.changed + TAKEN_UP:
            raise ResourceUnavailable("another approval has just taken the task up")
        raise ApprovalRefused(Code.APPROVAL_CLOSED, "the task is under way")
    person = (context.idp, context.sub)
    if person == parked.requester:
        raise ApprovalRefused(Code.APPROVAL_SELF, "nobody approves what they asked for")
    said = parked.said_by(person)
    if said is None or said.message != header.digest:
        if case.request.verdict is Verdict.WITHDRAW and (said is None or said.verdict is Verdict.WITHDRAW):
            raise ApprovalRefused(Code.APPROVAL_CLOSED, "there is nothing to withdraw")
        if said is not None and said.verdict is case.request.verdict:
            raise ApprovalRefused(Code.APPROVAL_REPEATED, "this person has said so")
        if said is not None and said.time > stored:
            raise ApprovalRefused(Code.APPROVAL_REPEATED, "this person has said something else since")
    if len(without(parked.verdicts, person)) >= MOST_VERDICTS:
        raise ApprovalRefused(Code.APPROVAL_CLOSED, "too many people have said something")
    strong_enough(obligation, context, at=header.iat)
    return context


def strong_enough(obligation: ApprovalObligation, context: UserContext, *, at: int) -> None:
    """Raise `ApprovalRefused` (`approval_weak`) unless the login of `context` is what the obligation asks for, at `at`."""
    if obligation.acr and context.acr not in obligation.acr:
        raise ApprovalRefused(Code.APPROVAL_WEAK, "the login is not strong enough")
    if obligation.max_age is not None and (context.aut is None or at - context.aut > obligation.max_age * SECOND):
        raise ApprovalRefused(Code.APPROVAL_WEAK, "the login is too old")


def verdict_of(case: ApprovalCase, message: VerifiedMessage, *, record: bytes, issued: int) -> CountedVerdict:
    """Return the verdict of a decided approval as it is counted; `record` is the leaf of the decision about it."""
    context, arrival = message.context, message.arrival
    if context is None or not isinstance(arrival, StreamArrival):
        raise TypeError("an approval is by a person, and comes from a stream")
    return CountedVerdict(
        verdict=case.request.verdict,
        user=context.sub,
        idp=context.idp,
        session=context.sid,
        client=context.cid,
        acr=context.acr or "",
        authenticated=context.aut or 0,
        time=arrival.stored,
        message=message.header.digest,
        record=record,
        edge=message.header.iss,
        issued=issued,
    )


def _about(opened: Opened, case: ApprovalCase, *, now: int) -> InputDocument:
    """Return the usual input document about an approval."""
    properties = {"verdict": case.request.verdict.value, "note": case.request.note}
    resource = Resource(type="task", id=case.parked.digest.hex())
    return input_document(request_of(opened, properties, resource, now=now))
