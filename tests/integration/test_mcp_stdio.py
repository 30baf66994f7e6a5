"""`sealbus mcp` started by an MCP client beside `sealbus dev`, and what the evidence says of it."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from support.workload_api import short_folder

from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.dev.settings_file import read_declared
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.schema import AgentSchema

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

PROJECT = """
[edge]
schemas = ["{schema}"]

[edge.mcp]
actions = ["inventory.read", "inventory.update"]
"""


# The package's client leaves its pipes to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*UnixReadPipeTransport:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_desktop_client_uses_tools_as_the_person_who_is_logged_in(tmp_path: Path) -> None:
    schema = tmp_path / "inventory.json"
    schema.write_text(AgentSchema.of(inventory.agent).text())
    project = tmp_path / "sealbus.toml"
    project.write_text(PROJECT.format(schema=schema))
    stop = asyncio.Event()
    with short_folder() as folder:
        options = DevOptions(
            folder=folder / "dev",
            agents=("shop-web", "planner", "inventory", "pricing"),
            declared=read_declared(project),
            port=0,
            max_bytes=1 << 24,
        )
        async with open_environment(options) as running, AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for agent in (pricing.agent, inventory.agent):
                node = await stack.enter_async_context(open_node(agent.name, running.settings))
                worker = await stack.enter_async_context(Worker(agent, node))
                group.create_task(worker.run(stop))
                await worker.ready.wait()

            def started(user: str) -> StdioServerParameters:
                arguments = ["-m", "sealbus", "mcp", "--user", user, "--config", str(running.settings_file)]
                return StdioServerParameters(command=sys.executable, args=arguments)

            for mode in ("auto", "legacy"):
                async with Client(stdio_client(started("alice")), mode=mode) as client:
                    tools = {one.name for one in (await client.list_tools()).tools}
                    assert tools == {"inventory_read", "inventory_update", "task_result"}
                    updated = await client.call_tool("inventory_update", {"item_id": "42", "quantity": 3})
                    assert not updated.is_error, updated
                    read = await client.call_tool("inventory_read", {"item_id": "42"})
                    assert read.structured_content is not None
                    assert read.structured_content["quantity"] == 3
            async with Client(stdio_client(started("carol"))) as client:
                denied = await client.call_tool("inventory_read", {"item_id": "42"})
                assert denied.is_error
            replay = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sealbus", "audit", "replay", "--config", str(running.settings_file)),
                stdout=asyncio.subprocess.PIPE,
            )
            said = (await replay.communicate())[0].decode()
            stop.set()
    gc.collect()
    assert "inventory.read           from /edge                for alice by dev via mcp" in said
    assert "for carol by dev via mcp not_owner" in said
