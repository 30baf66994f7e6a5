"""nats-server killed with -9 under a running edge: it says so while the server is away, and goes on when it is back."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from support.edge import edge_table
from support.engines import ScriptedEngine
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until
from support.real_bus import real_bus
from support.shop import Shop

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.runtime.worker import Worker

pytestmark = [pytest.mark.nats]

WITHIN = 60.0
CALL = "/v1/calls/pricing/quote"
TASK = "/v1/tasks/inventory/update"
BODY = {"item_id": "42"}


async def test_without_a_server_there_are_503s_and_with_it_answers_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shop, engine, stop = Shop(), ScriptedEngine(), asyncio.Event()
    async with (
        real_bus(tmp_path, "inventory", "pricing", "edge") as bus,
        LoopbackIssuer() as issuer,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        for agent in (shop.inventory, shop.pricing):
            worker = await stack.enter_async_context(Worker(agent, await bus.node(agent.name, engine)))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        edge = await stack.enter_async_context(
            serve_edge(
                edge_table(issuer),
                await bus.node("edge", engine),
                limits=EdgeLimits(call_seconds=2, submit_seconds=1, user_rate=1e6, user_burst=10**6),
                issuer_tls=TRUSTS_NOBODY,
            )
        )
        http = await stack.enter_async_context(
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            )
        )
        token = issuer.token(life=3_600)
        fields = {"Authorization": f"Bearer {token}"}
        assert (await http.post(CALL, json=BODY, headers=fields)).status_code == 200
        task = (await http.post(TASK, json=BODY, headers=fields)).json()["status_url"]
        async with http.stream("GET", f"{task}/events", headers=fields) as events:
            assert "completed" in (await events.aread()).decode()

        await bus.server.kill9()
        await until(lambda: not bus.connections["edge"].connected)
        async with asyncio.timeout(WITHIN):
            for method, path in (("POST", CALL), ("POST", TASK), ("GET", task), ("GET", f"{task}/result")):
                body = BODY if method == "POST" else None
                away = await http.request(method, path, json=body, headers=fields, timeout=WITHIN)
                assert (away.status_code, away.json()["code"]) == (503, "bus_unavailable"), (path, away.text)
                assert int(away.headers["retry-after"]) >= 1
            # A token that is not taken is told so all the same.
            refused = await http.post(CALL, json=BODY, headers={"Authorization": "Bearer x"})
            assert refused.status_code == 401

        await bus.server.restart()
        async with asyncio.timeout(WITHIN):
            for connection in bus.connections.values():
                await connection.ready(WITHIN)
            while (answer := await http.post(CALL, json=BODY, headers=fields, timeout=WITHIN)).status_code != 200:
                assert answer.status_code in (503, 504), answer.text
            again = await http.get(task, headers=fields)
            assert (again.status_code, again.json()["state"]) == (200, "completed")
            assert (await http.post(TASK, json=BODY, headers=fields)).status_code == 202
        stop.set()
    told = "\n".join(
        f"{record.getMessage()} {record.exc_text or ''}"
        for record in caplog.records
        # The test's own client says what it sends.
        if not record.name.startswith("http")
    )
    assert told
    assert not any(part in told for part in token.split("."))
    assert json.dumps(BODY) not in told
