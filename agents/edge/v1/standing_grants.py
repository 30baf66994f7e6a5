"""Standing grants: actions that an edge does at set times in a user's name, checked again before each time.

A user grants an action once, by a fresh login. The edge's policy decides the grant; it is recorded, and kept with the context
of that login. Before each tick the policy is asked again whether that user may still do it. Revoking the user, the client or
the session ends the grant.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.runtime.schedules import book_of, claims_of
from sealbus.agents.sdk.messages import split_action
from sealbus.agents.sdk.task_handle import handle_text
from sealbus.bus.gate.authorizer import caller_for
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.schedules.book import Schedule
from sealbus.bus.work.schedules.request import Planned, ScheduleRequest
from sealbus.bus.work.schedules.rule import shown_when
from sealbus.bus.work.schedules.standing import check_standing, is_of, standing_draft
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import (
    Code,
    EnvelopeError,
    HandlingError,
    IdentityUnavailable,
    PolicyFailed,
    SealbusError,
    SealError,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.message.user_context import UserContext, mint_context, parse_payload, standing_session
from sealbus.envelopes.message.wire import Statement
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import Request, Resource, input_document

_logger: Final = logging.getLogger(__name__)

REVOKED_FOR: Final = 29 * 86_400 * SECOND
"""The greatest age of a stored grant. Lists of revocations forget after 30 days; an edge that was down longer missed some."""


class EdgeGrants:
    """The standing grants of one edge's users (`StandingGrants`); `owners` records the owners of their tasks."""

    def __init__(self, front: Front, owners: TaskOwners) -> None:
        self._front = front
        self._owners = owners
        self._operator_log = OperatorLog(_logger)
        self.book: Final = book_of(front.node)
        self.claims: Final = claims_of(front.node)

    def admit(self, request: ScheduleRequest, message: VerifiedMessage, known: Schedule | None) -> bytes:
        """Return the payload of the context to keep; raise `HandlingError` (`bad_body`) for a grant that may not be."""
        front = self._front
        context = check_standing(request, message, own=front.node.own, fresh=front.limits.schedule_login_seconds)
        if known is not None and not _is_theirs(known, context):
            raise HandlingError(Code.BAD_BODY, "the schedule is another user's")
        if request.planned is not None and not self._exposes(request.planned):
            raise HandlingError(Code.BAD_BODY, "this action is not exposed")
        return message.statement.payload if message.statement is not None else b""

    async def may_send(self, schedule: Schedule) -> bool:
        """Ask the edge's policy whether this user may still do it. Raises `SealbusError` if the policy does not answer."""
        user = _user_of(schedule)
        if user is None or not self._exposes(schedule.planned):
            return False
        [answer] = await self._front.node.engine.decide([self._question(schedule, user)])
        if not isinstance(answer, Decision):
            raise answer
        if answer.allow is not True or answer.obligations:
            self._operator_log.warning("the standing grant %s is not allowed any more", schedule.name)
            return False
        return True

    def ended(self, schedule: Schedule) -> str:
        """Return why a grant has ended, "" if not: its user, session or client, or the grant itself is revoked."""
        node = self._front.node
        user = _user_of(schedule)
        if user is None:
            return "it is no standing grant"
        if schedule.held is not None and node.site.bus_clock() - schedule.held.at > REVOKED_FOR:
            return "the edge was down for too long to know all revocations meanwhile"
        revocations = node.revocations()
        for session in (user.sid, standing_session(schedule.grant.digest)) if revocations else ():
            reason = revocations.reason(
                issuer=user.idp, user=user.sub, session=session, client=user.cid, login=user.aut or 0
            )
            if reason is not None:
                return reason
        return ""

    def statement(self, schedule: Schedule) -> Statement:
        """Mint the context of one tick, for its absent user. Raises `SealbusError`."""
        node, limits = self._front.node, self._front.limits
        user, sealer, now = _user_of(schedule), node.identity.sealer(), node.site.bus_clock()
        if user is None:
            raise SealError("it is no standing grant")
        if now >= sealer.expires:
            raise IdentityUnavailable("the edge's credential has expired")
        draft = standing_draft(
            user,
            schedule.grant.digest,
            transaction=os.urandom(16),
            now=now,
            start=limits.context_start_seconds * SECOND,
            life=limits.context_end_seconds * SECOND,
        )
        return mint_context(draft, sealer)

    async def sent(self, schedule: Schedule, task: PendingRequest) -> None:
        """Record the user as owner of the task of a tick."""
        try:
            user, pending = parse_payload(schedule.user), AskedTask(pending=task, action=schedule.planned.action)
            await self._owners.keep_for(self._front.node.sending.handle(handle_text(pending)), user)
        except SealbusError as error:
            self._operator_log.warning(
                "the owner of a task of %s is not kept: %s", schedule.name, error.detail or error.code
            )

    async def of(self, user: UserContext) -> list[Schedule]:
        """Return the standing schedules of `user`, by name. Raises as `ScheduleBook.all`."""
        now = self._front.node.site.bus_clock()
        return [
            schedule
            for _, schedule in sorted((await self.book.all()).items())
            if is_of(schedule.name, user)
            and _is_theirs(schedule, user)
            and schedule.stands(now)
            and not self.ended(schedule)
        ]

    def _exposes(self, planned: Planned) -> bool:
        try:
            agent, verb = split_action(planned.action)
            return self._front.exposed.action(agent, verb) == planned.action and (
                planned.action not in self._front.node.deployment.own_subjects
            )
        except (EdgeError, SealError):
            return False

    def _question(self, schedule: Schedule, user: UserContext) -> bytes:
        """Return the question of the grant, as it is now; its state `tick` tells the policy that the user is absent."""
        node, planned = self._front.node, schedule.planned
        try:
            return input_document(
                Request(
                    caller=caller_for(node.own, user),
                    action=f"{node.token}._schedule",
                    properties={
                        "name": schedule.name,
                        "state": "tick",
                        "action": planned.action,
                        "when": shown_when(planned.when),
                        "overlap": planned.overlap.value,
                    },
                    resource=Resource(
                        type="schedule",
                        id=schedule.name,
                        properties={
                            "state": schedule.state.value,
                            "action": planned.action,
                            "by": schedule.grant.by.value,
                        },
                    ),
                    time=node.site.bus_clock(),
                    nats_subject=control_subject(node.token, "schedule"),
                    kind=Kind.TASK.value,
                    message_id="",
                )
            )
        except PolicyFailed:
            raise
        except SealbusError as error:
            raise PolicyFailed(error.detail) from error


def _user_of(schedule: Schedule) -> UserContext | None:
    """Return the user for whom a schedule acts, from the message that granted it; None if there is none."""
    try:
        return parse_payload(schedule.user)
    except EnvelopeError:
        return None


def _is_theirs(schedule: Schedule, user: UserContext) -> bool:
    owner = _user_of(schedule)
    return owner is not None and (owner.idp, owner.sub) == (user.idp, user.sub)
