"""A desktop client's lines carried to a real edge and back, in both generations, and what is told when that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.mcp_desk import McpDesk, Workshop, mcp_desk

from sealbus.agents.login.kept_login import LoginRequired
from sealbus.agents.login.mcp_relay import LINE_BYTES, McpRelay
from sealbus.envelopes.errors import ConfigurationError

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "test", "version": "1"},
}


class Desktop:
    """A client of the relay: what it writes, and what it has read."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=LINE_BYTES)
        self.read: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        self.read.put_nowait(json.loads(line))

    def say(self, method: str, params: dict[str, Any], request: object = None) -> None:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        self.line(json.dumps(message if request is None else {**message, "id": request}).encode())

    def line(self, line: bytes) -> None:
        self.reader.feed_data(line + b"\n")

    async def told(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            return await self.read.get()

    async def answer(self, method: str, params: dict[str, Any], request: object = 1) -> dict[str, Any]:
        """Return the answer to a request; what comes before it is let pass."""
        self.say(method, params, request)
        while (found := await self.told()).get("id") != request or "method" in found:
            pass
        return found

    async def call(self, name: str, **arguments: object) -> dict[str, Any]:
        return await self.answer("tools/call", {"name": name, "arguments": arguments, "_meta": MODERN})


@asynccontextmanager
async def desktop(edge: str, *tokens: str | Exception) -> AsyncIterator[Desktop]:
    """Run a relay that has one of `tokens` after the other, the last one for ever."""
    left = list(tokens)

    async def token() -> str:
        found = left[0] if len(left) == 1 else left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    client = Desktop()
    async with asyncio.TaskGroup() as group:
        group.create_task(McpRelay(edge, token, client.write).relay_messages(client.reader))
        yield client
        client.reader.feed_eof()


@asynccontextmanager
async def opened(folder: Path, workshop: Workshop, **table: Any) -> AsyncIterator[tuple[McpDesk, Desktop]]:
    async with mcp_desk(folder, workshop.agent, table=table) as desk:
        edge = f"http://127.0.0.1:{desk.door.edge.port}/api"
        async with desktop(edge, desk.door.issuer.token()) as client:
            yield desk, client


async def test_a_newer_client_lists_and_calls(tmp_path: Path) -> None:
    async with opened(tmp_path, Workshop()) as (_, client):
        listed = await client.answer("tools/list", {"_meta": MODERN})
        assert "workshop_price" in {one["name"] for one in listed["result"]["tools"]}
        called = await client.call("workshop_price", item="saw", count=3)
        assert called["result"]["structuredContent"] == {"item": "saw", "cents": 21}


async def test_an_older_client_has_a_session_that_ends_with_it(tmp_path: Path) -> None:
    workshop = Workshop()
    workshop.go.set()
    async with mcp_desk(tmp_path, workshop.agent, table={"sessions": 1}) as desk:
        edge = f"http://127.0.0.1:{desk.door.edge.port}"
        for _ in range(2):
            async with desktop(edge, desk.door.issuer.token()) as client:
                begun = await client.answer("initialize", INITIALIZE)
                assert begun["result"]["protocolVersion"] == "2025-11-25"
                client.say("notifications/initialized", {})
                called = await client.answer("tools/call", {"name": "workshop_make", "arguments": {"item": "saw"}}, "x")
                assert called["result"]["structuredContent"] == {"item": "saw", "cents": 1}


async def test_progress_and_ids_of_every_kind_go_through(tmp_path: Path) -> None:
    workshop = Workshop()
    async with opened(tmp_path, workshop) as (_, client):
        params = {
            "name": "workshop_make",
            "arguments": {"item": "saw"},
            "_meta": {**MODERN, "progressToken": "p"},
        }
        client.say("tools/call", params, "é\n")
        while (told := await client.told()).get("params", {}).get("message") != "cutting":
            assert told["method"] == "notifications/progress"
        workshop.go.set()
        while "method" in (told := await client.told()):
            pass
        assert (told["id"], told["result"]["structuredContent"]) == ("é\n", {"item": "saw", "cents": 1})


async def test_what_a_client_takes_back_is_taken_back_on_the_bus(tmp_path: Path) -> None:
    workshop = Workshop()
    async with opened(tmp_path, workshop) as (_, client):
        client.say("tools/call", {"name": "workshop_make", "arguments": {"item": "saw"}, "_meta": MODERN}, 7)
        await asyncio.wait_for(workshop.begun.wait(), 10)
        client.say("notifications/cancelled", {"requestId": 8})
        client.say("notifications/cancelled", {"requestId": 7})
        await asyncio.wait_for(workshop.canceled.wait(), 10)


async def test_a_client_that_ends_takes_back_what_is_open(tmp_path: Path) -> None:
    workshop = Workshop()
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        async with desktop(f"http://127.0.0.1:{desk.door.edge.port}", desk.door.issuer.token()) as client:
            client.say("tools/call", {"name": "workshop_make", "arguments": {"item": "saw"}, "_meta": MODERN}, 7)
            await asyncio.wait_for(workshop.begun.wait(), 10)
        await asyncio.wait_for(workshop.canceled.wait(), 10)


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[]", b'"x"', b"[" * 100_000, b""])
async def test_what_is_no_message_is_answered_and_what_follows_is_carried(tmp_path: Path, line: bytes) -> None:
    async with opened(tmp_path, Workshop()) as (_, client):
        client.line(line)
        assert (await client.told())["error"]["code"] == -32700
        assert "result" in await client.call("workshop_price", item="saw")


async def test_why_the_edge_refused_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path, Workshop(), scopes={"workshop.price": "shop:read"}) as (_, client):
        refused = await client.call("workshop_price", item="saw")
    assert "(denied)" in refused["error"]["message"]
    assert refused["error"]["data"]["problem"]["status"] == 403


async def test_who_is_not_logged_in_is_told_so_until_they_are(tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, Workshop().agent) as desk:
        edge = f"http://127.0.0.1:{desk.door.edge.port}"
        nobody = LoginRequired("you are not logged in: run `sealbus login`")
        async with desktop(edge, nobody, "no-token", desk.door.issuer.token()) as client:
            refused = await client.call("workshop_price", item="saw")
            ended = await client.call("workshop_price", item="saw")
            called = await client.call("workshop_price", item="saw")
    assert "sealbus login" in refused["error"]["message"]
    assert "no-token" not in json.dumps(ended)
    assert ended["error"]["data"]["problem"]["status"] == 401
    assert called["result"]["structuredContent"] == {"item": "saw", "cents": 7}


async def test_an_edge_that_is_away_is_told_and_no_other_host_is_asked(tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, Workshop().agent) as desk:
        edge = f"http://127.0.0.1:{desk.door.edge.port}"
        token = desk.door.issuer.token()
    async with desktop(edge, token) as client:
        refused = await client.call("workshop_price", item="saw")
        client.say("notifications/initialized", {})
    assert refused["error"]["message"] == "the edge does not answer: ConnectError"


@pytest.mark.parametrize("edge", ["http://edge.example", "ftp://127.0.0.1", "", "//x"])
async def test_a_token_goes_to_no_place_where_others_read_it(edge: str) -> None:
    async def token() -> str:
        raise AssertionError

    with pytest.raises(ConfigurationError):
        McpRelay(edge, token, Desktop().write)


async def test_a_line_without_end_ends_it() -> None:
    async def token() -> str:
        return ""

    client = Desktop()
    relay = McpRelay("http://127.0.0.1:1", token, client.write)
    client.reader.feed_data(b"x" * (2 * LINE_BYTES + 1))
    with pytest.raises(ConfigurationError, match="bytes"):
        await relay.relay_messages(client.reader)


async def test_more_than_may_be_open_is_refused_and_answers_go_on(tmp_path: Path) -> None:
    workshop = Workshop()
    limits = {"user_burst": 1_000, "client_burst": 1_000}
    async with (
        mcp_desk(tmp_path, workshop.agent, limits=limits) as desk,
        desktop(f"http://127.0.0.1:{desk.door.edge.port}", desk.door.issuer.token()) as client,
    ):
        for number in range(33):
            params = {"name": "workshop_make", "arguments": {"item": "saw"}, "_meta": MODERN}
            client.say("tools/call", params, number)
        refused = {"code": -32000, "message": "32 requests are open"}
        assert await client.told() == {"jsonrpc": "2.0", "id": 32, "error": refused}
        workshop.go.set()
        told = [await client.told() for _ in range(32)]
    assert {one["id"] for one in told} == set(range(32))
    assert all(one["result"]["structuredContent"] == {"item": "saw", "cents": 1} for one in told)
