"""The full gate on a full stream, and calls with 64 in flight, against bare nats-py on the same server in the same run."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import nats
from nats.js.api import ConsumerConfig
from pydantic import BaseModel
from support.identity import StaticIdentity
from support.real_bus import RealBus, real_bus

from bench.report import Figure
from sealbus import Agent, Client, Context
from sealbus.agents.collecting import settle_collector
from sealbus.agents.node import Node
from sealbus.agents.worker import Worker
from sealbus.bus.tls import client_context
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.policies.embedded import EmbeddedEngine

__all__ = ["figures"]

TASKS = 8_000
CALLS = 4_096
IN_FLIGHT = 64
GATE_GOAL = 0.75
CALLS_GOAL = 0.3


class Quote(BaseModel):
    item_id: str
    padding: str = "x" * 1_000


async def figures() -> AsyncIterator[Figure]:
    """Fill the stream, then consume it: through the gate with everything on, twice, and by `fetch` and `ack`."""
    with tempfile.TemporaryDirectory() as folder:
        async with real_bus(Path(folder), "pricing", "shop-web", "bench", max_bytes=1 << 27) as bus:
            async with EmbeddedEngine.of_folder() as engine:
                client = Client.on(await bus.node("shop-web", engine))
                node = await bus.node("pricing", engine)
                settle_collector()  # as `sealbus worker run` does
                telling, ours = await _gate(client, node, status=True)
                silent, _ = await _gate(client, node, status=False)
            bare_pull, bare_requests = await _bare(bus)
    yield Figure(name="bare nats-py fetch(200) + ack", value=bare_pull, unit="/s")
    yield Figure(name="gate on a full stream, everything on", value=silent, unit="/s")
    yield Figure(name="  ratio to bare", value=silent / bare_pull, unit="x", limit=GATE_GOAL, at_least=True)
    yield Figure(name="gate that tells each task's result too", value=telling, unit="/s")
    yield Figure(name="  ratio to bare", value=telling / bare_pull, unit="x")
    yield Figure(name=f"bare nats-py requests, {IN_FLIGHT} in flight", value=bare_requests, unit="/s")
    yield Figure(name=f"calls, {IN_FLIGHT} in flight, everything on", value=ours, unit="/s")
    yield Figure(name="  ratio to bare", value=ours / bare_requests, unit="x", limit=CALLS_GOAL, at_least=True)


async def _gate(client: Client, node: Node, *, status: bool) -> tuple[float, float]:
    """Return how many tasks a second a worker takes from a full stream, and how many calls a second it then answers."""
    agent = Agent("pricing")
    done = asyncio.Event()
    handled = 0

    @agent.call("quote")
    async def quote(body: Quote, ctx: Context) -> Quote:
        del ctx
        return body

    @agent.task("quote", status=status)
    async def work(body: Quote, ctx: Context) -> None:
        nonlocal handled
        del body, ctx
        handled += 1
        if handled == TASKS:
            done.set()

    for _ in range(0, TASKS, 500):
        await asyncio.gather(*(client.submit("pricing.quote", Quote(item_id="42")) for _ in range(500)))
    stop = asyncio.Event()
    async with Worker(agent, node) as worker, asyncio.TaskGroup() as group:
        started = time.perf_counter()
        group.create_task(worker.run(stop))
        await done.wait()
        rate = TASKS / (time.perf_counter() - started)
        await worker.settle()
        calls = await _calls(client)
        stop.set()
    return rate, calls


async def _calls(client: Client) -> float:
    left = CALLS

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await client.call("pricing.quote", Quote(item_id="42"), returns=Quote)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(lane())
    return CALLS / (time.perf_counter() - started)


async def _bare(bus: RealBus) -> tuple[float, float]:
    identity = StaticIdentity(bus.ca, bus.names.id_of("bench").value)
    tls = client_context(identity.x509(), expected=frozenset({SpiffeId(bus.server.spiffe_id)}))
    connection = await nats.connect(bus.server.url, tls=tls, tls_hostname="", tls_handshake_first=True)
    try:
        stream = connection.jetstream()
        pull = await stream.pull_subscribe(
            "task.pricing.>", durable="bare", stream="TASKS", config=ConsumerConfig(max_ack_pending=20_000)
        )
        taken = 0
        started = time.perf_counter()
        while taken < TASKS:
            for message in await pull.fetch(200, timeout=5):
                await message.ack()
                taken += 1
        rate = taken / (time.perf_counter() - started)

        async def answer(message: nats.aio.msg.Msg) -> None:
            await message.respond(message.data)

        await connection.subscribe("bare.quote", cb=answer)
        left = CALLS

        async def lane() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await connection.request("bare.quote", b"x" * 1_024, timeout=5)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(lane())
        return rate, CALLS / (time.perf_counter() - started)
    finally:
        await connection.close()
