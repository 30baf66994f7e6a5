"""Streams are checked again whenever a connection is made anew: a server that came back otherwise ends the worker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.real_bus import real_bus

from sealbus.bus.streams.check import StreamGuard
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.errors import ConfigurationError

pytestmark = [pytest.mark.nats]


async def test_a_stream_that_was_changed_meanwhile_ends_the_guard(tmp_path: Path) -> None:
    async with real_bus(tmp_path, "inventory") as bus:
        await bus.node("inventory", ScriptedEngine())
        connection = bus.operator
        streams = declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26})
        guard = StreamGuard(streams, connection)
        running = asyncio.ensure_future(guard.check_links())
        await connection.attach(guard)
        async with asyncio.timeout(60):
            await guard.checked.wait()
        tasks = next(one for one in streams if one.name == "TASKS")
        changed = {**tasks.config(), "duplicate_window": 1_000_000_000}
        answer = json.loads(await connection.jetstream("$JS.API.STREAM.UPDATE.TASKS", json.dumps(changed).encode()))
        assert "error" not in answer, answer
        await bus.server.kill9()
        await bus.server.restart()
        with pytest.raises(ConfigurationError, match="TASKS"):
            async with asyncio.timeout(60):
                await running
