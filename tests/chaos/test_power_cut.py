"""The power fails: what nats-server acknowledged must still be there, and with the server's own defaults it is not."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.power_cut import LossyDisk
from support.real_bus import real_bus

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node

pytestmark = [pytest.mark.nats, pytest.mark.slow]

TASKS = 100
CUTS = 3


@pytest.mark.parametrize("always", [True, False])
async def test_what_was_acknowledged_survives_exactly_if_the_server_syncs_first(tmp_path: Path, always: bool) -> None:
    async with AsyncExitStack() as stack:
        disk = await stack.enter_async_context(LossyDisk(tmp_path / "disk", tmp_path / "nats" / "store"))
        jetstream = ", sync_interval: always" if always else ""
        bus = await stack.enter_async_context(real_bus(tmp_path / "nats", "shop-web", jetstream=jetstream))
        await bus.server.stop()
        # The streams themselves are old: what is lost afterwards is what was acknowledged just before.
        await asyncio.to_thread(disk.sync)
        await bus.server.restart()
        node = await bus.node("shop-web", ScriptedEngine())
        client = Client.on(node)
        user = bus.user("alice", "shop-web")
        for _ in range(CUTS):
            async with asyncio.TaskGroup() as group:
                sent = [
                    group.create_task(client.submit("inventory.update", {"n": number}, user=user))
                    for number in range(TASKS)
                ]
            await bus.server.kill9()
            await disk.lose_power()
            await bus.server.restart()
            await bus.connections["shop-web"].ready(30)
            found = await stored(node)
            lost = {task.result().message_id for task in sent} - found
            assert bool(lost) is not always, f"{len(lost)} of {TASKS} lost, sync_interval always: {always}"
        await bus.server.stop()


async def stored(node: Node) -> set[str]:
    return {
        delivery.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
        async for batch in node.transport.read("TASKS", ["task.>"])
        for delivery in batch
    }
