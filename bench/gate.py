"""Tasks and calls with everything on, beside bare nats-py and FastStream, in turns on one server in one run.

FastStream consumes as its documents show a pull subscriber: a typed handler for each message, 200 to a request. Its
messages are plain ones of the same body. Bare nats-py takes the very tasks of the same round.
"""

from __future__ import annotations

import asyncio
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from itertools import count
from pathlib import Path
from secrets import token_hex

import nats
from faststream.nats import JStream, NatsBroker, NatsSecurity, PullSub
from nats.js.api import ConsumerConfig, DeliverPolicy
from pydantic import BaseModel
from support.identity import StaticIdentity
from support.real_bus import RealBus, real_bus

from bench.backtest import has_engine_wheel
from bench.report import Figure
from bench.rounds import Rounds, in_flight
from sealbus import Agent, Client, Context
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import Worker, settle_collector
from sealbus.bus.nats.connection.tls import client_context
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.native import NativeEngine

__all__ = ["QUOTE", "TASKS", "Quote", "drain", "figures", "fill"]

ROUNDS = 7
TASKS = 4_000
CALLS = 2_048
ALONE = 200
IN_FLIGHT = 64
SUBMITTING = 256
"""Submissions in flight."""
BATCH = 200
WITHIN = 60.0


class Quote(BaseModel):
    """A body of 1 KiB."""

    item_id: str
    padding: str = "x" * 1_000


QUOTE = Quote(item_id="42")


async def figures() -> AsyncIterator[Figure]:
    """Measure all in turns."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "pricing", "shop-web", "bench", max_bytes=1 << 28, apart=False) as bus,
            EmbeddedEngine.of_folder() as engine,
            _native() as beside,
            _bare(bus) as bare,
        ):
            rounds = Rounds(bus.server.pid)
            client, node = Client.on(await bus.node("shop-web", engine)), await bus.node("pricing", engine)
            by_wheel = await bus.node("pricing", beside) if beside is not None else None
            settle_collector()  # as `sealbus worker run` does
            for number in range(-1, ROUNDS):
                # What the first one brings into caches and imports is in none of the figures.
                measured = rounds if number >= 0 else Rounds()
                await _tasks(measured, client, node, bare, bus)
                if by_wheel is not None:
                    await fill(client)
                    await drain(by_wheel, status=False, measured=measured.measured("native", TASKS))
                await _calls(measured, client, node, bare)
    yield rounds.ratio("tasks consumed, everything on / FastStream", "consumed", "faststream", guard=0.65, goal=1.1)
    yield rounds.ratio("  / bare nats-py", "consumed", "fetched", guard=0.22, goal=0.5)
    if beside is not None:
        yield rounds.ratio("  with the engine wheel / FastStream", "native", "faststream", guard=0.85, goal=1.4)
        yield rounds.ratio("  with the engine wheel / bare nats-py", "native", "fetched", guard=0.3, goal=0.65)
    yield rounds.ratio("  with the result of each published / bare nats-py", "reported", "fetched")
    yield rounds.ratio("  FastStream / bare nats-py", "faststream", "fetched")
    yield rounds.ratio("  FastStream with lists for its handler / bare nats-py", "faststream batch", "fetched")
    yield rounds.ratio(f"calls, {IN_FLIGHT} in flight / bare requests", "calls", "requests", guard=0.07, goal=0.15)
    yield rounds.times("a lone call, p50 / a bare request", "lone call", "lone request", guard=15.0, goal=2.3)
    yield rounds.ratio(
        f"tasks submitted, {SUBMITTING} in flight / js.publish", "submitted", "published", guard=0.45, goal=1.0
    )
    yield rounds.rate("consumed", label="tasks consumed, everything on")
    if beside is not None:
        yield rounds.rate("native", label="tasks consumed, with the engine wheel")
    yield rounds.rate("reported", label="tasks consumed, with the result of each published")
    yield rounds.rate("fetched", label=f"bare nats-py: fetch({BATCH}), ack")
    yield rounds.rate("faststream", label=f"FastStream: PullSub(batch_size={BATCH})")
    yield rounds.rate("faststream batch", label=f"FastStream: PullSub(batch_size={BATCH}, batch=True)")
    yield rounds.rate("calls", label=f"calls, {IN_FLIGHT} in flight")
    yield rounds.rate("requests", label=f"bare requests, {IN_FLIGHT} in flight")
    yield rounds.latency("lone call", label="a lone call, p50")
    yield rounds.latency("lone request", label="a lone bare request, p50")
    yield rounds.rate("submitted", label=f"tasks submitted, {SUBMITTING} in flight")
    yield rounds.rate("published", label=f"js.publish, {SUBMITTING} in flight")


@asynccontextmanager
async def _native() -> AsyncGenerator[NativeEngine | None, None]:
    """Open the native engine, if its wheel is installed."""
    if not has_engine_wheel():
        yield None
        return
    async with NativeEngine.of_folder() as engine:
        yield engine


async def _tasks(rounds: Rounds, client: Client, node: Node, bare: nats.NATS, bus: RealBus) -> None:
    """Do one round of what is stored, and of what consumes it."""
    name, stream = token_hex(4), bare.jetstream()
    with rounds.measured("submitted", TASKS):
        await fill(client)
    first = (await stream.stream_info("TASKS")).state.last_seq - TASKS + 1
    await drain(node, status=False, measured=rounds.measured("consumed", TASKS))
    await _fetch(rounds, bare, name, first)
    await fill(client)
    await drain(node, status=True, measured=rounds.measured("reported", TASKS))
    await stream.purge_stream("PLAIN")
    body, headers = QUOTE.model_dump_json().encode(), {"content-type": "application/json"}

    async def publish() -> None:
        await stream.publish("plain.quote", body, timeout=WITHIN, headers={"Nats-Msg-Id": token_hex(16), **headers})

    with rounds.measured("published", TASKS):
        await in_flight(publish, TASKS, SUBMITTING)
    await _faststream(rounds, bus, f"{name}-one")
    await _faststream(rounds, bus, f"{name}-batch", batch=True)


async def fill(client: Client) -> None:
    """Submit the tasks of a round."""
    await in_flight(lambda: client.submit("pricing.quote", QUOTE), TASKS, SUBMITTING)


async def drain(node: Node, *, status: bool, measured: AbstractContextManager[None] | None = None) -> None:
    """Run a worker until the tasks of a round are handled; `measured` is entered when it starts, and left at the last."""
    agent, done, handled = Agent("pricing"), asyncio.Event(), count(1)

    @agent.task("quote", status=status)
    async def work(body: Quote, ctx: Context) -> None:
        del body, ctx
        if next(handled) == TASKS:
            done.set()

    stop = asyncio.Event()
    async with Worker(agent, node) as worker, asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
        with measured or nullcontext():
            group.create_task(worker.run(stop))
            await done.wait()
        await worker.settle()
        stop.set()


async def _calls(rounds: Rounds, client: Client, node: Node, bare: nats.NATS) -> None:
    """Do one round of calls and of bare requests, alone and many at a time."""
    agent = Agent("pricing")

    @agent.call("quote")
    async def quote(body: Quote, ctx: Context) -> Quote:
        del ctx
        return body

    async def call() -> None:
        await client.call("pricing.quote", QUOTE, returns=Quote)

    body = QUOTE.model_dump_json().encode()

    async def request() -> None:
        await bare.request("bare.quote", body, timeout=WITHIN)

    stop = asyncio.Event()
    async with Worker(agent, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        for name, one in (("call", call), ("request", request)):
            with rounds.measured(f"{name}s", CALLS):
                await in_flight(one, CALLS, IN_FLIGHT)
            await _alone(rounds, f"lone {name}", one)
        stop.set()


async def _alone(rounds: Rounds, name: str, call: Callable[[], Awaitable[None]]) -> None:
    """Measure the median of one after the other; the server's time is that of all of them."""
    taken, all_of_them = [], Rounds(rounds.server)
    with all_of_them.measured(name, ALONE):
        for _ in range(ALONE):
            began = time.perf_counter()
            await call()
            taken.append(time.perf_counter() - began)
    [cost] = all_of_them.costs.get(name, [None])
    rounds.add(name, statistics.median(taken), server=cost)


