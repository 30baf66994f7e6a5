"""The extension Tasks, request by request, as clients that write them themselves see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.lab import until
from support.mcp_desk import McpDesk, Workshop, mcp_desk
from support.payments import Payments

MAKE: dict[str, Any] = {"name": "workshop_make", "arguments": {"item": "saw"}}


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


async def started(desk: McpDesk) -> str:
    task = await desk.result("tools/call", MAKE, tasks=True)
    assert (task["resultType"], task["status"]) == ("task", "working")
    assert task["ttlMs"] > 0
    found = task["taskId"]
    assert isinstance(found, str)
    return found


async def test_a_task_is_told_until_it_has_its_result(workshop: Workshop, tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        task = await started(desk)
        await until(workshop.begun.is_set)
        working = await desk.result("tasks/get", {"taskId": task}, tasks=True)
        workshop.go.set()
        await desk.door.bus.idle()
        done = await desk.result("tasks/get", {"taskId": task}, tasks=True)
        async with desk.door.another() as another:
            elsewhere = await McpDesk(door=another).result("tasks/get", {"taskId": task}, tasks=True)
    assert (working["resultType"], working["status"], working["taskId"]) == ("complete", "working", task)
    assert working["statusMessage"] == "cutting"
    assert (done["status"], done["result"]["structuredContent"]) == ("completed", {"item": "saw", "cents": 1})
    assert elsewhere == done


async def test_a_task_is_canceled_once(workshop: Workshop, tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        task = await started(desk)
        await until(workshop.begun.is_set)
        for _ in range(2):
            assert (await desk.result("tasks/cancel", {"taskId": task}, tasks=True))["resultType"] == "complete"
            await desk.door.bus.idle()
        told = await desk.result("tasks/get", {"taskId": task}, tasks=True)
    assert told["status"] == "cancelled"
    assert workshop.canceled.is_set()


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_tasks_of_others_are_not_there(workshop: Workshop, tmp_path: Path, method: str) -> None:
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        task = await started(desk)
        answers: dict[str, Any] = {"inputResponses": {"approval-1": {"action": "decline"}}}
        params = answers if method == "tasks/update" else {}
        others = [
            await desk.error(method, {"taskId": task, **params}, tasks=True, sub="bob"),
            await desk.error(method, {"taskId": "0" * 32, **params}, tasks=True),
            await desk.error(method, {"taskId": "../" + task, **params}, tasks=True),
        ]
        workshop.go.set()
        await desk.door.bus.idle()
    assert {(one["code"], one["message"]) for one in others} == {(-32602, "Unknown task")}
    assert not workshop.canceled.is_set()


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_who_did_not_declare_the_extension_is_told_so(workshop: Workshop, tmp_path: Path, method: str) -> None:
    workshop.go.set()
    async with mcp_desk(tmp_path, workshop.agent) as desk:
        error = await desk.error(method, {"taskId": "0" * 32})
        answered = await desk.result("tools/call", MAKE)
    assert error["code"] == -32021
    assert error["data"] == {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
    assert answered["structuredContent"] == {"item": "saw", "cents": 1}


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_an_answer_to_a_task_that_waits_approves_nothing(tmp_path: Path, action: str) -> None:
    payments = Payments()
    async with mcp_desk(tmp_path, payments.agent, engine=payments.engine) as desk:
        pay = {"name": "payments_pay", "arguments": {"invoice": "7"}}
        task = (await desk.result("tools/call", pay, tasks=True))["taskId"]
        await desk.door.bus.idle()
        waits = await desk.result("tasks/get", {"taskId": task}, tasks=True)
        [key] = waits["inputRequests"]
        responses = {key: {"action": action, "content": {"approve": True}}}
        said = await desk.result("tasks/update", {"taskId": task, "inputResponses": responses}, tasks=True)
        await desk.door.bus.idle()
        after = await desk.result("tasks/get", {"taskId": task}, tasks=True)
    assert waits["status"] == "input_required"
    assert waits["inputRequests"][key]["method"] == "elicitation/create"
    assert said["resultType"] == "complete"
    assert after["status"] == ("input_required" if action == "accept" else "cancelled")
    assert payments.paid == []
