"""A server for tests of the console's pages: the true files under the true headers, and canned answers by the interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from support.console_answers import answers, live_map, rows

__all__ = ["CSP", "STATIC", "ConsoleSite", "console_site"]

STATIC = Path(__file__).parents[2] / "agents" / "console" / "pages" / "static"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {"content-security-policy": CSP, "x-content-type-options": "nosniff", "cache-control": "no-store"}
_BATCH = 0.05
_WAITING = 40
"""Messages that wait for a slow browser before rows are left out."""
_SENT_AHEAD = 256 * 1024


class ConsoleSite:
    """A running site. `rate` rows come a second; `answers` may be changed, a pair of status and body refuses a path."""

    def __init__(self, *, rate: float, hostile: bool) -> None:
        self.rate = rate
        self.hostile = hostile
        self.answers: dict[str, Any] = answers(hostile=hostile)
        self.posted: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = []
        self.resumed: list[str] = []
        """What each stream that was opened said it had last."""
        self.sequence = 1_204_331
        self.streams = 0
        """Streams that are open."""
        self.left_out = 0
        """Rows that were not sent to a browser that did not read."""
        self.ended = asyncio.Event()
        self.over: dict[str, Any] | None = None
        """If set, streams end with it."""
        self.news: dict[str, Any] = {}
        """What the map says in place of what it would."""
        self.timed = False
        """Whether rows say when they were sent."""
        self.url = ""
        self._changed = asyncio.Event()
        self._queues: list[_Waiting] = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait, at most 20 seconds, until something holds that streams change as they begin and end."""
        async with asyncio.timeout(60):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def end(self) -> None:
        """Let every stream end."""
        self.ended.set()
        for queue in self._queues:
            queue.some.set()

    def cut(self) -> None:
        """End the streams that are open; `over`, if set, is the last that they say."""
        for queue in self._queues:
            queue.ended = True
            queue.some.set()

    def push(self, event: str, data: Any, last: int | None = None) -> None:
        """Send an event to every open stream."""
        text = f"event: {event}\n" + (f"id: {last}\n" if last is not None else "") + f"data: {json.dumps(data)}\n\n"
        for queue in self._queues:
            self.left_out += queue.put(text, len(data["rows"]) if event == "decisions" else 0)

    def decide(self, many: int) -> None:
        """Send that many new rows, at most 500 in a message."""
        while many > 0:
            some = min(many, 500)
            found = rows(self.sequence + 1, some, hostile=self.hostile)
            if self.timed:
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
                for row in found:
                    row["time"] = now
            self.sequence += some
            many -= some
            self.push("decisions", {"rows": found}, self.sequence)
            self.push(
                "outcomes", {"rows": [{"record": row["record"], "outcome": "done", "ms": 3.2} for row in found[::2]]}
            )

    async def beat(self) -> None:
        """Send rows at `rate` and the map twice a second, until the site ends."""
        loop = asyncio.get_running_loop()
        began, sent, beats = loop.time(), 0, 0
        while not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), _BATCH)
            due = int((loop.time() - began) * self.rate)
            if not self._queues:
                sent = due
            if due > sent:
                self.decide(due - sent)
                sent = due
            if int((loop.time() - began) * 2) > beats:
                beats = int((loop.time() - began) * 2)
                drawn = live_map(beats, rate=self.rate or 412.3, hostile=self.hostile)
                self.push("map", {**drawn, **self.news})

    async def live(self, request: Request) -> Response:
        if isinstance(self.answers.get("/api/live"), tuple):
            return await self.answer(request)
        last = request.headers.get("last-event-id", "")

        async def stream() -> AsyncIterator[str]:
            queue = _Waiting()
            self._queues.append(queue)
            self.resumed.append(last)
            self.streams += 1
            self._changed.set()
            try:
                yield f"event: hello\ndata: {json.dumps({'sequence': self.sequence, 'window': 60})}\n\n"
                yield f"event: map\ndata: {json.dumps(live_map(0, rate=self.rate or 412.3, hostile=self.hostile))}\n\n"
                while not self.ended.is_set() and not queue.ended:
                    for text in await queue.take():
                        yield text
                if self.over is not None:
                    yield f"event: over\ndata: {json.dumps(self.over)}\n\n"
            finally:
                self.streams -= 1
                self._changed.set()
                self._queues.remove(queue)

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_HEADERS)

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        if request.method == "POST":
            if request.headers.get("x-sealbus-console") != "1":
                return _json({"code": "forged", "title": "refused", "detail": "", "remedy": []}, 400)
            self.posted.append((path, await request.json() if await request.body() else {}, dict(request.headers)))
        if path == "/api/decisions":
            return _json(self.page(request))
        found = self.answers.get(path)
        if found is None:
            found = (404, {"code": "not_found", "title": "Not found", "detail": "", "remedy": []})
        if isinstance(found, tuple):
            return _json(found[1], found[0])
        return _json(found)

    def page(self, request: Request) -> dict[str, Any]:
        asked = request.query_params
        limit, before = int(asked.get("limit", "100")), int(asked.get("before", str(self.sequence + 1)))
        found = [
            row
            for row in reversed(rows(max(1, before - limit), min(limit, before - 1), hostile=self.hostile))
            if asked.get("decision", "") in {"", "allow" if row["allow"] else "deny"}
            and asked.get("user", row["user"]) == row["user"]
        ]
        return {"rows": found, "before": max(0, before - limit) if before > 1_203_000 else 0}


