"""What the A2A server refuses before the package `a2a` sees it, and what of a client's words gets into answers and logs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict
from support.a2a import Lines, Site, asking, site
from support.edge import raw

from sealbus.agents.edge.foreign_logs import quieten
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations

VERSION = {"A2A-Version": "1.0"}
RPC = "/a2a/writer/rpc"
SEND = "/a2a/writer/v1/message:send"
SHOUT = MessageToDict(asking("writer.shout", "hey"))
REST_PATHS = [
    ("POST", "message:send"),
    ("POST", "message:stream"),
    ("GET", "tasks"),
    ("GET", f"tasks/{'0' * 32}"),
    ("POST", f"tasks/{'0' * 32}:cancel"),
    ("GET", f"tasks/{'0' * 32}:subscribe"),
    ("POST", f"tasks/{'0' * 32}/pushNotificationConfigs"),
    ("GET", f"tasks/{'0' * 32}/pushNotificationConfigs"),
    ("GET", f"tasks/{'0' * 32}/pushNotificationConfigs/1"),
    ("DELETE", f"tasks/{'0' * 32}/pushNotificationConfigs/1"),
    ("GET", "extendedAgentCard"),
]


def rpc(method: str, params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@asynccontextmanager
async def streaming(running: Site, count: int, **claims: Any) -> AsyncIterator[httpx2.Response]:
    """Open a stream of a task that writes so many lines."""
    body = json.dumps(rpc("SendStreamingMessage", MessageToDict(asking("writer.write", {"value": count}))))
    headers = {**running.door.authorized(**claims), **VERSION, "Content-Type": "application/json"}
    async with running.door.http.stream("POST", RPC, content=body, headers=headers) as stream:
        yield stream


async def closed(running: Site) -> None:
    """Wait until the one stream that a user may have open is not open."""
    async with asyncio.timeout(60):
        while True:
            async with streaming(running, 0) as stream:
                if stream.status_code == httpx2.codes.OK:
                    return
            await asyncio.sleep(0.05)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def running(tmp_path: Path, lines: Lines) -> AsyncIterator[Site]:
    async with site(tmp_path, lines.agent) as found:
        yield found
        lines.go_on.set()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", RPC), *((one, f"/a2a/writer/v1/{path}") for one, path in REST_PATHS)]
)
async def test_nothing_is_answered_without_a_token(running: Site, method: str, path: str) -> None:
    for fields in ({}, {"Authorization": "Bearer no.token.here"}):
        headers = {**VERSION, **fields, "Content-Type": "application/json"}
        answer = await running.door.http.request(method, path, content=b"{}", headers=headers)
        assert answer.status_code == 401
        assert "resource_metadata=" in answer.headers["www-authenticate"]
    assert running.door.published()["TASKS"] == 0


async def test_other_methods_and_agents_are_not_there(running: Site) -> None:
    assert (await running.door.get(RPC)).status_code == 405
    assert (await running.door.post("/a2a/absent/rpc", rpc("GetTask", {}))).status_code == 404
    assert (await running.door.post("/a2a/writer", {})).status_code == 404
    assert (await running.door.post("/a2a/writer/rpc/", {})).status_code == 404


async def test_another_version_is_refused(running: Site) -> None:
    answer = await running.door.post(SEND, SHOUT)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["reason"] == "VERSION_NOT_SUPPORTED"
    spoken = await running.door.post(SEND, SHOUT, headers={"A2A-Version": "1.0.3"})
    assert spoken.status_code == 200
    assert spoken.headers["cache-control"] == "no-store"


async def test_a_body_of_100_mb_is_refused_before_it_is_read(running: Site) -> None:
    head = (
        f"POST {RPC} HTTP/1.1\r\nHost: x\r\nAuthorization: {running.door.authorized()['Authorization']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 104857600\r\n\r\n"
    )
    answer = await raw(running.door.edge.port, head.encode(), b'{"jsonrpc": "2.0"')
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b"[" * 100 + b"]" * 100, "application/json", 400),
        (b"no JSON", "application/json", 400),
        (b'{"jsonrpc": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "GetTask"}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"\x80", "application/msgpack", 415),
    ],
)
async def test_a_body_of_another_form_is_refused(running: Site, body: bytes, type_: str, status: int) -> None:
    for path in (RPC, SEND):
        answer = await running.door.post(path, body, headers={**VERSION, "Content-Type": type_})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], -32600),
        ([rpc("GetTask", {"id": "0" * 32})] * 2, -32600),
        ("text", -32600),
        ({**rpc("GetTask", {"id": "0" * 32}), "jsonrpc": "1.0"}, -32600),
        ({**rpc("GetTask", {"id": "0" * 32}), "id": True}, -32600),
        ({**rpc("GetTask", {"id": "0" * 32}), "id": {"a": 1}}, -32600),
        ({**rpc("GetTask", {"id": "0" * 32}), "method": ["GetTask"]}, -32600),
        (rpc("message/send", SHOUT), -32601),
        (rpc("__class__", {}), -32601),
        (rpc("GetTask", {"id": 7}), -32602),
        (rpc("GetTask", {"id": "0" * 32}), -32001),
        (rpc("CreateTaskPushNotificationConfig", {"taskId": "0" * 32, "url": "https://x.example"}), -32003),
    ],
)
async def test_requests_of_json_rpc_that_cannot_be_are_errors_of_it(running: Site, body: object, code: int) -> None:
    answer = await running.door.post(RPC, body, headers=VERSION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, code)


async def test_what_clients_send_is_not_logged(running: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    quieten("a2a")  # pytest listens to loggers that do not propagate
    secret = "a-secret-of-the-client"
    for body in (rpc(secret, {}), rpc("GetTask", {"id": {secret: 1}}), [secret], {"jsonrpc": secret, "method": secret}):
        answer = await running.door.post(RPC, body, headers={**VERSION, "X-Other": secret})
        assert "error" in answer.json()
    await running.door.post(SEND, {"message": {secret: 1, "role": secret}}, headers=VERSION)
    await running.door.post(SEND, SHOUT, headers={"A2A-Version": secret})
    own = [one for one in caplog.records if one.name.startswith(("sealbus", "a2a"))]
    assert any("a2a: warning at" in one.getMessage() for one in own)
    assert not [one for one in own if secret in one.getMessage() or secret in (one.exc_text or "")]


async def test_a_revoked_user_is_told_no_more_of_a_stream(tmp_path: Path, lines: Lines) -> None:
    revoked = [NONE_REVOKED]
    async with site(
        tmp_path, lines.agent, revocations=lambda: revoked[0], limits={"event_pause_seconds": 0.05}
    ) as running:
        async with streaming(running, 2, jti="s-1") as stream:
            told = stream.aiter_lines()
            async for line in told:
                if "line 0" in line:
                    break
            revoked[0] = Revocations(sessions=frozenset({(running.door.issuer.issuer, "s-1")}))
            async with asyncio.timeout(60):
                rest = [line async for line in told]
            lines.go_on.set()
        assert "line 1" not in "".join(rest)
        assert "event: error" in rest


@pytest.mark.slow
async def test_who_does_not_read_a_stream_is_cut_off(tmp_path: Path) -> None:
    lines = Lines(line="x" * 60_000)
    lines.go_on.set()
    async with site(tmp_path, lines.agent, limits={"event_streams_of_user": 1}) as running:
        body = json.dumps(MessageToDict(asking("writer.write", {"value": 200}))).encode()
        head = (
            f"POST /a2a/writer/v1/message:stream HTTP/1.1\r\nHost: x\r\nA2A-Version: 1.0\r\n"
            f"Authorization: {running.door.authorized()['Authorization']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", running.door.edge.port, limit=1_024)
        writer.write(head.encode() + body)
        async with asyncio.timeout(60):
            await reader.readuntil(b"\r\n\r\n")
            await closed(running)
        writer.close()


async def test_a_comment_shows_that_a_quiet_stream_is_open(tmp_path: Path, lines: Lines) -> None:
    async with site(tmp_path, lines.agent, limits={"event_pause_seconds": 0.05}) as running:
        async with streaming(running, 1) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            async with asyncio.timeout(60):
                async for line in stream.aiter_lines():
                    if line == ":":
                        break
        lines.go_on.set()


async def test_clients_leave_and_nothing_stays_open(tmp_path: Path, lines: Lines) -> None:
    async with site(tmp_path, lines.agent, limits={"event_streams_of_user": 1}) as running:
        for _ in range(3):
            async with streaming(running, 1) as stream:
                assert stream.status_code == httpx2.codes.OK
                await anext(stream.aiter_lines())
            await closed(running)
        lines.go_on.set()
