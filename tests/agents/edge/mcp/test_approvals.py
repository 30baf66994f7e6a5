"""A tool whose task waits for somebody's approval: the client learns of it, and its answer never is the approval."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from support.lab import until
from support.mcp_desk import GENERATIONS, McpDesk, mcp_desk
from support.payments import ASKED, Payments

from sealbus.agents.edge.mcp.results import PROBLEM, TASK
from sealbus.agents.edge.v1.approval_routes import APPROVALS_PATH, SCOPE
from sealbus.bus.gate.status_reader import StatusLimits

PAY = "payments_pay"
PAGE = "https://console.example/approvals"


@pytest.fixture
def payments() -> Payments:
    return Payments()


@asynccontextmanager
async def opened(
    folder: Path, payments: Payments, *, table: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[McpDesk]:
    async with mcp_desk(folder, payments.agent, engine=payments.engine, table=table, **options) as desk:
        yield desk


async def verdict(desk: McpDesk, verdict: str = "approve") -> None:
    """Say `verdict` about the one that waits, with a login of boss's own, at the edge."""
    await desk.door.bus.idle()
    [waiting] = await desk.door.bus.waiting()
    url = f"{APPROVALS_PATH}/{waiting.digest.hex()}"
    shown = (await desk.door.get(url, sub="boss")).json()
    said = {"decision": shown["decision"], "verdict": verdict}
    assert (await desk.door.post(url, said, sub="boss", scope=SCOPE)).status_code < 300


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_the_client_is_told_and_is_answered_once_somebody_has_approved(
    payments: Payments, tmp_path: Path, mode: str
) -> None:
    async with opened(tmp_path, payments) as desk, desk.client(mode) as client:
        calling = asyncio.create_task(client.call_tool(PAY, {"invoice": "7"}))
        await until(lambda: bool(desk.questions))
        assert payments.paid == []
        await verdict(desk)
        answer = await calling
    [question] = desk.questions
    assert isinstance(question, types.ElicitRequestFormParams)
    assert "approves nothing" in question.message
    assert question.requested_schema == {"type": "object", "properties": {}}
    assert answer.structured_content == {"result": "paid"}
    assert payments.paid == [("7", ("boss",))]


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_client_with_pages_is_sent_to_the_page(payments: Payments, tmp_path: Path, mode: str) -> None:
    """The Python client says that it can show both."""
    async with opened(tmp_path, payments, table={"approvals": PAGE}) as desk, desk.client(mode) as client:
        calling = asyncio.create_task(client.call_tool(PAY, {"invoice": "7"}))
        await until(lambda: bool(desk.questions))
        await verdict(desk)
        assert (await calling).structured_content == {"result": "paid"}
    [question] = desk.questions
    assert isinstance(question, types.ElicitRequestURLParams)
    assert question.url == PAGE


