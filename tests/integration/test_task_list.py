"""Tasks listed on a real server: windows over what it still holds, statuses of many at once, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.real_bus import RealBus, real_bus
from support.shop import Shop, Update

from sealbus import Client
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.inspection.tasks import SUBMITTED, ListedTask, TaskFilter, TaskList, task_subjects
from sealbus.bus.nats.api import api, existing_stream
from sealbus.bus.nats.transport import NatsTransport
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.bundles import Trust

pytestmark = [pytest.mark.nats]

TASKS = 300
"""More than one consumer reads the statuses of."""


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "shop-web", permitted=True) as running:
        yield running


async def listed(bus: RealBus, wanted: TaskFilter, *, agent: str | None = None, most: int = 50) -> list[ListedTask]:
    """Return the tasks as the operator's node sees them, in windows far smaller than the stream."""
    connection = bus.connections["operator"]
    own = bus.names.id_of("operator")
    profile = LiveProfile(own=own, names=bus.names, kinds=frozenset({Kind.TASK}), minters=frozenset({bus.edge}))
    bundles = MemoryIdentity(bus.authority, own).bundles()
    tasks = TaskList(
        transport=NatsTransport(connection), profile=profile, trust=lambda: Trust(bundles=bundles), window=120
    )
    state = await existing_stream(connection.jetstream, "TASKS")
    subjects = task_subjects(profile, bus.names.id_of(agent) if agent is not None else None)
    source = tasks.newest(subjects, wanted, first=state.first, last=state.last, most=most)
    found = [one async for one in source]
    assert tasks.unreadable == 0
    return found


async def test_the_newest_of_many_tasks_are_listed_by_their_states(bus: RealBus) -> None:
    shop, engine = Shop(), ScriptedEngine(lambda one: deny() if one["context"]["user"]["id"] == "bob" else allow())
    await bus.node("operator", ScriptedEngine())
    client = Client.on(await bus.node("shop-web", ScriptedEngine()))
    alice, bob = bus.user("alice", "shop-web"), bus.user("bob", "shop-web")
    stop = asyncio.Event()
    async with Worker(shop.inventory, await bus.node("inventory", engine)) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        users = [bob if number % 100 == 0 else alice for number in range(TASKS)]
        body = Update(item_id="42")
        handles = [await client.submit("inventory.update", body, user=user) for user in users]
        ends = [[one.state async for one in handle.statuses()][-1] for handle in handles]
        stop.set()
    waiting = await client.submit("inventory.update", body, user=bob)
    rejected = [handle.message_id for handle, end in zip(handles, ends, strict=True) if end == "rejected"]
    assert len(rejected) == TASKS // 100

    newest = await listed(bus, TaskFilter(), most=10)
    assert [one.header.id.hex() for one in newest] == [
        waiting.message_id, *(one.message_id for one in reversed(handles[-9:]))
    ]  # fmt: skip
    assert {one.refused for one in newest} == {""}
    assert {one.status.state for one in newest} == {SUBMITTED, "completed"}

    denied = await listed(bus, TaskFilter(states=frozenset({"rejected"})))
    assert [one.header.id.hex() for one in denied] == rejected[::-1]
    assert {(one.user, one.status.code, one.status.unverified, one.refused) for one in denied} == {
        ("bob", "denied", (), "")
    }
    bobs = await listed(bus, TaskFilter(user="bob"), agent="inventory")
    assert [one.header.id.hex() for one in bobs] == [waiting.message_id, *rejected[::-1]]
    assert await listed(bus, TaskFilter(), agent="pricing") == []
    assert len(await listed(bus, TaskFilter(states=frozenset({"completed"})), most=10_000)) == TASKS - len(rejected)

    # The consumers of reading are gone at once, or at the latest when the server has seen the last request to delete one.
    await bus.connections["operator"].link.flush(10)
    for stream in ("TASKS", "RESULTS"):
        names = (await api(bus.connections["operator"].jetstream, f"CONSUMER.NAMES.{stream}")).get("consumers") or []
        assert isinstance(names, list)
        assert [one for one in names if str(one).startswith("read-")] == []