@asynccontextmanager
async def _bare(bus: RealBus) -> AsyncGenerator[nats.NATS, None]:
    """Connect twice with nats-py alone: one answers requests; yield the other. Add a stream for plain messages."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(2):
            one = await nats.connect(bus.server.url, tls=_tls(bus), tls_hostname="", tls_handshake_first=True)
            stack.push_async_callback(one.close)
            connections.append(one)
        asking, answering = connections

        async def answer(message: nats.aio.msg.Msg) -> None:
            await message.respond(message.data)

        await answering.subscribe("bare.quote", cb=answer)
        await answering.flush()
        await asking.jetstream().add_stream(name="PLAIN", subjects=["plain.>"])
        yield asking


def _tls(bus: RealBus) -> ssl.SSLContext:
    identity = StaticIdentity(bus.ca, bus.names.id_of("bench").value)
    return client_context(identity.x509(), expected=frozenset({SpiffeId(bus.server.spiffe_id)}))


async def _fetch(rounds: Rounds, connection: nats.NATS, durable: str, first: int) -> None:
    """Fetch and acknowledge the tasks from the stream's place `first` on."""
    pull = await connection.jetstream().pull_subscribe(
        "task.pricing.>",
        durable=durable,
        stream="TASKS",
        config=ConsumerConfig(
            max_ack_pending=20_000, deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=first
        ),
    )
    taken = 0
    with rounds.measured("fetched", TASKS):
        while taken < TASKS:
            for message in await pull.fetch(BATCH, timeout=5):
                await message.ack()
                taken += 1
    await pull.unsubscribe()


async def _faststream(rounds: Rounds, bus: RealBus, durable: str, *, batch: bool = False) -> None:
    """Consume the plain messages, one by one or in lists; each is acknowledged after its handler by the package itself."""
    security = NatsSecurity(ssl_context=_tls(bus), tls_hostname="", tls_handshake_first=True)
    broker = NatsBroker(bus.server.url, security=security, logger=None)
    taken, done = 0, asyncio.Event()
    subscribed = broker.subscriber(
        "plain.quote",
        durable=durable,
        stream=JStream("PLAIN", declare=False),
        pull_sub=PullSub(batch_size=BATCH, batch=batch),
    )

    def took(number: int) -> None:
        nonlocal taken
        taken += number
        if taken == TASKS:
            done.set()

    async def one(body: Quote) -> None:
        del body
        took(1)

    async def several(bodies: list[Quote]) -> None:
        took(len(bodies))

    subscribed(several if batch else one)
    async with asyncio.timeout(WITHIN):
        await broker.connect()
        with rounds.measured("faststream batch" if batch else "faststream", TASKS):
            await broker.start()
            await done.wait()
        await broker.stop()
