"""The whole way on real parts: a login's token, the edge over HTTP, NATS, an agent, and back to the user."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from support.issuer import TRUSTS_NOBODY
from support.workload_api import short_folder

from sealbus import Agent, Client
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.edge.edge import open_edge
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.settings.source import Flag
from sealbus.agents.runtime.worker import Worker

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

SECONDS = 60.0


@asynccontextmanager
async def environment() -> AsyncIterator[Environment]:
    with short_folder() as folder:
        options = DevOptions(
            folder=folder / "dev", agents=("shop-web", "planner", "inventory", "pricing"), port=0, max_bytes=1 << 24
        )
        async with open_environment(options) as running:
            yield running


async def token(running: Environment, user: str = "alice", **asked: str) -> str:
    assert running.settings.dev.access is not None
    access = read_access(running.settings.dev.access)
    answer = await asyncio.to_thread(fetch_token, access, {"user": user, "client": "dev", **asked})
    return str(answer["access_token"])


@asynccontextmanager
async def agents(running: Environment, *wanted: Agent) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for agent in wanted:
            node = await stack.enter_async_context(open_node(agent.name, running.settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        yield
        stop.set()


def http(port: int) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=TRUSTS_NOBODY, timeout=SECONDS
    )


async def test_a_user_submits_calls_and_follows_and_a_backend_exchanges_the_token() -> None:
    async with environment() as running, http(running.edge.port) as web:
        fields = {"Authorization": f"Bearer {await token(running)}"}
        body = {"item_id": "42", "quantity": 3}
        taken = await web.post("/v1/tasks/inventory/update", json=body, headers=fields)
        assert taken.status_code == 202, taken.text
        url = taken.json()["status_url"]
        assert (await web.get(url, headers=fields)).json()["state"] == "submitted"
        async with agents(running, pricing.agent, inventory.agent):
            async with asyncio.timeout(SECONDS), web.stream("GET", f"{url}/events", headers=fields) as events:
                told = (await events.aread()).decode()
            assert '"completed"' in told, told
            item = await web.post("/v1/calls/inventory/read", json={"item_id": "42"}, headers=fields)
            assert (item.status_code, item.json()["quantity"]) == (200, 3)
            stranger = {"Authorization": f"Bearer {await token(running, 'carol')}"}
            denied = await web.post("/v1/calls/inventory/read", json={"item_id": "42"}, headers=stranger)
            assert (denied.status_code, denied.json()["code"]) == (403, "denied")
            assert "reasons" not in denied.json()
            assert (await web.get(url, headers=stranger)).status_code == 404
            missing = await web.post("/v1/calls/inventory/read", json={"item_id": "0"}, headers=fields)
            assert (missing.status_code, missing.json()["code"]) == (404, "resource_not_found")
            async with Client("shop-web", settings=running.settings) as backend:
                user = await backend.user_context(await token(running))
                found = await backend.call(inventory.read, inventory.Read(item_id="42"), user=user)
                assert found.quantity == 3
        # Another process of the same edge knows the task as well.
        settings = load_settings(
            running.settings_file,
            environment={},
            flags=[
                Flag(option="test", key="edge.address", value="127.0.0.1:0"),
                Flag(option="test", key="edge.token_service", value="127.0.0.1:0"),
            ],
        )
        async with open_edge(settings) as other, http(other.port) as elsewhere:
            result = await elsewhere.get(f"{url}/result", headers=fields)
            assert (result.status_code, result.json()["quantity"]) == (200, 3)


async def test_the_command_serves_and_stops_on_sigterm() -> None:
    async with environment() as running:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "sealbus", "edge", "serve", "--json", "--address", "127.0.0.1:0"),
            *("--config", str(running.settings_file)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "SEALBUS_EDGE__TOKEN_SERVICE": "127.0.0.1:0"},
        )
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            ready = httpx2.Response(200, content=await process.stdout.readline()).json()
            assert ready["identity"] == "spiffe://example.org/edge"
            async with http(ready["port"]) as web:
                metadata = (await web.get("/.well-known/oauth-protected-resource")).json()
                assert metadata["resource"] == running.settings.edge.resource
                assert metadata["authorization_servers"] == [running.idp.issuer]
                refused = await web.post("/v1/calls/inventory/read", json={})
                assert refused.status_code == 401
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
