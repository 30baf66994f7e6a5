"""`GET /v1/tasks/{id}/events`: a task's states as they come, as server-sent events (HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.errors import EdgeError
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.problem import HEADERS, problem_of
from sealbus.agents.edge.tasks import Tasks, status_document
from sealbus.agents.handle import TaskHandle
from sealbus.bus.status_body import Status
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.envelopes.limits import SECOND

__all__ = ["TaskEvents"]

_LAST: Final = re.compile(r"[0-9]{1,15}")
_COMMENT: Final = b":\n\n"


class TaskEvents:
    """Streams of states, bounded in number for all and for each user."""

    def __init__(self, front: Front, tasks: Tasks) -> None:
        self._front = front
        self._tasks = tasks
        self._open: Counter[tuple[str, str]] = Counter()

    @property
    def streaming(self) -> int:
        """How many streams there are now."""
        return self._open.total()

    async def follow(self, request: Request) -> Response:
        """Stream what comes after `Last-Event-ID`, up to the final state, the token's end, or `event_seconds`."""
        token, handle = await self._tasks.found(request)
        after = _last_event(request)
        limits, user = self._front.limits, (token.issuer, token.subject)
        if self._open.total() >= limits.event_streams or self._open[user] >= limits.event_streams_of_user:
            raise EdgeError(Code.RATE_LIMITED, 429, "too many streams are open", retry_after=int(limits.event_seconds))
        # Counted here: what asks at the same moment must see it, and the stream begins some turns of the loop later.
        self._open[user] += 1
        return _Stream(self._events(handle, token, after), lambda: self._left(user))

    def _left(self, user: tuple[str, str]) -> None:
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]

    async def _events(self, handle: TaskHandle, token: AccessToken, after: int) -> AsyncGenerator[bytes, None]:
        front = self._front
        loop = asyncio.get_running_loop()
        left = min(front.limits.event_seconds, (token.expires - front.node.clock()) / SECOND)
        ends = loop.time() + left
        stopping = asyncio.ensure_future(front.stopping.wait())
        # A first line at once: clients and middleboxes then know that the stream is open.
        yield _COMMENT
        try:
            async with aclosing(handle.statuses(after=after)) as statuses:
                following: asyncio.Future[Status | None] = asyncio.ensure_future(_next(statuses))
                try:
                    while loop.time() < ends and not stopping.done():
                        pause = min(front.limits.event_pause_seconds, ends - loop.time())
                        waited: set[asyncio.Future[Any]] = {following, stopping}
                        await asyncio.wait(waited, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                        if not following.done():
                            yield _COMMENT
                            continue
                        status = following.result()
                        if status is None:
                            return
                        yield _event("status", status_document(handle, status), status.sequence)
                        if status.final:
                            return
                        following = asyncio.ensure_future(_next(statuses))
                finally:
                    await _ended(following)
        except SealbusError as error:
            body = problem_of(error).body
            yield _event("problem", json.loads(bytes(body)))
        finally:
            await _ended(stopping)


class _Stream(StreamingResponse):
    """Sends `events`, and calls `left` when that has ended, also where it never began."""

    def __init__(self, events: AsyncGenerator[bytes, None], left: Callable[[], None]) -> None:
        super().__init__(events, 200, HEADERS, "text/event-stream")
        self._events = events
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the stream ends with the connection."""
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
        finally:
            self._left()


async def _next(statuses: AsyncGenerator[Status, None]) -> Status | None:
    return await anext(statuses, None)


async def _ended(future: asyncio.Future[Any]) -> None:
    """Cancel `future` and wait for it, so that nothing runs on in a generator that is to be closed."""
    future.cancel()
    with suppress(asyncio.CancelledError, SealbusError):
        await future


def _last_event(request: Request) -> int:
    said = request.headers.get("last-event-id")
    if said is None:
        return -1
    if not _LAST.fullmatch(said):
        raise EdgeError(Code.MALFORMED, 400, "Last-Event-ID must be the id of an event")
    return int(said)


def _event(name: str, document: dict[str, object], number: int | None = None) -> bytes:
    lines = [f"event: {name}", *([f"id: {number}"] if number is not None else []), f"data: {json.dumps(document)}"]
    return "\n".join((*lines, "", "")).encode()
