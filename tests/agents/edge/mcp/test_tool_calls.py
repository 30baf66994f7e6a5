"""Tools called by clients of both generations: calls, tasks, what is refused, and what waits for somebody."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError
from support.engines import ScriptedEngine, allow, deny
from support.mcp_desk import GENERATIONS, McpDesk, Workshop, mcp_desk

from sealbus.agents.edge.mcp.results import PROBLEM, TASK
from sealbus.agents.edge.mcp.tool_calls import IDEMPOTENCY_KEY


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def opened(workshop: Workshop, engine: ScriptedEngine, tmp_path: Path) -> AbstractAsyncContextManager[McpDesk]:
    """An edge that each test opens itself: cancel scopes of anyio belong to one task."""
    return mcp_desk(tmp_path, workshop.agent, engine=engine)


Opened = AbstractAsyncContextManager[McpDesk]


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_call_is_answered_with_what_the_agent_gives(opened: Opened, workshop: Workshop, mode: str) -> None:
    async with opened as desk, desk.client(mode) as client:
        assert client.protocol_version == (mode if mode != "legacy" else "2025-11-25")
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        answer = await client.call_tool("workshop_price", {"item": "saw", "count": 3})
    assert listed["workshop_price"].description == "Say what an item costs."
    assert (answer.is_error, answer.structured_content) == (False, {"item": "saw", "cents": 21})
    user = workshop.contexts[0].user
    assert user is not None
    assert (user.sub, user.clm) == ("alice", {"door": "mcp"})


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_chunks_and_parts_come_as_a_list(opened: Opened, mode: str) -> None:
    async with opened as desk, desk.client(mode) as client:
        numbers = await client.call_tool("workshop_numbers", {"item": "saw", "count": 3})
        pieces = await client.call_tool("workshop_pieces", {"item": "saw", "count": 3})
        none = await client.call_tool("workshop_pieces", {"item": "saw", "count": 0})
    assert numbers.structured_content == pieces.structured_content == {"result": [0, 1, 2]}
    assert none.structured_content == {"result": []}


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_task_tells_its_progress_and_then_its_result(opened: Opened, workshop: Workshop, mode: str) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        if message == "cutting":
            workshop.go.set()

    async with opened as desk, desk.client(mode) as client:
        answer = await client.call_tool("workshop_make", {"item": "saw"}, progress_callback=progress)
    assert answer.structured_content == {"item": "saw", "cents": 1}
    assert "cutting" in [message for _, message in told]
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_arguments_outside_the_schema_are_told_and_reach_nobody(opened: Opened, mode: str) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"item": 7}, {}, {"item": "saw", "count": "a-secret"})
    async with opened as desk, desk.client(mode) as client:
        answers = [await client.call_tool("workshop_price", arguments) for arguments in wrong]
        assert desk.door.published()["AUDIT"] == 0
    for answer in answers:
        assert answer.is_error
        [said] = answer.content
        assert isinstance(said, types.TextContent)
        assert said.text.endswith("(bad_body)")
        assert "a-secret" not in said.text


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_what_is_denied_says_why_and_what_would_help(opened: Opened, engine: ScriptedEngine, mode: str) -> None:
    remedy: dict[str, object] = {"type": "remedy", "kind": "scope", "scope": "stock:write"}
    denial = deny("not_owner", obligations=({"type": "show_reasons"}, remedy))
    engine.verdict = lambda one: allow() if one["action"]["name"].endswith(".reply") else denial
    async with opened as desk, desk.client(mode) as client:
        answer = await client.call_tool("workshop_price", {"item": "saw"})
    assert answer.is_error
    assert answer.meta is not None
    problem = answer.meta[PROBLEM]
    assert (problem["code"], problem["reasons"]) == ("denied", ["not_owner"])
    [said] = answer.content
    assert isinstance(said, types.TextContent)
    assert "not_owner" in said.text
    assert "stock:write" in said.text


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_what_an_agent_raises_stays_inside(opened: Opened, mode: str) -> None:
    async with opened as desk, desk.client(mode) as client:
        answer = await client.call_tool("workshop_broken", {"item": "saw"})
    assert answer.is_error
    assert "secret" not in answer.model_dump_json()
    assert answer.meta is not None
    assert answer.meta[PROBLEM]["code"] == "handler_failed"


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_no_tool_of_ours_is_an_error_of_the_protocol(opened: Opened, mode: str) -> None:
    async with opened as desk, desk.client(mode) as client:
        for name in ("no_tool", "workshop.price", "<script>", "", "task_resul", "task_results", "Task_Result"):
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool(name, {})


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_task_that_takes_long_is_found_again_by_its_user_only(
    workshop: Workshop, engine: ScriptedEngine, tmp_path: Path, mode: str
) -> None:
    async with mcp_desk(tmp_path, workshop.agent, engine=engine, limits={"call_seconds": 0.3}) as desk:
        async with desk.client(mode) as client:
            open_ = await client.call_tool("workshop_make", {"item": "saw"})
            assert open_.meta is not None
            task = open_.meta[TASK]
            again = await client.call_tool("task_result", {"task": task})
        assert open_.is_error
        assert again.is_error
        assert again.meta is not None
        assert again.meta[TASK] == task
        [said] = again.content
        assert isinstance(said, types.TextContent)
        assert said.text.startswith("Not done yet")
        workshop.go.set()
        await desk.door.bus.idle()
        async with desk.client(mode, sub="bob") as client:
            with pytest.raises(MCPError, match="Unknown task"):
                await client.call_tool("task_result", {"task": task})
        async with desk.client(mode) as client:
            for other in ("0" * 32, "x", "", None):
                with pytest.raises(MCPError, match="Unknown task"):
                    await client.call_tool("task_result", {"task": other})
            answer = await client.call_tool("task_result", {"task": task})
    assert answer.structured_content == {"item": "saw", "cents": 1}


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_one_key_is_one_task(opened: Opened, workshop: Workshop, mode: str) -> None:
    workshop.go.set()
    async with opened as desk, desk.client(mode) as client:
        for _ in range(3):
            meta: Any = {IDEMPOTENCY_KEY: "order-7"}
            answer = await client.call_tool("workshop_make", {"item": "saw"}, meta=meta)
            assert answer.structured_content == {"item": "saw", "cents": 1}
    assert len(workshop.contexts) == 1


@pytest.mark.parametrize("tool", ["workshop_make", "workshop_hang"])
async def test_a_client_that_leaves_takes_back_what_it_waited_for(
    opened: Opened, workshop: Workshop, tool: str
) -> None:
    async with opened as desk:
        async with desk.client() as client:
            calling = asyncio.create_task(client.call_tool(tool, {"item": "saw"}))
            await asyncio.wait_for(workshop.begun.wait(), 10)
            calling.cancel()
            await asyncio.wait([calling])
        if tool == "workshop_make":
            await asyncio.wait_for(workshop.canceled.wait(), 10)
        workshop.go.set()
        await desk.door.bus.idle()


async def test_an_edge_that_stops_takes_no_task_back(
    workshop: Workshop, engine: ScriptedEngine, tmp_path: Path
) -> None:
    async with mcp_desk(tmp_path, workshop.agent, engine=engine) as desk, desk.client() as client:
        calling = asyncio.create_task(client.call_tool("workshop_make", {"item": "saw"}))
        await asyncio.wait_for(workshop.begun.wait(), 10)
        desk.door.edge.front.stopping.set()
        answer = await calling
        assert answer.is_error
        workshop.go.set()
        await desk.door.bus.idle()
        assert not workshop.canceled.is_set()
