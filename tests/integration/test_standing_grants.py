"""Standing grants on real NATS, with the permissions of an agent: two processes of an edge, one of which goes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from support.edge import ENDS_SOON, edge_table
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until
from support.real_bus import real_bus

from sealbus import Agent, Context
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.background import Background

pytestmark = [pytest.mark.nats]


class Item(BaseModel):
    item_id: str = "1"


async def test_a_grant_is_done_once_by_whichever_process_is_there(tmp_path: Path) -> None:
    agent, done = Agent("inventory"), list[tuple[str, str]]()

    @agent.task("count")
    async def count(body: Item, ctx: Context) -> str:
        assert ctx.user is not None
        done.append((ctx.user.sub, ctx.user.sid))
        return body.item_id

    def asked(name: str) -> dict[str, Any]:
        soon = datetime.now(UTC) + timedelta(seconds=2)
        return {"name": name, "action": "inventory.count", "body": {}, "when": {"at": soon.isoformat()}, "grants": []}

    async with (
        LoopbackIssuer() as issuer,
        real_bus(tmp_path, "inventory", "edge", permitted=True) as bus,
        AsyncExitStack() as stack,
    ):
        table, stop = edge_table(issuer, schedules=True), asyncio.Event()
        worker = await stack.enter_async_context(Worker(agent, await bus.node("inventory", ScriptedEngine())))
        group = await stack.enter_async_context(Background())
        group.create_task(worker.run(stop))
        stack.callback(stop.set)
        gone = AsyncExitStack()
        edges = []
        for place in (stack, gone):
            node = await bus.node("edge", ScriptedEngine())
            edges.append(
                await place.enter_async_context(
                    serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY)
                )
            )
        now = int(datetime.now(UTC).timestamp())
        token = issuer.token(sub="alice", scope="sealbus:schedule", auth_time=now)
        fields = {"Authorization": f"Bearer {token}"}
        urls = [f"http://127.0.0.1:{one.port}" for one in edges]
        async with httpx2.AsyncClient(trust_env=False, timeout=60, headers=fields, verify=TRUSTS_NOBODY) as http:
            answer = await http.post(urls[1] + "/v1/schedules", json=asked("first"))
            assert answer.status_code == 201, answer.text
            await until(lambda: len(done) == 1)
            await http.post(urls[1] + "/v1/schedules", json=asked("second"))
            await gone.aclose()
            await until(lambda: len(done) == 2)
            await http.post(urls[0] + "/v1/schedules", json=asked("third"))
            shown = (await http.get(urls[0] + "/v1/schedules")).json()["schedules"]
            assert [one["name"] for one in shown] == ["third"]
            assert (await http.delete(urls[0] + "/v1/schedules/third")).status_code == 204
            assert (await http.get(urls[0] + "/v1/schedules")).json() == {"schedules": []}
        assert [sub for sub, _ in done] == ["alice"] * 2
        assert len({sid for _, sid in done}) == 2
        assert all(sid.startswith("standing-") for _, sid in done)
