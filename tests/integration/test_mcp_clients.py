"""The MCP clients of npm at the edge: each lists, calls, follows, leaves, and waits for somebody's approval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.mcp_desk import McpDesk, Workshop, mcp_desk
from support.mcp_js import KINDS, NpmClient, npm_client
from support.payments import Payments

from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, SCOPE

pytestmark = pytest.mark.idp


@asynccontextmanager
async def connected(desk: McpDesk, kind: str, *, answer: str = "accept") -> AsyncIterator[NpmClient]:
    async with npm_client(kind, desk.url, desk.door.issuer.token(), answer=answer) as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
async def test_tools_are_listed_called_and_followed_and_left(tmp_path: Path, kind: str) -> None:
    workshop = Workshop()
    async with mcp_desk(tmp_path, workshop.agent) as desk, connected(desk, kind) as client:
        assert client.version == ("2026-07-28" if kind == "client auto" else "2025-11-25")
        await client.say(list=True)
        tools = {one["name"]: one for one in await client.told("tools")}
        assert tools["workshop_price"]["description"] == "Say what an item costs."

        priced = await client.call("workshop_price", item="saw", count=3)
        assert priced["structuredContent"] == {"item": "saw", "cents": 21}
        wrong = await client.call("workshop_price", item=7)
        assert wrong["isError"]

        await client.say(call="workshop_make", arguments={"item": "saw"})
        while await client.told("progress") != "cutting":
            pass
        workshop.go.set()
        assert (await client.told("result"))["structuredContent"] == {"item": "saw", "cents": 1}

        workshop.go.clear()
        workshop.begun.clear()
        await client.say(call="workshop_make", arguments={"item": "left"})
        await asyncio.wait_for(workshop.begun.wait(), 10)
        await client.say(leave=True)
        assert "left" in await client.told("error")
        await asyncio.wait_for(workshop.canceled.wait(), 10)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_approval_is_waited_for(tmp_path: Path, kind: str) -> None:
    payments = Payments()
    async with mcp_desk(tmp_path, payments.agent, engine=payments.engine) as desk, connected(desk, kind) as client:
        await client.say(call="payments_pay", arguments={"invoice": "7"})
        question = await client.told("asked")
        assert "approves nothing" in question["message"]
        [waiting] = await desk.door.bus.waiting()
        url = f"{APPROVALS_PATH}/{waiting.digest.hex()}"
        shown = (await desk.door.get(url, sub="boss")).json()
        said = {"decision": shown["decision"], "verdict": "approve"}
        await desk.door.post(url, said, sub="boss", scope=SCOPE)
        assert (await client.told("result"))["structuredContent"] == {"result": "paid"}
    assert payments.paid == [("7", ("boss",))]
