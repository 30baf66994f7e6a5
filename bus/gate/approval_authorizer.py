"""Steps 14 to 16 of an approval: find the parked task, check the floors that no policy lifts, ask the policy who may approve.

The floors come before the policy. A person approves, through an edge. The task waits, and for exactly this decision.
Requesters do not approve their own tasks. Each person counts once. Their login is strong and fresh enough.
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

_logger: Final = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Approvals that are looked up at a time: each takes some round trips."""
TAKEN_UP: Final = 10 * SECOND
"""Microseconds in which a task that another approval has taken up may wait again. Until then this approval is retried."""


class ApprovalRefused(DecisionError):
    """Step 15: an approval breaks a floor. It does not count, whatever the policy decides; `code` gives the reason."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalCase:
    """An approval, and the version of the parked task that it was decided about."""

    request: ApprovalRequest
    parked: Parked


class ApprovalAuthorizer:
    """Decides about approvals for one agent. `cancels` knows whether a parked task or one of its ancestors was canceled.

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
        self._operator_log = OperatorLog(_logger)

    async def authorize(self, opened: Sequence[Opened]) -> list[Decided]:
        """Return the decision about each approval, in order, except approvals under way. A failure affects one approval.

        The server redelivers an approval whose task takes longer than `ack_wait`. Counting it again would replace the stored
        task. The earlier delivery could then not end the task. The earlier delivery settles both.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def decided(approval: Opened) -> Decided:
            async with room:
                return await self._authorize(approval)

        decisions = await asyncio.gather(*[decided(approval) for approval in opened])
        return [decision for decision in decisions if decision.opened.message.header.digest not in self._under_way]

    async def _authorize(self, opened: Opened) -> Decided:
        message, document = opened.message, b""
        case: ApprovalCase | None = None
        decision: Decision | None = None
        error: SealbusError | None = None
        try:
            request = parse_approval(message.body, message.header.typ)
            parked, stops = await self._parked_and_stops(message)
            case = ApprovalCase(request=request, parked=parked)
            # A task that this approval has taken up meets its stop before its handler, where its requester is told.
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
            self._operator_log.warning("an approval cannot be decided now: %s", failure.code)
            error = ResourceUnavailable("the parked task or its stops cannot be read")
        except SealbusError as failure:
            self._operator_log.warning("an approval cannot be decided: %s", failure.code)
            error = PolicyFailed(failure.detail)
        return Decided(opened=opened, value=case, input_document=document, decision=decision, error=error)

    async def _parked_and_stops(self, message: VerifiedMessage) -> tuple[Parked, Sequence[Stop]]:
        """Return the task that an approval is about, and its stops. Raises `ApprovalRefused` if no such task is parked."""
        digest = message.header.re
        if digest is None:
            raise BadBody("an approval says which task it is about")
        # Concurrently, because each takes some round trips.
        parked, stops = await asyncio.gather(
            self._tasks.find(digest), self._cancels.under(digest), return_exceptions=True
        )
        if isinstance(parked, BaseException):
            raise parked
        if parked is None:
            raise ApprovalRefused(Code.APPROVAL_CLOSED, "no task is parked under this hash")
        if isinstance(stops, BaseException):
            raise stops
        return parked, stops


async def ask_about(engine: PolicyEngine, document: bytes) -> Answer:
    """Ask the policy who may approve. An exception of the engine becomes `PolicyUnavailable`, without its text."""
    try:
        return await engine.approve(document)
    except asyncio.CancelledError:
        if being_cancelled():
            raise
        return PolicyUnavailable("CancelledError")
    except Exception as error:  # noqa: BLE001  an engine's fault must not end a worker; only its type is logged
        _logger.warning("the policy engine failed: %s", type(error).__name__)
        return PolicyUnavailable(type(error).__name__)


def floors(case: ApprovalCase, message: VerifiedMessage, *, now: int) -> UserContext:
    """Return the context of the person who approves; raise `ApprovalRefused` if a floor is broken.

    Raises `ResourceUnavailable` if another approval has just taken the task up: this approval is then tried again.
    """
    parked, header, context, arrival = case.parked, message.header, message.context, message.arrival
    obligation = parked.obligation
    if context is None or header.par is not None or context.typ is not None:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it is not by a person")
    if header.iss != context.iss or context.wkl is not None:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it is not by the edge where the person logged in")
    if header.grt != obligation.follows:
        raise ApprovalRefused(Code.APPROVAL_FOREIGN, "it lets other actions follow")
    stored = arrival.stored if isinstance(arrival, StreamArrival) else now
    again = parked.taken_up_by(header.digest)
    # An approval that has taken the task up in time is tried as long as it lives: the handler may have run.
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
        raise ApprovalRefused(Code.APPROVAL_SELF, "requesters do not approve their own tasks")
    before = parked.said_by(person)
    if before is None or before.message != header.digest:
        if case.request.verdict is Verdict.WITHDRAW and (before is None or before.verdict is Verdict.WITHDRAW):
            raise ApprovalRefused(Code.APPROVAL_CLOSED, "there is nothing to withdraw")
        if before is not None and before.verdict is case.request.verdict:
            raise ApprovalRefused(Code.APPROVAL_REPEATED, "this person has given this verdict")
        if before is not None and before.time > stored:
            raise ApprovalRefused(Code.APPROVAL_REPEATED, "this person has given another verdict since")
    if len(without(parked.verdicts, person)) >= MOST_VERDICTS:
        raise ApprovalRefused(Code.APPROVAL_CLOSED, "too many people have given a verdict")
    check_login(obligation, context, at=header.iat)
    return context


def check_login(obligation: ApprovalObligation, context: UserContext, *, at: int) -> None:
    """Raise `ApprovalRefused` (`approval_weak`) unless the login of `context` meets the obligation at `at` (microseconds)."""
    if obligation.acr and context.acr not in obligation.acr:
        raise ApprovalRefused(Code.APPROVAL_WEAK, "the login is not strong enough")
    if obligation.max_age is not None and (context.aut is None or at - context.aut > obligation.max_age * SECOND):
        raise ApprovalRefused(Code.APPROVAL_WEAK, "the login is too old")


def verdict_of(case: ApprovalCase, message: VerifiedMessage, *, record: bytes, issued: int) -> CountedVerdict:
    """Return the verdict of a decided approval.

    `record` is the leaf of its decision record, `issued` when the credential of its edge was issued (microseconds).
    """
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
    """Return the input document of an approval, built as for any other message."""
    properties = {"verdict": case.request.verdict.value, "note": case.request.note}
    resource = Resource(type="task", id=case.parked.digest.hex())
    return input_document(request_of(opened, properties, resource, now=now))
