"""Two versions of one agent side by side on a real server, the new one with a further verb: no task and no call is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client, Context, RetryPolicy
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.nats.api import api
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State

pytestmark = [pytest.mark.nats]

TASKS = 200

TOGETHER = 100

POLICY = RetryPolicy(initial_interval=0.05, jitter=0.0, maximum_attempts=3)

PUT_OFF = 8
"""Times that a task is put off before a version is there that has its verb: more than it may be attempted."""

WAITING = 1_000
"""Tasks of a verb that no process has when they are sent."""


class Item(BaseModel):
    number: int


class Version:
    """One version of the agent `shop`, and what it has handled."""

    def __init__(self, *verbs: str, failing: int = 0) -> None:
        self.failing = failing
        """How many of the first attempts fail."""
        self.handled: list[tuple[str, int]] = []
        self.agent = Agent("shop")
        for verb in verbs:
            self._declare(verb)

    def _declare(self, verb: str) -> None:
        @self.agent.task(verb, retry=POLICY)
        async def handle(body: Item, ctx: Context) -> Item:
            self.handled.append((verb, body.number))
            if len(self.handled) <= self.failing:
                raise ValueError
            return body

        @self.agent.call(f"ask-{verb}")
        async def ask(body: Item, ctx: Context) -> Item:
            return body

        @self.agent.on(f"event.client.{verb}")
        async def heard(body: Item, ctx: Context) -> None:
            self.handled.append((f"event {verb}", body.number))


def working(
    bus: RealBus, *versions: Version, limits: WorkerLimits | None = None
) -> AbstractAsyncContextManager[list[Worker]]:
    """Run each version as a replica of its own."""
    return bus.workers(*[version.agent for version in versions], limits=limits)


async def result(handle: TaskHandle) -> str:
    """Return what came of a task."""
    try:
        await handle.result(Item)
    except RemoteError as error:
        return str(error.code)
    return "done"


async def results(handles: Iterable[TaskHandle]) -> Counter[str]:
    """Count what came of each task."""
    return Counter(await asyncio.gather(*[result(handle) for handle in handles]))


async def first_result(handles: Iterable[TaskHandle]) -> str:
    """Return what came of the task that ends first."""
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(result(handle)) for handle in handles]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    return next(iter(done)).result()


async def test_a_rolling_upgrade_with_a_new_verb_loses_nothing_under_load(tmp_path: Path) -> None:
    old, new = Version("pack"), Version("pack", "send")
    async with real_bus(tmp_path, "shop", "client") as bus, working(bus, old, new) as workers:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        handles = []
        for number in range(TASKS):
            handles.append(await client.submit("shop.pack", Item(number=number)))
            handles.append(await client.submit("shop.send", Item(number=number)))
            await client.emit("send", Item(number=number))
            answer = await client.call("shop.ask-send", Item(number=number), returns=Item, timeout=60)
            assert answer == Item(number=number)
        assert await results(handles) == {"done": 2 * TASKS}
        await until(lambda: len([verb for verb, _ in new.handled if verb == "event send"]) == TASKS)
        assert sorted(number for verb, number in new.handled if verb == "send") == list(range(TASKS))
        assert {verb for verb, _ in old.handled} <= {"pack"}
        counters = workers[0].node.counters
        assert counters.value("sealbus_put_off_total", cause="unknown_verb") >= 1
        assert counters.value("sealbus_no_place_total") == 0
        assert counters.value("sealbus_refused_total") == 0


async def test_a_verb_that_nobody_has_is_known_at_once_and_has_failed_at_the_end(tmp_path: Path) -> None:
    only = Version("pack")
    async with real_bus(tmp_path, "shop", "client") as bus, working(bus, only) as [worker]:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        handle = await client.submit("shop.pakc", Item(number=1), life=3.0)
        states: list[tuple[str, str]] = []
        async with asyncio.timeout(60):
            async for status in handle.statuses():
                if not states:
                    # The first pauses are so short that it may be under way again just now.
                    await until(lambda: worker.notes().get("verbs", "").startswith("1 tasks or events for verbs"))
                states.append((status.state, status.code))
        assert states == [(State.WORKING, "unknown_verb"), (State.FAILED, "unknown_verb")]
        assert not [one async for one in client.node.transport.read("DEAD", ["dead.>"])]
        assert not [one async for one in client.node.transport.read("AUDIT", ["audit.shop"])]


async def submit_many(client: Client, verb: str, numbers: range) -> list[TaskHandle]:
    """Submit a task of `verb` for each number, `TOGETHER` at a time."""
    handles: list[TaskHandle] = []
    for start in range(numbers.start, numbers.stop, TOGETHER):
        group = range(start, min(start + TOGETHER, numbers.stop))
        handles += await asyncio.gather(*[client.submit(f"shop.{verb}", Item(number=number)) for number in group])
    return handles


async def put_off_once(worker: Worker, count: int) -> None:
    """Wait until `worker` has put off deliveries of verbs that it lacks at least `count` times."""
    counters = worker.node.counters
    await until(lambda: counters.value("sealbus_put_off_total", cause="unknown_verb") >= count, seconds=60)


async def test_what_a_new_verb_is_asked_for_before_and_between_its_versions_is_handled_by_the_last(
    tmp_path: Path,
) -> None:
    async with real_bus(tmp_path, "shop", "client") as bus:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        handled: list[tuple[str, int]] = []
        handles: list[TaskHandle] = []
        half = WAITING // 2
        for phase in range(2):
            # Only the old version is there: what it lacks waits, what it has goes on.
            async with working(bus, old := Version("pack")) as [worker]:
                numbers = range(phase * half, (phase + 1) * half)
                handles += await submit_many(client, "send", numbers)
                await put_off_once(worker, half)
                known = await submit_many(client, "pack", range(phase * 20, phase * 20 + 20))
                assert await results(known) == {"done": 20}
                if phase:
                    # The new version has listened, so what is emitted while only the old one runs waits for it.
                    for number in numbers:
                        await client.emit("send", Item(number=number))
                    # The server has come past all of them, and would skip what its filter does not take.
                    await client.emit("pack", Item(number=0))
                    await until(partial(old.handled.__contains__, ("event pack", 0)), seconds=60)
                assert worker.node.counters.value("sealbus_no_place_total") == 0
                assert "verbs" in worker.notes()
            if not phase:
                async with working(bus, first := Version("pack", "send")):
                    await until(lambda: len(first.handled) >= half // 4, seconds=60)
                handled += first.handled
        async with working(bus, new := Version("pack", "send")) as [worker]:
            assert await results(handles) == {"done": WAITING}
            await until(lambda: len([verb for verb, _ in new.handled if verb == "event send"]) == half, seconds=60)
            handled += new.handled
        assert sorted(number for verb, number in handled if verb == "send") == list(range(WAITING))
        assert sorted(number for verb, number in handled if verb == "event send") == list(range(half, WAITING))


@pytest.mark.parametrize(("failing", "outcome", "dead"), [(2, "done", 0), (3, "handler_failed", 1)])
async def test_a_task_that_other_versions_put_off_has_all_its_attempts_and_no_more(
    tmp_path: Path, failing: int, outcome: str, dead: int
) -> None:
    old, new = Version("pack"), Version("pack", "send", failing=failing)
    async with real_bus(tmp_path, "shop", "client", permitted=True) as bus:
        client = Client.on(await bus.node("client", ScriptedEngine()))
        async with working(bus, old) as [worker]:
            handle = await client.submit("shop.send", Item(number=1))
            await put_off_once(worker, PUT_OFF)
            # The old version is still there, and puts it off between the attempts.
            async with working(bus, new):
                assert await results([handle]) == {outcome: 1}
        assert new.handled == [("send", 1)] * 3
        assert len([one async for one in NatsTransport(bus.operator).read("DEAD", ["dead.>"])]) == dead


async def test_a_sender_that_fills_its_room_leaves_some_to_others(tmp_path: Path) -> None:
    limits = WorkerLimits(max_ack_pending=512)
    async with real_bus(tmp_path, "shop", "client", "other") as bus, working(bus, Version("pack"), limits=limits):
        greedy = Client.on(await bus.node("client", ScriptedEngine()))
        other = Client.on(await bus.node("other", ScriptedEngine()))
        flood = await submit_many(greedy, "send", range(400))
        waiting = await other.submit("shop.send", Item(number=1))
        known = await submit_many(greedy, "pack", range(20))
        assert await results(known) == {"done": 20}
        async with asyncio.timeout(60):
            async for status in waiting.statuses():
                assert (status.state, status.code) == (State.WORKING, "unknown_verb")
                break
        # At most 256 have room, whichever these are.
        assert await first_result(flood) == "unknown_verb"


async def test_a_version_with_less_room_beside_one_with_more_does_not_take_it_away(tmp_path: Path) -> None:
    async def most() -> object:
        info = await api(bus.connections["client"].jetstream, "CONSUMER.INFO.TASKS.shop")
        config = info["config"]
        assert isinstance(config, dict)
        return config["max_ack_pending"]

    small = WorkerLimits(max_ack_pending=512)
    async with real_bus(tmp_path, "shop", "client") as bus:
        await bus.node("client", ScriptedEngine())
        async with working(bus, Version("pack"), limits=small):
            assert await most() == 512
            async with working(bus, Version("pack")):
                assert await most() == WorkerLimits().max_ack_pending
                async with working(bus, Version("pack"), limits=small):
                    assert await most() == WorkerLimits().max_ack_pending


async def test_a_server_that_allows_fewer_pending_deliveries_gives_what_it_allows(tmp_path: Path) -> None:
    allowed = ", limits { max_ack_pending: 3000 }"
    async with (
        real_bus(tmp_path, "shop", "client", jetstream=allowed) as bus,
        working(bus, Version("pack")),
    ):
        client = Client.on(await bus.node("client", ScriptedEngine()))
        assert await results(await submit_many(client, "pack", range(3))) == {"done": 3}
        info = await api(bus.connections["client"].jetstream, "CONSUMER.INFO.TASKS.shop")
        config = info["config"]
        assert isinstance(config, dict)
        assert 1_500 < config["max_ack_pending"] <= 3_000
