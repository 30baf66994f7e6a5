"""The MCP server as part of an edge: both generations at one place, for as long as the edge runs."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import pytest
from support.mcp_desk import Workshop, mcp_desk

from sealbus.agents.edge.mcp.server import open_mcp
from sealbus.envelopes.errors import ConfigurationError


async def test_a_client_that_leaves_the_choice_gets_the_newer_protocol(tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, Workshop().agent) as desk, desk.client("auto") as client:
        assert client.protocol_version == "2026-07-28"


async def test_what_is_raised_beside_it_comes_out_as_itself(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with mcp_desk(tmp_path, Workshop().agent):
            raise KeyError("mine")


async def test_cancellation_goes_through(tmp_path: Path) -> None:
    async def run() -> None:
        async with mcp_desk(tmp_path, Workshop().agent):
            open_.set()
            await asyncio.Event().wait()

    open_ = asyncio.Event()
    running = asyncio.create_task(run())
    await open_.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_an_edge_that_stops_ends_its_sessions(tmp_path: Path) -> None:
    async with mcp_desk(tmp_path, Workshop().agent) as desk, desk.client("legacy") as client:
        await client.list_tools()
        async with desk.door.another() as another:
            assert another.edge.port != desk.door.edge.port


async def test_the_package_says_where_it_complained_and_not_of_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with mcp_desk(tmp_path, Workshop().agent):
        logging.getLogger("mcp.server.lowlevel").error("marker", exc_info=ValueError("marker"))
        logging.getLogger("mcp.server.lowlevel").info("marker")
    [told] = [one for one in caplog.records if one.name == "sealbus.agents.edge.foreign_logs"]
    assert "error at test_server:" in told.getMessage()
    assert "marker" not in caplog.text


async def test_without_the_package_the_edge_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, open_mcp.__module__, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'sealbus\[mcp\]'"):
        async with mcp_desk(tmp_path, Workshop().agent):
            pass
