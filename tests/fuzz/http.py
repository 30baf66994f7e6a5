"""Targets: HTTP/1.1 as the edge reads it from a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any

import h11
import uvicorn
from fuzz.loop import run
from fuzz.targets import Target
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from sealbus.agents.edge.http.bodies import idempotency_key, read_body, read_form
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.problem import EdgeError, problem_of
from sealbus.agents.edge.http.protocol import ConnectionLimits, EdgeProtocol, StrictConnection

_LIMITS = ConnectionLimits()


def _events(*parts: bytes) -> list[tuple[Any, ...]]:
    """Return the requests and bodies in a stream that comes in these parts, up to the first refusal."""
    connection = StrictConnection(head_bytes=_LIMITS.head_bytes, fields=_LIMITS.head_fields)
    found: list[tuple[Any, ...]] = []
    body = b""
    try:
        for part in parts:
            if part:
                connection.receive_data(part)
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    break
                match event:
                    case h11.Request():
                        found.append((event.method, event.target, tuple(event.headers.raw_items())))
                        body = b""
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        found.append((body, tuple(event.headers)))
                        connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                        connection.send(h11.EndOfMessage())
                        if connection.our_state is not h11.DONE:
                            return found
                        connection.start_next_cycle()
                    case _:
                        return found
    except h11.RemoteProtocolError:
        pass
    return found


def connection(data: bytes) -> None:
    """A stream of requests, which means the same in whatever pieces it comes."""
    whole = _events(data)
    for size in (1, 7):
        pieces = _events(*(data[start : start + size] for start in range(0, len(data), size)))
        assert pieces == whole, "in pieces it is another stream"
    for request in whole:
        if len(request) == 3:
            names = [name.lower() for name, _ in request[2]]
            assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    try:
        idempotency_key(request)
        form = request.headers.get("content-type", "").startswith("application/x-www-form")
        await (read_form if form else read_body)(request, DEFAULT_EDGE_LIMITS)
    except EdgeError as error:
        assert error.status < 500
        await problem_of(error)(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@cache
def _config() -> uvicorn.Config:
    config = uvicorn.Config(
        _application, http=EdgeProtocol, ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False,
        proxy_headers=False, server_header=False,
    )  # fmt: skip
    config.load()
    return config


async def _served(data: bytes, *pieces: bytes) -> bytes:
    failures: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    state, transport = ServerState(), _Transport()
    protocol = EdgeProtocol(_config(), state, _LIMITS)
    protocol.connection_made(transport)
    for piece in (data, *pieces):
        # asyncio never hands on nothing, which h11 takes for the end.
        if piece and not transport.closed:
            protocol.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    protocol.eof_received()
    protocol.connection_lost(None)
    while state.tasks:
        await asyncio.gather(*state.tasks)
        await asyncio.sleep(0)
    assert not failures, failures
    return transport.written


def protocol(data: bytes) -> None:
    """A connection whose requests have bodies; its answers are HTTP, and none says that the edge failed."""
    answers = run(_served(data[: len(data) // 2], data[len(data) // 2 :]))
    client = h11.Connection(h11.CLIENT)
    if answers:
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.receive_data(answers)
        event = client.next_event()
        assert isinstance(event, h11.Response)
        assert event.status_code < 500


TARGETS: Mapping[str, Target] = {"connection": connection, "protocol": protocol}
