"""A task of the bus as MCP shows it: what its tool gave, or its state (extension Tasks)."""

from __future__ import annotations

from typing import Any, Final

from sealbus.agents.edge.mcp.results import answered, refused
from sealbus.agents.edge.mcp.tools import Tool
from sealbus.agents.edge.task_following import parts_of, waits_for_approval
from sealbus.agents.edge.v1.task_routes import newest_of
from sealbus.agents.sdk.task_handle import TaskHandle, failure_of
from sealbus.bus.sending.parts import PARTS_TYPE
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.errors import SealbusError
from sealbus.policies.decision.request import rfc3339

__all__ = ["POLL_MS", "result_of", "told"]

POLL_MS: Final = 1_000
"""How often a client may ask for a task, in milliseconds."""


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


async def told(tool: Tool, handle: TaskHandle, question: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a task as `tasks/get` answers it; `question` is asked while it waits for an approval."""
    status = await newest_of(handle)
    made = int(handle.message_id[:12], 16)
    document: dict[str, Any] = {
        "resultType": "complete",
        "taskId": handle.message_id,
        "status": "working",
        "createdAt": rfc3339(made // 1_000),
        "lastUpdatedAt": rfc3339(made // 1_000),
        "ttlMs": max(0, handle.end // 1_000 - made),
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
