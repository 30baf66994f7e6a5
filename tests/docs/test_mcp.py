"""What docs/mcp.md says can be done: the project, the settings, a client's configuration, and what is then recorded."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import os
import re
import signal
import sys
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from support.ports import held_port
from support.workload_api import short_folder

from sealbus.agents.edge.egress.operation import Operation
from sealbus.agents.runtime.settings.schema import EgressTable, McpTable
from sealbus.agents.sdk.schema import AgentSchema

PAGE = (Path(__file__).parent.parent.parent / "docs" / "mcp.md").read_text()
BIN = Path(sys.executable).parent
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_settings_are_those_that_there_are() -> None:
    shown = TOML[1]
    table = McpTable.model_validate(tomllib.loads(shown)["edge"]["mcp"])
    assert table.scopes == {"depot.change": "depot:write"}
    assert set(re.findall(r"^(?:# )?(\w+) =", shown, re.MULTILINE)) == set(McpTable.model_fields)
    assert f"# sessions = {table.sessions} " in shown


def test_a_server_of_others_is_an_api_with_tools() -> None:
    table = EgressTable.model_validate(tomllib.loads(TOML[2])["egress"])
    assert table.apis["github"].tools == ("search_*", "get_issue")
    for operation in table.apis["github"].operations:
        Operation.parse(operation)


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=PIPE)
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0, command
    return out


@pytest.mark.nats
@pytest.mark.workload_api
# The package's client leaves its pipes to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*UnixReadPipeTransport:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_client_with_the_pages_configuration_uses_the_pages_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as folder:
        await uses_tools(folder, monkeypatch)
    gc.collect()


async def uses_tools(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    [first, *_] = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in first.splitlines():
        if line.startswith("cd "):
            place = place / line.removeprefix("cd ")
        elif not line.startswith("pip "):
            await run("sh", "-c", line, cwd=place)
    settings = place / "sealbus.toml"
    settings.write_text(settings.read_text() + "\n" + TOML[0])
    ports = ("--port", "0", "--edge-port", str(held_port()), "--no-console", "--no-notary", "--json")
    dev = await asyncio.create_subprocess_exec("sealbus", "dev", *ports, cwd=place, stdout=PIPE)
    assert dev.stdout is not None
    try:
        assert json.loads(await dev.stdout.readline())["ready"]
        [config, *_] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        server = json.loads(config.replace("/PROJECT", str(place)))["mcpServers"]["depot"]
        async with Client(
            stdio_client(StdioServerParameters.model_validate({"env": dict(os.environ), **server}))
        ) as client:
            tools = {one.name: one.description for one in (await client.list_tools()).tools}
            assert tools["depot_read"] == "Return an order as it is."
            # The agent starts beside the edge; a call before that is answered so.
            read = await client.call_tool("depot_read", {"order_id": "1"})
            for _ in range(300):
                if not read.is_error:
                    break
                await asyncio.sleep(0.2)
                read = await client.call_tool("depot_read", {"order_id": "1"})
            assert read.structured_content == {"order_id": "1", "quantity": 10}
            assert (await client.call_tool("depot_read", {"order_id": "2"})).is_error
        replayed = await run("sealbus", "audit", "replay", cwd=place)
    finally:
        dev.send_signal(signal.SIGINT)
        await dev.communicate()
    [shown] = re.findall(r"^```\n(ALLOW.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in shown.splitlines():
        assert line in replayed


def test_the_tours_schema_is_that_of_its_agent() -> None:
    tour = Path(__file__).parent.parent.parent / "docs" / "tour"
    spec = importlib.util.spec_from_file_location("tour_app", tour / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tour_app"] = module
    try:
        spec.loader.exec_module(module)
        assert (tour / "inventory.json").read_text() == AgentSchema.of(module.agent).text()
    finally:
        del sys.modules["tour_app"]