@pytest.mark.parametrize("answer", ["decline", "cancel"])
@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_client_that_declines_takes_its_task_back(
    payments: Payments, tmp_path: Path, mode: str, answer: str
) -> None:
    async with opened(tmp_path, payments) as desk, desk.client(mode) as client:
        desk.answer = answer
        result = await client.call_tool(PAY, {"invoice": "7"})
        await desk.door.bus.idle()
        assert await desk.door.bus.waiting() == []
    assert result.meta is not None
    assert result.meta[PROBLEM]["code"] == "canceled"
    assert payments.paid == []


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_what_is_not_approved_says_so(payments: Payments, tmp_path: Path, mode: str) -> None:
    async with opened(tmp_path, payments) as desk, desk.client(mode) as client:
        calling = asyncio.create_task(client.call_tool(PAY, {"invoice": "7"}))
        await until(lambda: bool(desk.questions))
        await verdict(desk, "deny")
        result = await calling
    assert result.meta is not None
    assert result.meta[PROBLEM]["code"] == "denied"
    assert payments.paid == []


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_what_nobody_approved_in_time_has_expired(
    payments: Payments, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments.asked = {**ASKED, "until": 1}
    async with opened(tmp_path, payments) as desk, desk.client(mode) as client:
        monkeypatch.setattr(desk.door.edge.node.status_reader, "limits", StatusLimits(parked=0.05))
        result = await client.call_tool(PAY, {"invoice": "7"})
    assert result.meta is not None
    assert result.meta[PROBLEM]["code"] == "expired"


@pytest.mark.parametrize("mode", GENERATIONS)
async def test_a_client_that_cannot_ask_learns_the_task_and_finds_it_later(
    payments: Payments, tmp_path: Path, mode: str
) -> None:
    async with opened(tmp_path, payments) as desk, desk.client(mode, asks=False) as client:
        waits = await client.call_tool(PAY, {"invoice": "7"})
        assert waits.meta is not None
        await verdict(desk)
        await desk.door.bus.idle()
        found = await client.call_tool("task_result", {"task": waits.meta[TASK]})
    assert waits.is_error
    assert found.structured_content == {"result": "paid"}


async def begun(client: Client, invoice: str = "7") -> types.InputRequiredResult:
    """Call the tool and return the question, unanswered."""
    asked = await client.session.call_tool(PAY, {"invoice": invoice}, allow_input_required=True)
    assert isinstance(asked, types.InputRequiredResult)
    return asked


ACCEPTED: Any = {"approval": types.ElicitResult(action="accept", content={"approve": True})}


async def test_an_answer_to_no_question_is_refused(payments: Payments, tmp_path: Path) -> None:
    """As long as no state of ours comes with it, nothing was asked."""
    async with opened(tmp_path, payments) as desk, desk.client() as client:
        with pytest.raises(MCPError, match="not asked"):
            await client.session.call_tool(PAY, {"invoice": "7"}, input_responses=ACCEPTED)
        await desk.door.bus.idle()
        assert await desk.door.bus.waiting() == []
    assert payments.contexts == []


async def test_the_state_of_a_question_is_of_its_user_tool_and_arguments_alone(
    payments: Payments, tmp_path: Path
) -> None:
    async with opened(tmp_path, payments, limits={"call_seconds": 0.3}) as desk:
        async with desk.client() as client:
            state = (await begun(client)).request_state
            assert state is not None
            others: list[tuple[str, dict[str, Any], str]] = [
                (PAY, {"invoice": "8"}, state),
                (PAY, {"invoice": "7", "amount": 1}, state),
                ("payments_note", {"invoice": "7"}, state),
                (PAY, {"invoice": "7"}, state[:-6] + "AAAAAA"),
                (PAY, {"invoice": "7"}, "0" * 32),
            ]
            for name, arguments, brought in others:
                with pytest.raises(MCPError):
                    await client.session.call_tool(
                        name, arguments, request_state=brought, input_responses=ACCEPTED, allow_input_required=True
                    )
        others_claims: list[dict[str, Any]] = [{"sub": "bob"}, {"client_id": "another"}]
        for claims in others_claims:
            async with desk.client(**claims) as client:
                with pytest.raises(MCPError):
                    await client.session.call_tool(
                        PAY, {"invoice": "7"}, request_state=state, input_responses=ACCEPTED, allow_input_required=True
                    )
        await desk.door.bus.idle()
        assert len(await desk.door.bus.waiting()) == 1
    assert payments.paid == []


async def test_a_state_that_is_brought_again_does_nothing_twice(payments: Payments, tmp_path: Path) -> None:
    async with opened(tmp_path, payments, limits={"call_seconds": 0.3}) as desk, desk.client() as client:
        state = (await begun(client)).request_state
        waits = [
            await client.session.call_tool(
                PAY, {"invoice": "7"}, request_state=state, input_responses=ACCEPTED, allow_input_required=True
            )
            for _ in range(2)
        ]
        assert payments.paid == []
        await verdict(desk)
        await desk.door.bus.idle()
        for _ in range(2):
            found = await client.session.call_tool(
                PAY, {"invoice": "7"}, request_state=state, input_responses=ACCEPTED, allow_input_required=True
            )
            assert isinstance(found, types.CallToolResult)
            assert found.structured_content == {"result": "paid"}
    for one in waits:
        assert isinstance(one, types.CallToolResult)
        assert one.is_error
    assert payments.paid == [("7", ("boss",))]


async def test_another_process_of_the_edge_opens_the_state(payments: Payments, tmp_path: Path) -> None:
    """The keys are of the settings, and the task is of the bus: a second server finds what the first one left."""
    async with opened(tmp_path, payments) as desk:
        async with desk.client() as client:
            state = (await begun(client)).request_state
        await verdict(desk)
        await desk.door.bus.idle()
        async with desk.door.another() as another, McpDesk(door=another).client() as client:
            found = await client.session.call_tool(
                PAY, {"invoice": "7"}, request_state=state, input_responses=ACCEPTED, allow_input_required=True
            )
    assert isinstance(found, types.CallToolResult)
    assert found.structured_content == {"result": "paid"}
