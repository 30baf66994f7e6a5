"""What a message costs, counted: signatures, hashes, round trips, calls of functions, and objects that are held.

Times say on a busy machine what else it does; these numbers are the same on every run, but for functions, of which timers
call some (the limits leave one in a hundred for that). They are those of the present code, in sum, and may only be lowered.
All of it runs in one process on the broker in memory, where messages that wait come as one batch, which has one signature.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

import pytest
from pydantic import BaseModel

from sealbus import Agent, Client, Context
from sealbus.agents.dev.memory.broker import MemoryTransport
from sealbus.agents.runtime.worker import Worker
from sealbus.bus import loop_turns
from sealbus.bus.work.executor import durable
from sealbus.testing import TestBus

TASKS = 256
"""As many as a worker takes from the broker at a time."""
TOGETHER = 64
ASKING = ("publish", "read", "values", "last", "audit_stream", "created", "broker_time")
"""What waits for the server's answer."""
COUNTED = {"openssl_sha256": "hashes", "sign": "signatures", "verify": "verifications"}


class Quote(BaseModel):
    item_id: str = "42"


@pytest.fixture(autouse=True)
def nothing_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what slow processes do more: the status of a handler that takes a second, and the wait for the stops.

    A collection in a process that ran many tests before may take longer than an event loop may stand still.
    """
    monkeypatch.setattr(durable, "WORKING_AFTER", 3_600.0)
    monkeypatch.setattr(loop_turns, "STILL_WITHIN", 3_600.0)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count what this thread does within the block."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> object:
        ask = getattr(MemoryTransport, name)

        def asked(*given: object, **named: object) -> object:
            counts["round trips"] += 1
            return ask(*given, **named)

        return asked

    def seen(frame: FrameType, event: str, of: object) -> None:
        del frame
        if event == "call":
            counts["functions"] += 1
        elif event == "c_call":
            name = COUNTED.get(getattr(of, "__name__", ""))
            if name is not None:
                counts[name] += 1

    with monkeypatch.context() as patched:
        for name in ASKING:
            patched.setattr(MemoryTransport, name, counted(name))
        # A collection would finalize what other tests have left, by calls of functions.
        gc.disable()
        sys.setprofile(seen)
        try:
            yield counts
        finally:
            sys.setprofile(None)
            gc.enable()


async def submit(client: Client, number: int = TASKS) -> None:
    await asyncio.gather(*[client.submit("pricing.quote", Quote()) for _ in range(number)])


class Pricing:
    """An agent whose handlers wait while `free` is not set; `all_began` is set when `expected` of them have begun."""

    def __init__(self, expected: int, *, status: bool = True) -> None:
        self.agent = Agent("pricing")
        self.expected = expected
        self.free, self.all_began = asyncio.Event(), asyncio.Event()
        self.began = 0
        self.free.set()

        @self.agent.task("quote", status=status)
        async def quote(body: Quote, ctx: Context) -> None:
            self.began += 1
            if self.began == self.expected:
                self.all_began.set()
            await self.free.wait()

    def again(self) -> None:
        self.began = 0
        self.all_began.clear()


@asynccontextmanager
async def working(bus: TestBus, pricing: Pricing) -> AsyncGenerator[None]:
    """Run a worker of it, and settle what it did."""
    stop = asyncio.Event()
    node = (await bus.client("pricing")).node
    async with Worker(pricing.agent, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield
        await bus.idle()
        await worker.settle()
        stop.set()


def within(counts: Counter[str], limits: dict[str, int]) -> None:
    found = {name: counts[name] for name in limits}
    over = {name: (found[name], most) for name, most in limits.items() if found[name] > most}
    assert not over, f"more than before: {over} of {found}"


async def test_tasks_that_are_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestBus() as bus:
        client = await bus.client("shop-web")
        await submit(client)
        rounds = []
        for _ in range(3):
            with counting(monkeypatch) as counts:
                await submit(client)
            rounds.append(counts)
    limits = {"signatures": 1, "verifications": 1, "round trips": 1, "hashes": 2_046, "functions": 33_500}
    # A machine that stands still for a moment has timers run in between.
    within(min(rounds, key=lambda counts: counts["functions"]), limits)


@pytest.mark.parametrize(
    ("status", "limits"),
    [
        (False, {"signatures": 3, "verifications": 2, "round trips": 9, "hashes": 2_311, "functions": 68_500}),
        (True, {"signatures": 4, "verifications": 2, "round trips": 10, "hashes": 3_334, "functions": 97_100}),
    ],
)
async def test_tasks_that_are_consumed(
    monkeypatch: pytest.MonkeyPatch,
    status: bool,
    limits: dict[str, int],
) -> None:
    async with TestBus() as bus:
        await submit(await bus.client("shop-web"))
        pricing = Pricing(TASKS, status=status)
        with counting(monkeypatch) as counts:
            async with working(bus, pricing):
                await pricing.all_began.wait()
    within(counts, limits)


async def test_objects_of_tasks_that_are_being_handled() -> None:
    async with TestBus() as bus:
        client, pricing = await bus.client("shop-web"), Pricing(TOGETHER)
        held: Counter[str] = Counter()
        async with working(bus, pricing):
            for _ in range(3):  # what one round leaves behind for the next was there before the last
                pricing.again()
                pricing.free.clear()
                before = objects()
                await submit(client, TOGETHER)
                await pricing.all_began.wait()
                held = objects() - before
                pricing.free.set()
                await bus.idle()
    assert held.total() < 40 * TOGETHER, {kind: number / TOGETHER for kind, number in held.most_common(60)}


def objects() -> Counter[str]:
    """Return how many there are that the collector looks through, by type."""
    gc.collect()
    return Counter(type(found).__qualname__ for found in gc.get_objects())


@pytest.mark.parametrize(
    ("together", "limits"),
    [
        (1, {"signatures": 5, "verifications": 2, "round trips": 3, "hashes": 26, "functions": 1_512}),
        (TOGETHER, {"signatures": 5, "verifications": 2, "round trips": 3, "hashes": 1_727, "functions": 42_500}),
    ],
)
async def test_calls(monkeypatch: pytest.MonkeyPatch, together: int, limits: dict[str, int]) -> None:
    agent = Agent("pricing")

    @agent.call("quote")
    async def quote(body: Quote, ctx: Context) -> Quote:
        return body

    async with TestBus(agent) as bus:
        client = await bus.client("shop-web")

        async def some() -> None:
            await asyncio.gather(*[client.call("pricing.quote", Quote(), returns=Quote) for _ in range(together)])

        await some()
        await some()
        with counting(monkeypatch) as counts:
            await some()
    within(counts, limits)
