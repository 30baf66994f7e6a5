"""NATS killed, worker and edge started anew while MCP clients wait: each of them finds what it had asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from support.edge import Door, edge_table
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until
from support.mcp_desk import GENERATIONS, McpDesk, Workshop
from support.mcp_js import npm_client, require_mcp_js
from support.real_bus import RealBus, real_bus

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.mcp.results import TASK
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.runtime.settings.schema import EdgeTable, McpTable
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.schema import AgentSchema

pytestmark = [pytest.mark.nats, pytest.mark.idp]

LIMITS = EdgeLimits(call_seconds=60, user_rate=1e6, user_burst=10**6)
MADE = {"item": "saw", "cents": 1}


def settings(folder: Path, issuer: LoopbackIssuer, workshop: Workshop) -> EdgeTable:
    schema, key = folder / "workshop.json", folder / "state.key"
    schema.write_text(AgentSchema.of(workshop.agent).text())
    write_key(key)
    return edge_table(
        issuer,
        actions=("workshop.*",),
        schemas=(schema,),
        mcp=McpTable(actions=("workshop.*",), state_keys=(key,)),
    )


@asynccontextmanager
async def running(bus: RealBus, issuer: LoopbackIssuer, table: EdgeTable, workshop: Workshop) -> AsyncIterator[McpDesk]:
    """Run a worker and an edge that know nothing of those before them."""
    engine, stop = ScriptedEngine(), asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        worker = await stack.enter_async_context(Worker(workshop.agent, await bus.node("workshop", engine)))
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        edge = await stack.enter_async_context(
            serve_edge(table, await bus.node("edge", engine), limits=LIMITS, issuer_tls=TRUSTS_NOBODY)
        )
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            )
        )
        yield McpDesk(door=Door(bus=cast("Any", bus), edge=edge, issuer=issuer, http=http, table=table, limits=LIMITS))
        stop.set()


async def found(desk: McpDesk, task: str, mode: str) -> Any:
    """Ask for a task with a new client until it is done."""
    async with desk.client(mode) as client, asyncio.timeout(60):
        while (answer := await client.call_tool("task_result", {"task": task})).is_error:
            await asyncio.sleep(0.1)
        return answer.structured_content


async def test_each_client_finds_its_result_after_all_was_started_anew(tmp_path: Path) -> None:
    require_mcp_js()
    workshop = Workshop()
    async with real_bus(tmp_path, "workshop", "edge") as bus, LoopbackIssuer() as issuer:
        table = settings(tmp_path, issuer, workshop)
        tasks: dict[str, str] = {}
        async with AsyncExitStack() as clients, running(bus, issuer, table, workshop) as desk:
            extension = await desk.result(
                "tools/call", {"name": "workshop_make", "arguments": {"item": "saw"}}, tasks=True
            )
            tasks["extension"] = extension["taskId"]

            waiting = []
            for mode in GENERATIONS:
                client = await clients.enter_async_context(desk.client(mode))
                told = asyncio.get_running_loop().create_future()

                async def progress(
                    progress: float, total: float | None, message: str | None, told: asyncio.Future[str] = told
                ) -> None:
                    if progress == 1.0:
                        told.set_result((message or "").removeprefix("task "))

                call = client.call_tool("workshop_make", {"item": "saw"}, progress_callback=progress)
                waiting.append(asyncio.create_task(call))
                tasks[f"python {mode}"] = await asyncio.wait_for(told, 20)
            for kind in ("client auto", "sdk legacy"):
                npm = await clients.enter_async_context(npm_client(kind, desk.url, issuer.token()))
                await npm.say(call="workshop_make", arguments={"item": "saw"})
                tasks[f"npm {kind}"] = (await npm.told("progress")).removeprefix("task ")
            await until(lambda: len(workshop.contexts) == len(tasks))
            desk.door.edge.front.stopping.set()
            # An edge that stops says which task goes on.
            answers = [await asyncio.wait_for(one, 20) for one in waiting]
            assert {(one.meta or {})[TASK] for one in answers} <= set(tasks.values())
            # The worker ends its work before it ends; the clients have lost their connections by then.
            workshop.go.set()
        await bus.server.kill9()
        await bus.server.restart()
        async with running(bus, issuer, table, workshop) as desk:
            for name, task in tasks.items():
                assert await found(desk, task, "legacy" if "legacy" in name else GENERATIONS[1]) == MADE, name
            told_again = await desk.result("tasks/get", {"taskId": tasks["extension"]}, tasks=True)
            assert (told_again["status"], told_again["result"]["structuredContent"]) == ("completed", MADE)
            async with npm_client("client legacy", desk.url, issuer.token()) as again:
                result = await again.call("task_result", task=tasks["npm sdk legacy"])
                assert result["structuredContent"] == MADE
