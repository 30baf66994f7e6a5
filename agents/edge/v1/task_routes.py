"""`/v1/tasks`: submit and cancel a task, get its state or result, follow its states as server-sent events (HTML, 9.2)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.event_streams import COMMENT, OpenStreams, event, part_document
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.bodies import idempotency_key
from sealbus.agents.edge.http.problem import HEADERS, EdgeError, json_answer, problem_of
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.task_following import statuses_and_pauses
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.messages import Origin
from sealbus.agents.sdk.options import SubmitOptions
from sealbus.agents.sdk.task_handle import TaskHandle, failure_of
from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE, PartsReading
from sealbus.bus.sending.status import Status
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BusUnavailable, Code, SealbusError
from sealbus.envelopes.limits import SECOND

SUBMITTED = "submitted"
"""The state of a task without any status yet."""

_KEY_NOTE: Final = (
    "Idempotency-Key goes with the task: its copies are one effect where the agent declares the action `once`, and otherwise "
    "only as far as one process of the agent remembers"
)
"""The edge does not know how an action is declared, so every answer to a request with a key has this note."""

_TOKEN: Final = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_MEDIA_TYPE: Final = re.compile(rf'{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]{{0,127}}"))*')
"""RFC 9110 section 8.3.1, with names as in RFC 6838 section 4.2. Agents choose the text, and it becomes a header field."""

_LAST: Final = re.compile(r"[0-9]{1,15}")


class Tasks:
    """The resources of tasks. A task is visible to the user who submitted it, with any client or session."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.owners = TaskOwners(
            front.node, pseudonymous=front.pseudonyms is not None, charge=front.charge, context=front.context
        )

    async def submit(self, request: Request) -> Response:
        """`POST /v1/tasks/{agent}/{verb}`: 202 with the status URL once the task is stored, whether or not its agent runs."""
        front = self._front
        token = await front.admitted(request)
        action = front.exposed.action(request.path_params["agent"], request.path_params["verb"])
        key = idempotency_key(request)
        handle = await self.submit_task(request, token, action, await front.body(request, token), key)
        url = f"/v1/tasks/{handle.message_id}"
        document: dict[str, object] = {"id": handle.message_id, "status_url": url}
        if key is not None:
            document["note"] = _KEY_NOTE
        return json_answer(document, 202, location=url)

    async def submit_task(
        self, request: Request, token: AccessToken, action: str, body: Content, key: str | None = None
    ) -> TaskHandle:
        """Submit a task for the user of `token`; return it once task and owner are stored. `key` is its idempotency key."""
        front = self._front
        life = float(min(front.limits.task_seconds, front.limits.context_end_seconds))
        try:
            async with asyncio.timeout(front.limits.submit_seconds):
                handle: TaskHandle = await front.node.sending.submit(
                    action,
                    body,
                    origin=Origin.user(front.context(token, request)),
                    options=SubmitOptions(life=life, idempotency_key=key, wait=front.limits.approval_wait_seconds),
                )
                await self.owners.keep(handle, token)
        except TimeoutError as error:
            raise BusUnavailable("the task was not acknowledged in time, but may be stored") from error
        return handle

    async def status(self, request: Request) -> Response:
        """`GET /v1/tasks/{id}`: the newest state."""
        _, handle = await self.requested_task(request)
        return json_answer(status_document(handle, await newest_of(handle)), 200)

    async def result(self, request: Request) -> Response:
        """`GET /v1/tasks/{id}/result`: the result as the agent gave it; 202 with the state while there is none.

        A result in parts is a JSON array of the parts.

        A task that ended without a result is answered as a call would be, such as with 403 for a denial. Its remedies are for
        the next submission: after a login the answer to this request would be the same, so there is no challenge.
        """
        _, handle = await self.requested_task(request)
        newest = await newest_of(handle)
        if newest is None or not newest.final:
            return json_answer(status_document(handle, newest), 202, **{"retry-after": "1"})
        if newest.result is None:
            return problem_of(failure_of(newest))
        if newest.result.typ == PARTS_TYPE:
            return await _together(handle)
        return answer_of(newest.result)

    async def cancel(self, request: Request) -> Response:
        """`DELETE /v1/tasks/{id}`: 202 once the agent has recorded the cancel and it is in force; 409 for a task that ended.

        An optional JSON body gives the reason: `{"reason": "..."}`.
        """
        token, handle = await self.requested_task(request)
        reason = await self._reason(request, token)
        await self.cancel_task(request, token, handle, reason)
        return json_answer(
            status_document(handle, await newest_of(handle)), 202, location=f"/v1/tasks/{handle.message_id}"
        )

    async def cancel_task(self, request: Request, token: AccessToken, handle: TaskHandle, reason: str) -> None:
        """Cancel a task of the user of `token`; return once the cancel is in force. Raises 409 for a task that ended."""
        newest = await newest_of(handle)
        if newest is not None and newest.final:
            raise EdgeError(Code.TASK_ENDED, 409)
        seconds = self._front.limits.submit_seconds
        try:
            await handle.cancel(reason, user=self._front.context(token, request), timeout=seconds)
        except CallExpired as error:
            raise EdgeError(Code.TASK_ENDED, 409) from error
        except TimeoutError as error:
            raise BusUnavailable("the agent did not confirm in time, but may cancel the task yet") from error

    async def _reason(self, request: Request, token: AccessToken) -> str:
        if "content-type" not in request.headers:
            return ""
        body = await self._front.body(request, token)
        try:
            document = parse_object(body.body, depth=1)
        except ValueError as error:
            raise EdgeError(Code.MALFORMED, 400, "the body is not a JSON object") from error
        reason = document.pop("reason", "")
        if document or not isinstance(reason, str) or (reason and not is_text(reason)):
            raise EdgeError(Code.MALFORMED, 400, "the body may hold a reason, of at most 256 bytes, and nothing else")
        return reason

    async def requested_task(self, request: Request) -> tuple[AccessToken, TaskHandle]:
        """Return the request's token and its task; raises as `Front.admitted` and `look_up`."""
        token = await self._front.admitted(request)
        return token, await self.look_up(request.path_params["task"], token, request)

    async def look_up(self, task: str, token: AccessToken, request: Request) -> TaskHandle:
        """Return a task of the user of `token`, and count a read; raise 404 if it is not theirs, or 429."""
        self._front.charge_read(token)
        return await self.owners.find_task(task, token, request)


