"""The full gate on a full stream, and calls with 64 in flight, against bare nats-py on the same server in the same run."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.js.api import ConsumerConfig
from pydantic import BaseModel
from support.identity import StaticIdentity
from support.real_bus import RealBus, real_bus

from bench.report import Figure
from sealbus import Agent, Client, Context
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import Worker, settle_collector
from sealbus.bus.nats.connection.tls import client_context
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["Quote", "figures", "task_rate"]

ROUNDS = 4
TASKS = 4_000
CALLS = 2_048
IN_FLIGHT = 64
GATE_GOAL = 0.75
CALLS_GOAL = 0.3


class Quote(BaseModel):
    """A body of 1 KiB."""

    item_id: str
    padding: str = "x" * 1_000


@dataclass(slots=True)
class Rates:
    """Messages per second, one entry a round."""

    reporting: list[float] = field(default_factory=list)
    silent: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    bare_pull: list[float] = field(default_factory=list)
    bare_requests: list[float] = field(default_factory=list)


async def figures() -> AsyncIterator[Figure]:
    """Measure the gate, with everything on, and nats-py's own calls in turns; the best round of each counts.

    Other load on the machine only slows a round down, and changes little during one.
    """
    rates = Rates()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "pricing", "shop-web", "bench", max_bytes=1 << 27) as bus,
            EmbeddedEngine.of_folder() as engine,
            _bare_connection(bus) as bare,
        ):
            client = Client.on(await bus.node("shop-web", engine))
            node = await bus.node("pricing", engine)
            settle_collector()  # as `sealbus worker run` does
            for number in range(ROUNDS):
                rates.reporting.append(await task_rate(client, node, status=True))
                rates.silent.append(await task_rate(client, node, status=False))
                rates.bare_pull.append(await _bare_pull(bare, f"bare-{number}"))
                rates.calls.append(await _calls(client, node))
                rates.bare_requests.append(await _bare_requests(bare))
    bare_pull, bare_requests = max(rates.bare_pull), max(rates.bare_requests)
    silent, reporting, calls = max(rates.silent), max(rates.reporting), max(rates.calls)
    yield Figure(name="bare nats-py fetch(200) + ack", value=bare_pull, unit="/s")
    yield Figure(name="gate on a full stream, everything on", value=silent, unit="/s")
    yield Figure(name="  ratio to bare", value=silent / bare_pull, unit="x", limit=GATE_GOAL, at_least=True)
    yield Figure(name="gate that also publishes each task's result", value=reporting, unit="/s")
    yield Figure(name="  ratio to bare", value=reporting / bare_pull, unit="x")
    yield Figure(name=f"bare nats-py requests, {IN_FLIGHT} in flight", value=bare_requests, unit="/s")
    yield Figure(name=f"calls, {IN_FLIGHT} in flight, everything on", value=calls, unit="/s")
    yield Figure(name="  ratio to bare", value=calls / bare_requests, unit="x", limit=CALLS_GOAL, at_least=True)


async def task_rate(client: Client, node: Node, *, status: bool, begin: Callable[[], None] = lambda: None) -> float:
    """Fill the stream, call `begin`, and return how many of its tasks a worker handles per second."""
    agent = Agent("pricing")
    done = asyncio.Event()
    handled = 0

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
    begin()
    async with Worker(agent, node) as worker, asyncio.TaskGroup() as group:
        started = time.perf_counter()
        group.create_task(worker.run(stop))
        await done.wait()
        rate = TASKS / (time.perf_counter() - started)
        await worker.settle()
        stop.set()
    return rate


async def _calls(client: Client, node: Node) -> float:
    """Return how many calls a second a worker answers."""
    agent = Agent("pricing")

    @agent.call("quote")
    async def quote(body: Quote, ctx: Context) -> Quote:
        del ctx
        return body

    async def call() -> None:
        await client.call("pricing.quote", Quote(item_id="42"), returns=Quote)

    stop = asyncio.Event()
    async with Worker(agent, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        rate = await _in_flight(call)
        stop.set()
    return rate


async def _in_flight(call: Callable[[], Awaitable[object]]) -> float:
    left = CALLS

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(lane())
    return CALLS / (time.perf_counter() - started)


@asynccontextmanager
async def _bare_connection(bus: RealBus) -> AsyncGenerator[nats.NATS, None]:
    identity = StaticIdentity(bus.ca, bus.names.id_of("bench").value)
    tls = client_context(identity.x509(), expected=frozenset({SpiffeId(bus.server.spiffe_id)}))
    connection = await nats.connect(bus.server.url, tls=tls, tls_hostname="", tls_handshake_first=True)

    async def answer(message: nats.aio.msg.Msg) -> None:
        await message.respond(message.data)

    try:
        await connection.subscribe("bare.quote", cb=answer)
        yield connection
    finally:
        await connection.close()


async def _bare_pull(connection: nats.NATS, durable: str) -> float:
    """Return how many of the same tasks a second `fetch` and `ack` take."""
    pull = await connection.jetstream().pull_subscribe(
        "task.pricing.>", durable=durable, stream="TASKS", config=ConsumerConfig(max_ack_pending=20_000)
    )
    taken = 0
    started = time.perf_counter()
    while taken < TASKS:
        for message in await pull.fetch(200, timeout=5):
            await message.ack()
            taken += 1
    rate = taken / (time.perf_counter() - started)
    await pull.unsubscribe()
    return rate


async def _bare_requests(connection: nats.NATS) -> float:
    async def call() -> None:
        await connection.request("bare.quote", b"x" * 1_024, timeout=5)

    return await _in_flight(call)
