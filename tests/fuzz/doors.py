"""Targets: bodies of requests to a whole edge, behind a good access token: its own routes, MCP and A2A.

The edge, its agents and their bus run in this process. An answer that says that the edge failed is a finding, whatever the
package behind a door made of the exception.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from a2a.types import SendMessageRequest
from fuzz.loop import opened, run
from fuzz.targets import Target
from google.protobuf.message import DecodeError
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import BaseModel
from support.a2a import Site, site
from support.mcp_desk import McpDesk, mcp_desk

from sealbus import Agent, Context

_PLENTY: Mapping[str, float] = {
    f"{name}_{what}": 1_000_000_000
    for name in ("user", "client", "read", "address", "event")
    for what in ("rate", "burst")
}
_LIFE = 86_400
_INTERNAL = -32603
"""JSON-RPC 2.0 section 5.1."""


class Order(BaseModel):
    item: str
    count: int = 1


def _agents() -> tuple[Agent, ...]:
    agent = Agent("workshop")

    @agent.call("price")
    async def price(body: Order, ctx: Context) -> Order:
        return body

    @agent.call("say")
    async def say(body: str, ctx: Context) -> str:
        return body

    @agent.task("make", retry=0)
    async def make(body: Order, ctx: Context) -> Order:
        return body

    return (agent,)


@asynccontextmanager
async def _desk() -> AsyncIterator[McpDesk]:
    with tempfile.TemporaryDirectory() as folder:
        async with mcp_desk(Path(folder), *_agents(), limits=_PLENTY, schedules=True) as desk:
            yield desk


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        async with site(Path(folder), *_agents(), limits=_PLENTY) as running:
            yield running


_tokens: dict[str, dict[str, str]] = {}


def _authorized(door: Any) -> dict[str, str]:
    if door.issuer.issuer not in _tokens:
        _tokens[door.issuer.issuer] = door.authorized(
            life=_LIFE, auth_time=int(time.time()), scope="sealbus:approve sealbus:schedule"
        )
    return _tokens[door.issuer.issuer]


def _check(answer: Any) -> None:
    assert answer.status_code != 500, answer.text
    for document in _documents(answer.text):
        error = document.get("error") if isinstance(document, dict) else None
        assert not (isinstance(error, dict) and error.get("code") == _INTERNAL), document


def _documents(text: str) -> list[Any]:
    found = []
    for line in [text, *(line[5:] for line in text.splitlines() if line.startswith("data:"))]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _posts(path: str, open_door: Callable[[], Any], content_type: str = "application/json", **more: str) -> Target:
    """Return the target of the bodies of `path`."""

    def check(data: bytes) -> None:
        running = opened(open_door)
        fields = {"content-type": content_type, **_authorized(running.door), **more}
        _check(run(running.door.http.post(path, content=data, headers=fields)))

    return check


_ACCEPT = "application/json, text/event-stream"


def _is_field(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text.strip() == text


def mcp_modern(data: bytes) -> None:
    """One message of MCP without sessions; its method is in a field, too."""
    desk = opened(_desk)
    method, name = "tools/call", ""
    try:
        message = json.loads(data)
        method, name = str(message["method"]), str(message["params"]["name"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    named = {field: value for field, value in (("mcp-method", method), ("mcp-name", name)) if _is_field(value)}
    fields = {
        **_authorized(desk.door), **named, "content-type": "application/json", "accept": _ACCEPT,
        "mcp-protocol-version": LATEST_MODERN_VERSION,
    }  # fmt: skip
    _check(run(desk.door.http.post("/mcp", content=data, headers=fields)))


def a2a_grpc(data: bytes) -> None:
    """A request of A2A over gRPC."""
    try:
        SendMessageRequest.FromString(data)
    except DecodeError:
        # Then gRPC's own answer is that the server failed.
        return
    found = opened(_site)
    fields = [(name.lower(), value) for name, value in _authorized(found.door).items()]
    run(_grpc(found.grpc, data, fields))


_channels: dict[str, Any] = {}


async def _grpc(address: str, data: bytes, fields: list[tuple[str, str]]) -> None:
    if address not in _channels:
        _channels[address] = grpc.aio.insecure_channel(address)
    call = _channels[address].unary_unary("/lf.a2a.v1.A2AService/SendMessage")
    try:
        await call(data, metadata=[*fields, ("a2a-version", "1.0")])
    except grpc.aio.AioRpcError as error:
        assert error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), error.details()


_VERSION: Mapping[str, str] = {"a2a-version": "1.0"}

TARGETS: Mapping[str, Target] = {
    "call": _posts("/v1/calls/workshop/price", _desk),
    "call_msgpack": _posts("/v1/calls/workshop/price", _desk, "application/msgpack"),
    "task": _posts("/v1/tasks/workshop/make", _desk),
    "schedule": _posts("/v1/schedules", _desk),
    "verdict": _posts("/v1/approvals/" + "0" * 64, _desk),
    "logout": _posts("/v1/backchannel-logout", _desk, "application/x-www-form-urlencoded"),
    "event": _posts("/v1/security-events", _desk, "application/secevent+jwt"),
    "mcp_modern": mcp_modern,
    "mcp_sessions": _posts("/mcp", _desk, accept=_ACCEPT),
    "a2a_rpc": _posts("/a2a/workshop/rpc", _site, **_VERSION),
    "a2a_send": _posts("/a2a/workshop/v1/message:send", _site, **_VERSION),
    "a2a_stream": _posts("/a2a/workshop/v1/message:stream", _site, **_VERSION),
    "a2a_grpc": a2a_grpc,
}
