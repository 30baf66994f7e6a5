"""NATS killed, worker and edge stopped and started anew: clients of A2A lose their streams and find their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from a2a.types import GetTaskRequest, ListTasksRequest, SubscribeToTaskRequest, Task, TaskState
from google.protobuf.json_format import MessageToDict
from support.a2a import BINDINGS, Lines, asking, card_key, card_url, client_of, told, written_schemas
from support.a2a_js import a2a_js_client
from support.edge import ENDS_SOON, edge_table
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.ports import held_port
from support.real_bus import RealBus, real_bus

from sealbus import Agent
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.runtime.settings.schema import EdgeTable
from sealbus.agents.runtime.worker import Worker

pytestmark = [pytest.mark.nats]

WITHIN = 60.0
LINES: list[object] = ["line 0", "line 1"]


def data_of(task: Task) -> list[object]:
    return [MessageToDict(part.data) for part in task.artifacts[0].parts]


class Deployment:
    """An edge and an agent on a real server, each of which a test stops and starts."""

    def __init__(self, bus: RealBus, table: EdgeTable) -> None:
        self._bus = bus
        self._table = table

    @asynccontextmanager
    async def edge(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            node = await replace(self._bus, stack=stack).node("edge", ScriptedEngine())
            await stack.enter_async_context(
                serve_edge(self._table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY)
            )
            yield

    @asynccontextmanager
    async def worker(self, agent: Agent) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            node = await replace(self._bus, stack=stack).node(agent.name, ScriptedEngine())
            worker = await stack.enter_async_context(Worker(agent, node))
            running = group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield
            stop.set()
            await running

    async def restart_server(self) -> None:
        await self._bus.server.kill9()
        await self._bus.server.restart()


@asynccontextmanager
async def deployed(
    folder: Path, agents: Sequence[Agent], issuer: LoopbackIssuer
) -> AsyncIterator[tuple[Deployment, str]]:
    port, grpc_port = held_port(), held_port()
    origin, names = f"http://127.0.0.1:{port}", [one.name for one in agents]
    table = edge_table(
        issuer,
        address=f"127.0.0.1:{port}",
        resource=origin,
        row={"audiences": ("https://edge.example/api",)},
        actions=tuple(f"{name}.*" for name in names),
        schemas=written_schemas(folder, agents),
        a2a={"agents": tuple(names), "grpc": f"127.0.0.1:{grpc_port}", "card_key": card_key(folder).file},
    )
    async with real_bus(folder, "edge", *names, permitted=True) as bus:
        yield Deployment(bus, table), origin


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_stream_is_lost_and_the_result_found(tmp_path: Path, binding: str) -> None:
    lines = Lines()
    lines.go_on.set()
    async with LoopbackIssuer() as issuer, deployed(tmp_path, [lines.agent], issuer) as (deployment, origin):
        async with AsyncExitStack() as first:
            await first.enter_async_context(deployment.edge())
            client = await first.enter_async_context(client_of(card_url(origin, "writer"), binding, issuer.token()))
            async with deployment.worker(lines.agent):
                done, *_ = await told(client.send_message(asking("writer.write", {"value": 2})))
            responses = client.send_message(asking("writer.write", {"value": 2}, context_id="c-1"))
            open_task = (await anext(responses)).task
            waiting = asyncio.ensure_future(told(responses))
            await deployment.restart_server()
        # The edge has ended its streams: none of them said that the task has.
        async with asyncio.timeout(WITHIN):
            [ended] = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(ended, BaseException) or not any(
            one.status_update.status.state == TaskState.TASK_STATE_COMPLETED for one in ended
        )
        async with (
            deployment.edge(),
            client_of(card_url(origin, "writer"), binding, issuer.token()) as again,
            deployment.worker(lines.agent),
        ):
            found = await again.get_task(GetTaskRequest(id=done.task.id))
            assert data_of(found) == LINES
            assert {one.id for one in (await again.list_tasks(ListTasksRequest())).tasks} == {
                done.task.id,
                open_task.id,
            }
            async with asyncio.timeout(WITHIN):
                found = await again.get_task(GetTaskRequest(id=open_task.id))
                if found.status.state != TaskState.TASK_STATE_COMPLETED:
                    await told(again.subscribe(SubscribeToTaskRequest(id=open_task.id)))
                    found = await again.get_task(GetTaskRequest(id=open_task.id))
            assert (found.status.state, found.context_id) == (TaskState.TASK_STATE_COMPLETED, "c-1")
            assert data_of(found) == LINES


@pytest.mark.idp
@pytest.mark.parametrize("binding", BINDINGS)
async def test_the_javascript_client_finds_its_result(tmp_path: Path, binding: str) -> None:
    lines, key = Lines(), card_key(tmp_path)
    lines.go_on.set()
    async with LoopbackIssuer() as issuer, deployed(tmp_path, [lines.agent], issuer) as (deployment, origin):
        async with AsyncExitStack() as first:
            await first.enter_async_context(deployment.edge())
            url = card_url(origin, "writer")
            client = await first.enter_async_context(a2a_js_client(url, binding, issuer.token(), key.public))
            await client.say("stream", MessageToDict(asking("writer.write", {"value": 2})))
            task = (await client.told("event"))["task"]
            await deployment.restart_server()
        async with (
            deployment.edge(),
            a2a_js_client(url, binding, issuer.token(), key.public) as client,
            deployment.worker(lines.agent),
        ):
            found = await client.asked("get", {"id": task["id"]})
            async with asyncio.timeout(WITHIN):
                while found["status"]["state"] != "TASK_STATE_COMPLETED":
                    await client.say("subscribe", {"id": task["id"]})
                    while "event" in await client.next():
                        pass
                    found = await client.asked("get", {"id": task["id"]})
            assert [one["data"] for one in found["artifacts"][0]["parts"]] == LINES
