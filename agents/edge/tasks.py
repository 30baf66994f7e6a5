"""`/v1/tasks`: submit a task, and ask what became of it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.bodies import idempotency_key
from sealbus.agents.edge.errors import EdgeError
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.owners import TaskOwners
from sealbus.agents.edge.problem import HEADERS, problem_of
from sealbus.agents.handle import TaskHandle, failure_of
from sealbus.bus.routes import Answer
from sealbus.bus.status_body import Status
from sealbus.envelopes.errors import BusUnavailable, Code

__all__ = ["SUBMITTED", "Tasks", "answer_of", "status_document"]

SUBMITTED = "submitted"
"""The state of a task of which nothing was heard yet."""

_KEY_NOTE: Final = (
    "Idempotency-Key goes with the task: its copies are one effect where the agent declares the action `once`, and otherwise "
    "only as far as one process of the agent remembers"
)
"""What an action is declared as is not known here, so that it is said with every key."""

_TOKEN: Final = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_MEDIA_TYPE: Final = re.compile(rf'{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]{{0,127}}"))*')
"""RFC 9110 section 8.3.1, names as RFC 6838 section 4.2 has them: it becomes a field, and agents choose it."""


class Tasks:
    """The resources of tasks. A task is there for the user who submitted it, whatever the client or session."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self.owners = TaskOwners(front.node, front.pseudonyms)

    async def submit(self, request: Request) -> Response:
        """`POST /v1/tasks/{agent}/{verb}`: 202 with the status URL once the task is stored, its agent up or not."""
        front = self._front
        token = await front.admitted(request)
        action = front.exposed.action(request.path_params["agent"], request.path_params["verb"])
        key = idempotency_key(request)
        body = await front.body(request, token)
        life = float(min(front.limits.task_seconds, front.limits.context_end_seconds))
        try:
            async with asyncio.timeout(front.limits.submit_seconds):
                handle = await front.node.sending.submit(
                    action, body, user=front.context(token), life=life, idempotency_key=key
                )
                await self.owners.keep(handle, token)
        except TimeoutError as error:
            raise BusUnavailable("the task was not acknowledged in time, and may be stored all the same") from error
        url = f"/v1/tasks/{handle.message_id}"
        document: dict[str, object] = {"id": handle.message_id, "status_url": url}
        if key is not None:
            document["note"] = _KEY_NOTE
        return _json(document, 202, location=url)

    async def status(self, request: Request) -> Response:
        """`GET /v1/tasks/{id}`: the newest state."""
        _, handle = await self.found(request)
        return _json(status_document(handle, await _newest(handle)), 200)

    async def result(self, request: Request) -> Response:
        """`GET /v1/tasks/{id}/result`: the result as the agent gave it; 202 with the state while there is none.

        A task that ended without one answers as a call would have: 403 for a denial, and so on.
        """
        _, handle = await self.found(request)
        newest = await _newest(handle)
        if newest is None or not newest.final:
            return _json(status_document(handle, newest), 202, **{"retry-after": "1"})
        if newest.result is None:
            return problem_of(failure_of(newest))
        return answer_of(newest.result)

    async def found(self, request: Request) -> tuple[AccessToken, TaskHandle]:
        """Return the request's token and the task that it may see; raises as `Front.admitted`, or 404."""
        token = await self._front.admitted(request)
        return token, await self.owners.find(request.path_params["task"], token)


def status_document(handle: TaskHandle, status: Status | None) -> dict[str, object]:
    """Return a state as JSON has it; `code`, `reasons` and `note` only where there are any."""
    url = f"/v1/tasks/{handle.message_id}"
    document: dict[str, object] = {"id": handle.message_id, "action": handle.action}
    if status is None:
        return {**document, "state": SUBMITTED, "final": False}
    document |= {"state": status.state.value, "final": status.final}
    if status.code:
        document["code"] = status.code
    if status.reasons:
        document["reasons"] = list(status.reasons)
    if status.note:
        document["note"] = status.note
    if status.result is not None:
        document["result_url"] = f"{url}/result"
    return document


def answer_of(answer: Answer) -> Response:
    """Return an agent's answer as it gave it, under its own media type; raise 502 if that is none."""
    if not _MEDIA_TYPE.fullmatch(answer.typ):
        raise EdgeError(Code.BAD_RESULT, 502)
    return Response(answer.body, 200, {**HEADERS, "content-type": answer.typ})


async def _newest(handle: TaskHandle) -> Status | None:
    try:
        return await handle.status()
    except TimeoutError as error:
        raise BusUnavailable("the statuses could not be read") from error


def _json(document: dict[str, object], status: int, **headers: str) -> Response:
    text = json.dumps(document, ensure_ascii=False)
    return Response(text, status, {**HEADERS, **headers}, "application/json")
