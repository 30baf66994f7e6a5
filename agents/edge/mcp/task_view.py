"""A task of the bus as MCP shows it: followed until it ends or somebody is needed, or told once (extension Tasks)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.mcp.results import answered, refused
from sealbus.agents.edge.mcp.tools import Tool
from sealbus.agents.edge.oauth.access_token import AccessToken
from sealbus.agents.edge.task_routes import newest_of
from sealbus.agents.sdk.task_handle import TaskHandle, failure_of
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PARTS_TYPE, PartsReading
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.policies.decision.request import rfc3339

__all__ = ["POLL_MS", "followed", "result_of", "told", "waits_for_approval"]

POLL_MS: Final = 1_000
"""How often a client may ask for a task, in milliseconds."""


def waits_for_approval(status: Status | None) -> bool:
    """Return whether a task waits for somebody's approval."""
    return status is not None and status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED


async def followed(
    handle: TaskHandle, front: Front, token: AccessToken, *, after: int, within: float
) -> AsyncGenerator[Status, None]:
    """Yield the statuses of a task after number `after`, parts left out, for `within` seconds at most.

    Ends with the final one, with the edge, or with the time. Raises `TokenRefused` once the user is revoked, and as
    `TaskHandle.statuses`. Use it inside `aclosing`.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    stopping = asyncio.ensure_future(front.stopping.wait())
    following: asyncio.Future[Status | None] | None = None
    try:
        async with aclosing(handle.statuses(after=after)) as statuses:
            try:
                while loop.time() < ends and not stopping.done():
                    following = following or asyncio.ensure_future(_next(statuses))
                    pause = min(front.limits.event_pause_seconds, ends - loop.time())
                    waited: set[asyncio.Future[Any]] = {following, stopping}
                    await asyncio.wait(waited, timeout=max(0.0, pause), return_when=asyncio.FIRST_COMPLETED)
                    front.unrevoked(token)
                    if not following.done():
                        continue
                    status, following = following.result(), None
                    if status is None:
                        return
                    if status.part is None:
                        yield status
            finally:
                if following is not None:
                    following.cancel()
                    await asyncio.wait([following])
    finally:
        stopping.cancel()


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


async def result_of(tool: Tool, handle: TaskHandle, status: Status) -> dict[str, Any]:
    """Return what the tool's caller is given for a task that ended with `status`, as it is written."""
    try:
        if status.result is None:
            raise failure_of(status)
        parts = await _parts(handle) if status.result.typ == PARTS_TYPE else [status.result]
        result = answered(tool, *parts)
    except SealbusError as error:
        result = refused(error, handle.message_id)
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def _parts(handle: TaskHandle) -> list[Content]:
    reading, bodies = PartsReading(), list[Content]()
    async with aclosing(handle.statuses()) as statuses:
        async for status in statuses:
            if status.part is not None:
                if reading.take(status):
                    bodies.clear()
                bodies.append(status.part)
            elif status.result is not None:
                reading.check(status.result)
    return bodies


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