def status_document(handle: TaskHandle, status: Status | None) -> dict[str, object]:
    """Return a state as JSON; `code`, `reasons`, `remedy`, `via`, `note` and `by` only if they have a value."""
    url = f"/v1/tasks/{handle.message_id}"
    document: dict[str, object] = {"id": handle.message_id, "action": handle.action}
    if status is None:
        return {**document, "state": SUBMITTED, "final": False}
    document |= {"state": status.state.value, "final": status.final}
    if status.code:
        document["code"] = status.code
    document |= status.explanation.members()
    if status.note:
        document["note"] = status.note
    if status.by is not None:
        document["by"] = status.by.value
    if status.result is not None:
        document["result_url"] = f"{url}/result"
    return document


def answer_of(answer: Content) -> Response:
    """Return an agent's answer unchanged, with its own media type; raise 502 if that is not a media type."""
    if not _MEDIA_TYPE.fullmatch(answer.typ):
        raise EdgeError(Code.BAD_RESULT, 502)
    return Response(answer.body, 200, {**HEADERS, "content-type": answer.typ})


async def _together(handle: TaskHandle) -> Response:
    """Return all parts of a result as one JSON array; raise 502 if a part is no JSON, or is missing."""
    reading, parts = PartsReading(), list[bytes]()
    async with aclosing(handle.statuses()) as statuses:
        async for status in statuses:
            if status.part is not None:
                if reading.take(status):
                    parts.clear()
                if status.part.typ != JSON:
                    raise EdgeError(Code.BAD_RESULT, 502, "the parts are no JSON: follow the events of the task")
                parts.append(status.part.body)
            elif status.result is not None:
                reading.check(status.result)
    return Response(b"[" + b",".join(parts) + b"]", 200, {**HEADERS, "content-type": JSON})


async def newest_of(handle: TaskHandle) -> Status | None:
    """Return the newest status of a task, None while there is none; raise `BusUnavailable` if they cannot be read."""
    try:
        return await handle.status()
    except TimeoutError as error:
        raise BusUnavailable("the statuses could not be read") from error


class TaskEvents:
    """Streams of states, and of the parts of a result."""

    def __init__(self, front: Front, tasks: Tasks, streams: OpenStreams) -> None:
        self._front = front
        self._tasks = tasks
        self._streams = streams

    async def follow(self, request: Request) -> Response:
        """Stream the states after `Last-Event-ID`, up to the final state, the token's end, or `event_seconds`.

        Once the user is revoked, the stream ends with a problem.
        """
        token, handle = await self._tasks.requested_task(request)
        after = _last_event(request)
        return self._streams.of(token, self._events(handle, token, after))

    async def _events(self, handle: TaskHandle, token: AccessToken, after: int) -> AsyncGenerator[bytes, None]:
        front = self._front
        within = min(front.limits.event_seconds, (token.expires - front.node.clock()) / SECOND)
        parts = PartsReading(resumed=after >= 0)
        # A first line at once: clients and middleboxes then know that the stream is open. A client that leaves before it
        # leaves nothing behind.
        yield COMMENT
        try:
            async with aclosing(statuses_and_pauses(handle, front, token, after=after, within=within)) as statuses:
                async for status in statuses:
                    if status is None:
                        yield COMMENT
                    elif status.part is not None:
                        parts.take(status)
                        yield event("part", part_document(status.number, status.part), status.sequence)
                    else:
                        yield event("status", status_document(handle, status), status.sequence)
                    if status is not None and status.final:
                        return
        except SealbusError as error:
            yield event("problem", json.loads(bytes(problem_of(error).body)))


def _last_event(request: Request) -> int:
    last_event = request.headers.get("last-event-id")
    if last_event is None:
        return -1
    if not _LAST.fullmatch(last_event):
        raise EdgeError(Code.MALFORMED, 400, "Last-Event-ID must be the id of an event")
    return int(last_event)
