"""`/v1/schedules`: actions that this edge does later in a user's name: granted by a fresh login, listed, removed.

A grant is for one action with one body. To grant, a user needs the scope `sealbus:schedule`, and names the actions that may
follow. To list or end their own grants, users need only a token.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import HEADERS, EdgeError, json_answer
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.standing_grants import EdgeGrants
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.sending.message import Content
from sealbus.bus.work.schedules.book import Schedule
from sealbus.bus.work.schedules.cron import Cron
from sealbus.bus.work.schedules.request import (
    CATCHUP,
    Overlap,
    Planned,
    ScheduleRequest,
    ScheduleState,
    schedule_message,
)
from sealbus.bus.work.schedules.rule import At, Every, When, shown_when
from sealbus.bus.work.schedules.standing import (
    STANDING_SCOPE,
    STANDING_UNSAID,
    check_granted,
    own_name,
    standing_name,
)
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BusUnavailable, Code, Denied
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.policies.decision.request import rfc3339

SCHEDULES_PATH: Final = "/v1/schedules"

_MEMBERS: Final = frozenset({"name", "action", "body", "when", "overlap", "until", "grants"})
_MUST: Final = frozenset({"name", "action", "body", "when", "grants"})
_ONCE_CATCHUP: Final = 3_600
"""Seconds by which an action that is done once may be late: as long as a task waits."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ScheduleRoutes:
    """The resources of schedules."""

    def __init__(self, front: Front, grants: EdgeGrants) -> None:
        self._front = front
        self._grants = grants

    async def grant(self, request: Request) -> Response:
        """`POST /v1/schedules`: 201 once the edge's policy allows the grant and it is stored.

        It replaces the user's grant with the same name. A login that is too old, or whose time is unknown, is 401 with a
        challenge for a fresh login (RFC 9470).
        """
        front = self._front
        token = await front.admitted(request)
        if STANDING_SCOPE not in token.scope:
            raise Denied("no scope", remedies=(Remedy(kind=RemedyKind.SCOPE, scope=STANDING_SCOPE),))
        fresh, now = front.limits.schedule_login_seconds, front.node.site.bus_clock()
        if token.auth_time is None or front.node.clock() - token.auth_time > fresh * SECOND:
            raise Denied("the login is too old", remedies=(Remedy(kind=RemedyKind.LOGIN, max_age=fresh),))
        if token.type is not None:
            raise EdgeError(Code.DENIED, 403, "only a person can have something done later")
        statement, user = self._context(token, request)
        body = await front.body(request, token)
        if body.typ != JSON:
            raise EdgeError(Code.UNSUPPORTED_MEDIA_TYPE, 415, f"Content-Type must be {JSON}")
        try:
            name, planned = _planned(parse_object(body.body, depth=front.limits.body_nesting), now)
            agent, _, verb = planned.action.partition(".")
            front.exposed.action(agent, verb)
            check_granted(planned, now)
            planned.check_from(now)
            change = ScheduleRequest(name=standing_name(user, name), planned=planned)
            await self._tell(change, statement)
        except ValueError as error:
            raise EdgeError(Code.MALFORMED, 400, str(error)) from error
        document: dict[str, object] = {
            "name": name,
            "action": planned.action,
            "until": rfc3339(planned.until // SECOND),
        }
        return json_answer(document, 201, location=f"{SCHEDULES_PATH}/{name}")

    async def list(self, request: Request) -> Response:
        """`GET /v1/schedules`: the schedules of the calling user that are neither removed nor over."""
        token = await self._front.admitted(request)
        _, user = self._context(token, request)
        documents = [await self._document(schedule) for schedule in await self._grants.of(user)]
        return json_answer({"schedules": documents}, 200)

    async def remove(self, request: Request) -> Response:
        """`DELETE /v1/schedules/{name}`: 204 once the removal is stored; 404 if the user has no such schedule.

        A process that read an earlier version of the schedule may still send a tick.
        """
        token = await self._front.admitted(request)
        statement, user = self._context(token, request)
        try:
            name = standing_name(user, request.path_params["name"])
            if all(schedule.name != name for schedule in await self._grants.of(user)):
                raise EdgeError(Code.NOT_FOUND, 404, "no such schedule")
            await self._tell(ScheduleRequest(name=name, state=ScheduleState.REMOVED), statement)
        except ValueError as error:
            raise EdgeError(Code.NOT_FOUND, 404, "no such schedule") from error
        return Response(None, 204, HEADERS)

    def _context(self, token: AccessToken, request: Request) -> tuple[Statement, UserContext]:
        statement = self._front.context(token, request)
        return statement, parse_payload(statement.payload)

    async def _tell(self, change: ScheduleRequest, statement: Statement) -> None:
        """Send `change` to this edge's own schedule endpoint, where it is decided and recorded. Raises `ValueError`."""
        node = self._front.node
        message = schedule_message(change, owner=node.own, names=node.deployment.names, statement=statement)
        try:
            await node.sending.tell(message, timeout=self._front.limits.submit_seconds)
        except TimeoutError as error:
            raise BusUnavailable("the schedule was not confirmed in time, but may be stored yet") from error

    async def _document(self, schedule: Schedule) -> dict[str, object]:
        planned, now = schedule.planned, self._front.node.site.bus_clock()
        following, last = schedule.next(now), await self._grants.claims.sent_last(schedule.name)
        document: dict[str, object] = {
            "name": own_name(schedule.name),
            "action": planned.action,
            "when": shown_when(planned.when),
            "overlap": planned.overlap.value,
            "until": rfc3339(planned.until // SECOND),
            "grants": list(planned.grants or ()),
        }
        if following is not None:
            document["next"] = rfc3339(following // SECOND)
        if last is not None:
            document["last"] = {"time": rfc3339(last[0] // SECOND), "status_url": f"/v1/tasks/{last[1].id.hex()}"}
        return document


def _planned(body: dict[str, Json], now: int) -> tuple[str, Planned]:
    """Return the name and the plan that a body asks for; raise `ValueError`."""
    if not _MUST <= body.keys() <= _MEMBERS:
        raise ValueError(
            "the body has name, action, body, when, grants ([] lets nothing follow), perhaps overlap and until"
        )
    name, action, until, grants = body["name"], body["action"], body.get("until"), body["grants"]
    overlap = body.get("overlap", Overlap.SKIP.value)
    listed = grants if isinstance(grants, list) else [None]
    texts = [item for item in listed if isinstance(item, str)]
    if len(texts) != len(listed) or not isinstance(name, str) or not isinstance(action, str):
        raise ValueError("name and action are texts, grants is an array of actions")
    if overlap not in [choice.value for choice in Overlap]:
        raise ValueError("overlap is skip or queue")
    when = _when(body["when"], now)
    catchup = _ONCE_CATCHUP if isinstance(when, At) else CATCHUP
    if until is not None:
        ends = _time(until)
    else:
        ends = when.time + (catchup + CATCHUP) * SECOND if isinstance(when, At) else now + STANDING_UNSAID
    return name, Planned(
        action=action,
        body=Content(
            json.dumps(body["body"], separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(), JSON
        ),
        when=when,
        until=ends,
        grants=tuple(texts),
        overlap=Overlap(str(overlap)),
        catchup=catchup,
    )


def _when(value: Json, now: int) -> When:
    match value:
        case {"cron": str(expression), "zone": str(zone), **other} if not other:
            return Cron(expression=expression, zone=zone)
        case {"every": int(seconds), **other} if not other and type(seconds) is int:
            return Every(seconds=seconds, start=now // SECOND * SECOND + seconds * SECOND)
        case {"at": str(time), **other} if not other:
            return At(time=_time(time))
    raise ValueError("when is {cron, zone}, {every: seconds} or {at: time}")


def _time(text: Json) -> int:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError("a time is as RFC 3339 writes it, with its zone")
    return (time - _EPOCH) // timedelta(microseconds=1)
