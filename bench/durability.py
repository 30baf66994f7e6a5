"""The cost of syncing before acknowledging in NATS: the same work on two servers that take turns."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from bench.gate import Quote, task_rate
from bench.report import Figure
from sealbus import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import settle_collector
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

ROUNDS = 3
SUBMITTED = 2_000
IN_FLIGHT = 64
ALONE = 200

SERVERS = {"every 2 min": "", "always": ", sync_interval: always"}


async def figures() -> AsyncIterator[Figure]:
    """Submit and handle tasks with everything on; the best of each server's rounds counts."""
    # After the import of `bench.gate` above, which puts the folder of the tests on the path.
    from support.real_bus import real_bus

    rates: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(EmbeddedEngine.of_folder())
            desks: dict[str, tuple[Client, Node]] = {}
            for name, jetstream in SERVERS.items():
                where = Path(folder) / str(len(desks))
                bus = await stack.enter_async_context(
                    real_bus(where, "pricing", "shop-web", max_bytes=1 << 27, jetstream=jetstream)
                )
                desks[name] = Client.on(await bus.node("shop-web", engine)), await bus.node("pricing", engine)
            settle_collector()
            for _ in range(ROUNDS):
                for name, (client, node) in desks.items():
                    alone = await _submit(client, ALONE, 1)
                    together = await _submit(client, SUBMITTED, IN_FLIGHT)
                    rates[name].append((alone, together, await task_rate(client, node, status=True)))
    best = {name: [max(column) for column in zip(*rows, strict=True)] for name, rows in rates.items()}
    for name, (alone, together, handled) in best.items():
        beside = [
            f"{mine / lazy:.2f}x" for mine, lazy in zip((alone, together, handled), best["every 2 min"], strict=True)
        ]
        yield Figure(name=f"tasks submitted one by one, sync {name}", value=alone, unit="/s", beside=beside[0])
        yield Figure(name=f"  {IN_FLIGHT} in flight", value=together, unit="/s", beside=beside[1])
        yield Figure(name="  taken by the gate, with results", value=handled, unit="/s", beside=beside[2])


async def _submit(client: Client, count: int, in_flight: int) -> float:
    """Return how many tasks a second are acknowledged. No worker handles them: they have another verb."""

    async def lane(number: int) -> None:
        for _ in range(number, count, in_flight):
            await client.submit("nobody.quote", Quote(item_id="42"))

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(lane(number))
    return count / (time.perf_counter() - started)
