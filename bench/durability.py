"""The cost of syncing before acknowledging in NATS: the same work on two servers that take turns."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bench.gate import QUOTE, TASKS, drain, fill
from bench.report import Figure
from bench.rounds import Rounds, in_flight
from sealbus import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import settle_collector
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

ROUNDS = 3
ALONE = 200

SERVERS = {"every 2 min": "", "always": ", sync_interval: always"}


async def figures() -> AsyncIterator[Figure]:
    """Submit and handle tasks with everything on."""
    # After the import of `bench.gate` above, which puts the folder of the tests on the path.
    from support.real_bus import real_bus

    rounds = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(EmbeddedEngine.of_folder())
            desks: dict[str, tuple[int, Client, Node]] = {}
            for name, jetstream in SERVERS.items():
                where = Path(folder) / str(len(desks))
                bus = await stack.enter_async_context(
                    real_bus(where, "pricing", "shop-web", max_bytes=1 << 28, jetstream=jetstream)
                )
                desks[name] = (
                    bus.server.pid,
                    Client.on(await bus.node("shop-web", engine)),
                    await bus.node("pricing", engine),
                )
            settle_collector()
            for _ in range(ROUNDS):
                for name, (server, client, node) in desks.items():
                    with rounds.measured(f"alone, {name}", ALONE, server=server):
                        await in_flight(partial(_nobody, client), ALONE, 1)
                    with rounds.measured(f"submitted, {name}", TASKS, server=server):
                        await fill(client)
                    measured = rounds.measured(f"handled, {name}", TASKS, server=server)
                    await drain(node, status=True, measured=measured)
    works = {"alone": "tasks submitted one by one", "submitted": "tasks submitted, many in flight"}
    works["handled"] = "tasks taken by the gate, with results"
    for work, label in works.items():
        yield rounds.ratio(f"{label}: sync always / every 2 min", f"{work}, always", f"{work}, every 2 min")
    for work, label in works.items():
        for name in SERVERS:
            yield rounds.rate(f"{work}, {name}", label=f"{label}, sync {name}")


async def _nobody(client: Client) -> None:
    """Submit a task that no worker handles."""
    await client.submit("nobody.quote", QUOTE)
