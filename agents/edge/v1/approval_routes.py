"""`/v1/approvals`: the tasks that wait for a person's approval, and verdicts about them.

The policy decides who may see a task and who may give a verdict. A verdict needs the scope `sealbus:approve`, and the login
that the task's policy requires. It is sealed over the task's hash, in a fresh context of the person who gives it. The agent
checks and counts it.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.problem import EdgeError, json_answer
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.approvals import ParkedTask, ParkedTaskReader
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.gate.approval_authorizer import ApprovalRefused, check_login
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BusUnavailable, Code, Denied
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import is_token

APPROVALS_PATH: Final = "/v1/approvals"
SCOPE: Final = "sealbus:approve"
"""The scope that a token needs for a verdict; listing and showing tasks need none."""

_ID: Final = re.compile("[0-9a-f]{64}")
_AFTER: Final = re.compile("[0-9]{1,15}")


class ApprovalRoutes:
    """The resources of approvals."""

    def __init__(self, front: Front, parked_tasks: ParkedTaskReader) -> None:
        self._front = front
        self._parked_tasks = parked_tasks

    async def list(self, request: Request) -> Response:
        """`GET /v1/approvals?queue=managers`: the tasks there that the user may see, at most 1,000; `after` is the next page.

        Tasks that are read for a page count towards the rates of the user; the page ends where a rate is exceeded.
        """
        token = await self._front.admitted(request)
        queue, after = request.query_params.get("queue", ""), request.query_params.get("after", "0")
        if not is_token(queue) or not _AFTER.fullmatch(after):
            raise EdgeError(Code.MALFORMED, 400, "name a queue: ?queue=managers, and `after` from the page before")
        person = parse_payload(self._statement(token, request).payload)
        pays = partial(self._front.affords, token)
        page = await self._parked_tasks.page(queue, person, after=int(after), pays=pays)
        document: dict[str, object] = {"approvals": [task.document() for task in page.tasks]}
        if page.after:
            document["after"] = page.after
        return json_answer(document)

    async def show(self, request: Request) -> Response:
        """`GET /v1/approvals/{id}`: one waiting task; 409 if it waits no longer, 404 if the user may not see it."""
        token = await self._front.admitted(request)
        task, _ = await self._visible_task(request, token)
        return json_answer(task.document())

    async def decide(self, request: Request) -> Response:
        """`POST /v1/approvals/{id}`: `{"decision": ..., "verdict": "approve", "note": ""}`, about the task that was shown.

        200 once the agent has decided, recorded and counted the verdict. A login that is too old or too weak is 401 with a
        challenge for the login that is needed (RFC 9470).
        """
        token = await self._front.admitted(request)
        if SCOPE not in token.scope:
            raise Denied("no scope", remedies=(Remedy(kind=RemedyKind.SCOPE, scope=SCOPE),))
        task, statement = await self._visible_task(request, token)
        approval = await self._requested_verdict(request, token)
        person = parse_payload(statement.payload)
        # The agent makes both checks as well. A verdict that cannot count is not sealed in the person's name.
        if task.asked_by(person):
            raise ApprovalRefused(Code.APPROVAL_SELF, "nobody approves what they asked for")
        try:
            check_login(task.parked.obligation, person, at=self._front.node.site.bus_clock())
        except ApprovalRefused as error:
            obligation = task.parked.obligation
            login = Remedy(kind=RemedyKind.LOGIN, acr=" ".join(obligation.acr), max_age=obligation.max_age)
            raise Denied("the login is not enough", remedies=(login,)) from error
        seconds = self._front.limits.submit_seconds
        try:
            # One deadline for storing the verdict and for the agent's answer.
            async with asyncio.timeout(seconds):
                await self._front.node.sending.approve(
                    task.parked.digest,
                    approval,
                    agent=task.message.header.aud or self._front.node.own,
                    follows=task.parked.obligation.follows,
                    user=statement,
                    timeout=seconds,
                )
        except TimeoutError as error:
            raise BusUnavailable("the agent did not confirm in time, but may count it yet") from error
        return json_answer({"id": task.parked.digest.hex(), "verdict": approval.verdict.value})

    async def _visible_task(self, request: Request, token: AccessToken) -> tuple[ParkedTask, Statement]:
        named, statement = request.path_params["task"], self._statement(token, request)
        if not _ID.fullmatch(named):
            raise _nothing()
        digest, person = bytes.fromhex(named), parse_payload(statement.payload)
        task = await self._parked_tasks.find_task(digest, person)
        if task is None:
            # Another look counts as another request.
            self._front.charge(token, 1.0)
            if await self._parked_tasks.ended(digest, person):
                raise EdgeError(Code.APPROVAL_CLOSED, 409, "the task waits no longer")
            raise _nothing()
        return task, statement

    def _statement(self, token: AccessToken, request: Request) -> Statement:
        return self._front.context(token, request)

    async def _requested_verdict(self, request: Request, token: AccessToken) -> ApprovalRequest:
        body = await self._front.body(request, token)
        if body.typ != JSON:
            raise EdgeError(Code.UNSUPPORTED_MEDIA_TYPE, 415, f"Content-Type must be {JSON}")
        try:
            return _parsed(parse_object(body.body, depth=1))
        except ValueError as error:
            detail = (
                "the body has decision, as it was shown, verdict (approve, deny, withdraw) and perhaps a short note"
            )
            raise EdgeError(Code.MALFORMED, 400, detail) from error


def _parsed(body: dict[str, Json]) -> ApprovalRequest:
    decision, verdict, note = body.pop("decision", None), body.pop("verdict", None), body.pop("note", "")
    if body or not isinstance(decision, str) or not isinstance(verdict, str) or not isinstance(note, str):
        raise ValueError("members")
    if not _ID.fullmatch(decision):
        raise ValueError("decision")
    return ApprovalRequest(decision=bytes.fromhex(decision), verdict=Verdict(verdict), note=note)


def _nothing() -> EdgeError:
    return EdgeError(Code.NOT_FOUND, 404, "no such task waits")
