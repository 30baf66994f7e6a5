"""What a tool's caller is given: an answer that fits its schema, or why there is none, in words and as data."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

import mcp_types as types

from sealbus.agents.edge.http.problem import problem_of
from sealbus.agents.edge.mcp.tools import Tool
from sealbus.agents.edge.task_following import parts_of, waits_for_approval
from sealbus.agents.edge.v1.task_routes import newest_of
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.task_handle import TaskHandle, failure_of
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.errors import Code, HandlingError, SealbusError
from sealbus.policies.decision.request import rfc3339

PROBLEM: Final = "sealbus/problem"
"""Name in a result's `_meta` of the problem as `/v1` would answer it: `code`, `reasons`, `remedy`, `via`."""
TASK: Final = "sealbus/task"
"""Name in a result's `_meta` of the id of the task."""
POLL_MS: Final = 1_000
"""How often a client may ask for a task, in milliseconds."""


def answered(tool: Tool, *bodies: Content) -> types.CallToolResult:
    """Return an agent's answer, or its parts; raise `HandlingError` (`bad_result`) if it is not what the tool says."""
    if not tool.described.action.gives:
        return types.CallToolResult(content=[types.TextContent(text="done")])
    if tool.described.gives is None:
        return types.CallToolResult(content=[_embedded(body) for body in bodies])
    answer = tool.described.decoded_result(*bodies)
    if tool.misfit(answer):
        raise HandlingError(Code.BAD_RESULT, "the answer does not fit the schema of what the action gives")
    text = json.dumps(answer, ensure_ascii=False)
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=answer)


def refused(error: SealbusError, task: str = "") -> types.CallToolResult:
    """Return that a call was not done, as a result that a language model reads."""
    problem: dict[str, Any] = json.loads(bytes(problem_of(error).body))
    words = [f"{problem['detail']} ({problem['code']})"]
    if problem.get("reasons"):
        words.append(f"Reasons: {', '.join(problem['reasons'])}.")
    words += [f"What would help: {json.dumps(remedy, ensure_ascii=False)}." for remedy in problem.get("remedy", ())]
    return _error(" ".join(words), **{PROBLEM: problem, **({TASK: task} if task else {})})


def unfit(fault: str) -> types.CallToolResult:
    """Return that arguments do not fit, with `fault`: nothing was sent."""
    return _error(f"{fault} ({Code.BAD_BODY})")


def open_task(task: str, state: str, note: str = "") -> types.CallToolResult:
    """Return that a task is not done yet and goes on, so that it is asked for later."""
    detail = f" ({note})" if note else ""
    return _error(
        f"Not done yet: the task {task} is {state}{detail} and goes on. Ask for it later with the tool task_result; "
        "calling this tool again would do it again.",
        **{TASK: task},
    )


async def result_of(tool: Tool, handle: TaskHandle, status: Status) -> dict[str, Any]:
    """Return what the tool's caller is given for a task that ended with `status`, as it is written."""
    try:
        if status.result is None:
            raise failure_of(status)
        parts = await parts_of(handle) if status.result.typ == PARTS_TYPE else [status.result]
        result = answered(tool, *parts)
    except SealbusError as error:
        result = refused(error, handle.message_id)
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def task_document(tool: Tool, handle: TaskHandle, question: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a task as `tasks/get` answers it; `question` is asked while it waits for an approval."""
    status = await newest_of(handle)
    created = int(handle.message_id[:12], 16)
    document: dict[str, Any] = {
        "resultType": "complete",
        "taskId": handle.message_id,
        "status": "working",
        "createdAt": rfc3339(created // 1_000),
        "lastUpdatedAt": rfc3339(created // 1_000),
        "ttlMs": max(0, handle.end // 1_000 - created),
        "pollIntervalMs": POLL_MS,
    }
    if status is None:
        return document
    if status.note:
        document["statusMessage"] = status.note
    if waits_for_approval(status):
        return {**document, "status": "input_required", "inputRequests": {f"approval-{status.sequence}": question}}
    if not status.final:
        return document
    if status.state is State.CANCELED:
        return {**document, "status": "cancelled"}
    return {**document, "status": "completed", "result": await result_of(tool, handle, status)}


def _error(text: str, **meta: object) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True, _meta=meta or None)


def _embedded(content: Content) -> types.ContentBlock:
    if content.typ == JSON:
        return types.TextContent(text=content.body.decode())
    blob = types.BlobResourceContents(
        uri="sealbus:result", mime_type=content.typ, blob=b64encode(content.body).decode()
    )
    return types.EmbeddedResource(resource=blob)
