"""Follow a task until it ends, its user is revoked, the time is over, or the edge stops."""

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
    """Return whether a task waits for a person's approval."""
    return status is not None and status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED


async def follow_task(
    handle: TaskHandle, front: Front, token: AccessToken, *, after: int, within: float, parts: bool = False
) -> AsyncGenerator[Status, None]:
    """Yield the statuses numbered over `after`; those of parts only if `parts` is set.

    Ends and raises as `statuses_and_pauses` does.
    """
    async with aclosing(statuses_and_pauses(handle, front, token, after=after, within=within)) as statuses:
        async for status in statuses:
            if status is not None and (parts or status.part is None):
                yield status


async def statuses_and_pauses(
    handle: TaskHandle, front: Front, token: AccessToken, *, after: int, within: float
) -> AsyncGenerator[Status | None, None]:
    """Yield the statuses numbered over `after`, and `None` after each `event_pause_seconds` without a status.

    Ends after the final status, after `within` seconds, or when the edge stops. Raises `TokenRefused` once the user is
    revoked, and raises as `TaskHandle.statuses` does. Use it inside `aclosing`.
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
                        yield None
                        continue
                    status, following = following.result(), None
                    if status is None:
                        return
                    yield status
            finally:
                if following is not None:
                    await end_future(following)
    finally:
        stopping.cancel()


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


async def end_future(future: asyncio.Future[Any]) -> None:
    """Cancel `future` and wait for it, so that nothing still runs in a generator that is being closed."""
    future.cancel()
    await asyncio.wait([future])
    if not future.cancelled():
        future.exception()


async def parts_of(handle: TaskHandle) -> list[Content]:
    """Return the parts of a finished task's result; raise `HandlingError` (`bad_result`) if a part is missing."""
    parts = GatheredParts()
    async with aclosing(handle.statuses()) as statuses:
        async for status in statuses:
            parts.take(status)
    return parts.contents
