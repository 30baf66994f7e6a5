"""A real nats-server whose disk is full: readiness names it, while the server still answers everything else."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Price, Shop, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.health import Readiness
from sealbus.agents.runtime.worker import Worker
from sealbus.envelopes.errors import SealbusError

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk"),
]

DISK = "16m"
KNOWN_WITHIN = 60.0
"""Seconds after which a test has hung; an attempt takes 2, and somebody looks every 2."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The server's folder, with a store that is a small disk of its own."""
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(store)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(store)], check=True)


def fill(store: Path) -> Path:
    """Leave no byte free on the disk under `store`."""
    ballast = store / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))
    return ballast


@asynccontextmanager
async def looking(client: Client) -> AsyncIterator[Readiness]:
    await client.node.clocks.settle()
    readiness = Readiness(client.node)
    running = asyncio.create_task(readiness.watch_engine())
    try:
        yield readiness
    finally:
        running.cancel()
        await asyncio.wait({running})


@pytest.mark.slow
async def test_a_full_disk_is_named_by_who_stores_and_forgotten_with_it(disk: Path) -> None:
    shop = Shop()
    async with real_bus(disk, "shop-web", "pricing") as bus:
        node = await bus.node("pricing", ScriptedEngine())
        client = Client.on(await bus.node("shop-web", ScriptedEngine()))
        async with Worker(shop.pricing, node) as worker, looking(client) as requester:
            stop = asyncio.Event()
            running = asyncio.create_task(worker.run(stop))
            await until(lambda: not worker.not_ready() and not requester.reasons())
            assert (await quote(client)).price == 7
            ballast = fill(disk / "store")
            asking = [
                asyncio.create_task(one) for one in (quote(client), client.submit("pricing.later", Update(item_id="1")))
            ]
            for readiness, stream in ((worker.not_ready, "audit"), (requester.reasons, "task")):
                await until(lambda readiness=readiness: "disk" in readiness(), seconds=KNOWN_WITHIN)  # type: ignore[misc]
                said = readiness()["disk"]
                assert said.startswith("nats-server answers but does not store ")
                assert f"{stream}.*" in said
                assert "its disk is full or failing; make room, then restart it" in said
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await mended(bus, ballast)
            await again(client)
            await until(lambda: "disk" not in worker.not_ready(), seconds=KNOWN_WITHIN)
            await until(lambda: "disk" not in requester.reasons(), seconds=KNOWN_WITHIN)
            stop.set()
            await running


async def mended(bus: RealBus, ballast: Path) -> None:
    """As the line says: room alone does not help."""
    await asyncio.to_thread(ballast.unlink)
    await bus.server.stop()
    await bus.server.restart()


async def again(client: Client) -> None:
    """Store a task and get an answer, as soon as the server is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.submit("pricing.later", Update(item_id="1"))
                await quote(client)
            except SealbusError:
                await asyncio.sleep(0.1)
            else:
                return


async def quote(client: Client) -> Price:
    return await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=20)
