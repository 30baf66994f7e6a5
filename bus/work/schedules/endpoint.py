"""The handler of `control.<owner>.schedule`: it stores schedules once they were decided and recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from sealbus.bus.routing.retry import Reject
from sealbus.bus.routing.routes import Endpoint, Permitted
from sealbus.bus.sending.message import Content
from sealbus.bus.work.schedules.book import Schedule, ScheduleChange
from sealbus.bus.work.schedules.request import ScheduleRequest, ScheduleState, parse_schedule
from sealbus.bus.work.schedules.rule import At, shown_when
from sealbus.bus.work.schedules.scheduler import Scheduler
from sealbus.bus.work.schedules.standing import STANDING_OF_USER, StandingGrants, users_part
from sealbus.envelopes.accept.live import VerifiedMessage, credential_issued
from sealbus.envelopes.errors import BadBody, Code, HandlingError, SealbusError, StateUnavailable
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.policies.decision.request import Resource

MOST: Final = 1_024
"""Schedules of one owner that are neither removed nor over."""
_WRITES: Final = 4
"""Tries to write a version while other processes write."""


class ScheduleEndpoint(Endpoint):
    """The handler of schedules for the identity whose schedules `scheduler` runs. Raises what a handler may raise.

    With `standing` it takes only schedules that act for users.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        trust: Callable[[], Trust],
        caches: Caches,
        standing: StandingGrants | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._standing = standing
        self._trust = trust
        self._caches = caches

    def decode(self, body: bytes, typ: str) -> ScheduleRequest:
        """Return the request (step 14)."""
        return parse_schedule(body, typ)

    def properties(self, value: object) -> Mapping[str, object]:
        """Return what the policy sees: the name and state of the schedule, its action, its times and its overlap."""
        request = _request(value)
        planned = request.planned
        return {
            "name": request.name,
            "state": request.state.value,
            "action": planned.action if planned is not None else "",
            "when": shown_when(planned.when) if planned is not None else "",
            "overlap": planned.overlap.value if planned is not None else "",
        }

    async def resource(self, value: object) -> Resource:
        """Return the schedule that stands as the policy's resource: its state, its action, and its sender (step 15)."""
        name = _request(value).name
        known = await self._scheduler.book.one(name)
        stands = known is not None and known.state is not ScheduleState.REMOVED
        return Resource(
            type="schedule",
            id=name,
            properties={
                "state": known.state.value if known is not None and stands else "",
                "action": known.planned.action if known is not None and stands else "",
                "by": known.grant.by.value if known is not None and stands else "",
            },
        )

    async def handle(self, permitted: Permitted) -> Content | None:
        """Store the schedule that was asked for (step 18), unless a later message has changed it."""
        request, message = _request(permitted.value), permitted.message
        arrival = message.arrival
        if not isinstance(arrival, StreamArrival):
            raise HandlingError(Code.BAD_BODY, "a schedule comes from a stream")
        order = (arrival.stored, arrival.sequence)
        self._check(request, message)
        issued = credential_issued(message, trust=self._trust(), caches=self._caches)
        change = ScheduleChange(message.header.digest, message.header.iss, issued)
        for _ in range(_WRITES):
            known = await self._scheduler.book.one(request.name)
            # The same order is a redelivery. An earlier message must not undo a later one.
            if known is not None and known.order >= order:
                return None
            user = self._standing.admit(request, message, known) if self._standing is not None else b""
            wanted = self._wanted(request, known, message, change, order, user)
            if await self._scheduler.book.store(wanted, known):
                await self._scheduler.changed(request.name)
                return None
        raise StateUnavailable("other processes write the same schedule")

    def _check(self, request: ScheduleRequest, message: VerifiedMessage) -> None:
        if request.planned is None:
            return
        try:
            request.planned.check_from(message.header.iat)
            self._scheduler.tasks.compose(request.planned, message.statement if self._standing is not None else None)
        except (ValueError, SealbusError) as error:
            raise HandlingError(Code.BAD_BODY, str(error)) from error

    def _wanted(
        self,
        request: ScheduleRequest,
        known: Schedule | None,
        message: VerifiedMessage,
        change: ScheduleChange,
        order: tuple[int, int],
        user: bytes,
    ) -> Schedule:
        stands = known is not None and known.state is not ScheduleState.REMOVED
        if request.planned is not None:
            if not stands and self._scheduler.kept >= MOST:
                raise Reject("too_many_schedules", note=f"at most {MOST} of one owner")
            if not stands and user and self._scheduler.kept_as(users_part(request.name)) >= STANDING_OF_USER:
                raise Reject("too_many_schedules", note=f"at most {STANDING_OF_USER} of one user")
            return Schedule(
                name=request.name,
                state=request.state,
                planned=request.planned,
                body=Content(message.body, message.header.typ),
                grant=change,
                change=change,
                order=order,
                since=order[0],
                user=user,
            )
        if known is None or not stands:
            raise Reject("unknown_schedule", note="there is no such schedule")
        # Ticks of a pause are not caught up on. A schedule with one instant keeps its time: it may have ticked already.
        resumed = request.state is ScheduleState.ON and not isinstance(known.planned.when, At)
        since = max(known.since, order[0]) if resumed else known.since
        return replace(known, state=request.state, change=change, order=order, since=since)


def _request(value: object) -> ScheduleRequest:
    if not isinstance(value, ScheduleRequest):
        raise BadBody("not a schedule")
    return value