class _Waiting:
    """What waits for one browser, bounded: rows that do not fit are left out, and the browser is told how many."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._left_out = 0
        self.ended = False
        self.some = asyncio.Event()

    def put(self, text: str, decided: int) -> int:
        """Take a message, if there is room; return how many rows there was no room for."""
        if len(self._texts) < _WAITING:
            self._texts.append(text)
            self.some.set()
            return 0
        self._left_out += decided
        return decided

    async def take(self) -> list[str]:
        """Return what waits; waits at most a second."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.some.wait(), 1.0)
        self.some.clear()
        found = list(self._texts)
        self._texts.clear()
        if self._left_out:
            found.append(f"event: gap\ndata: {json.dumps({'left_out': self._left_out})}\n\n")
            self._left_out = 0
        return found


def _json(body: Any, status: int = 200) -> Response:
    # In ASCII, which can say half a character, as strangers may.
    return Response(json.dumps(body), status, _HEADERS, "application/json")


async def _page(request: Request) -> Response:
    del request
    return FileResponse(STATIC / "index.html", headers=_HEADERS)


async def _file(request: Request) -> Response:
    path = STATIC / request.path_params.get("name", "icon.svg")
    if path.parent != STATIC or not path.is_file():
        return Response(status_code=404, headers=_HEADERS)
    kind = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}[path.suffix]
    return FileResponse(path, media_type=kind, headers=_HEADERS)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def console_site(*, rate: float = 0.0, hostile: bool = False) -> AsyncGenerator[ConsoleSite, None]:
    """Run a site on a free port of loopback."""
    site = ConsoleSite(rate=rate, hostile=hostile)
    app = Starlette(
        routes=[
            Route("/api/live", site.live),
            Route("/api/{path:path}", site.answer, methods=["GET", "POST"]),
            Route("/logout", site.answer, methods=["POST"]),
            Route("/static/{name}", _file),
            Route("/favicon.ico", _file),
            Route("/{path:path}", _page),
        ]
    )
    config = uvicorn.Config(
        app, log_config=None, log_level=logging.ERROR, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # A browser that sleeps shall be noticed soon: little is kept for it by the system.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_AHEAD)
        site.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        beating = asyncio.create_task(site.beat())
        try:
            yield site
        finally:
            site.end()
            server.should_exit = server.force_exit = True
            await asyncio.gather(serving, beating)
