"""A task of the bus as doors follow it: until it ends, its user is revoked, or nobody waits any longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import GatheredParts
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.errors import Code


def waits_for_approval(status: Status | None) -> bool:
    """Return whether a task waits for somebody's approval."""
    return status is not None and status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED


async def follow_task(
    handle: TaskHandle, front: Front, token: AccessToken, *, after: int, within: float, parts: bool = False
) -> AsyncGenerator[Status, None]:
    """Yield the statuses of a task after number `after`, those of parts only with `parts`, for `within` seconds at most.

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
                    if parts or status.part is None:
                        yield status
            finally:
                if following is not None:
                    following.cancel()
                    await asyncio.wait([following])
    finally:
        stopping.cancel()


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


async def parts_of(handle: TaskHandle) -> list[Content]:
    """Return the parts of a finished task's result; raise `HandlingError` (`bad_result`) if they are not all there."""
    parts = GatheredParts()
    async with aclosing(handle.statuses()) as statuses:
        async for status in statuses:
            parts.take(status)
    return parts.contents
