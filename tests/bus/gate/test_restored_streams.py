"""A restored stream at the gate: what waited is handled once a notary names that stream, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.shop import Shop, Update

from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.clocks import HostClock
from sealbus.bus.gate.opener import OpenedBatch, Opener
from sealbus.bus.inspection.tasks import TaskFilter, TaskList, task_subjects
from sealbus.bus.ports import Delivery
from sealbus.bus.streams import key_book
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.testing import TestBus

LATER = 3 * SECOND
"""How much younger than its messages the restored stream is."""


class Site:
    """A bus whose TASKS was restored just now from the stream that was there, and its notary."""

    def __init__(self, bus: TestBus, shop: Shop) -> None:
        self.bus = bus
        self.shop = shop
        stream = bus.broker.streams["TASKS"]
        self.before = stream.created
        self.created = stream.created = bus.broker.clock() + LATER

    async def submit(self, item: str) -> None:
        client = await self.bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id=item), user=self.bus.user("alice", "shop-web"))

    async def say(self, *restored: RestoredStream, who: str = "notary") -> None:
        """Let a notary write its key book."""
        bus, books = self.bus, self.bus.broker.streams["HELD"]
        identity = MemoryIdentity(bus.authority, bus.names.id_of(who))
        clock = bus.broker.clock
        writer = KeyBookWriter(identity=identity, transport=bus.broker.connect(), names=bus.names, clock=clock)
        record = BundleRecord(trust_domain=bus.trust_domain, current=1, jwt=bus.authority.jwt_bundle())
        count = len(books)
        writing = asyncio.create_task(writer.write_books(TrustHistory([record]), restored))
        await until(lambda: len(books) > count)
        writing.cancel()
        await asyncio.wait({writing})

    def row(self, **other: int) -> RestoredStream:
        return RestoredStream(**{"stream": "TASKS", "before": self.before, "created": self.created, "last": 1, **other})  # type: ignore[arg-type]

    def refused(self) -> int:
        return int(self.bus.workers["inventory"].node.counters.value("sealbus_refused_total", code="replayed"))

    async def listed(self) -> list[str]:
        """Return why each task would be refused, as `sealbus task ls` shows it."""
        worker = self.bus.workers["inventory"]
        tasks = TaskList(
            transport=self.bus.broker.connect(),
            profile=worker.parts.profile,
            trust=worker.node.trust,
            restored=worker.node.restored,
            clock=HostClock(self.bus.broker.clock),
        )
        subjects, last = task_subjects(worker.parts.profile), len(self.bus.stored("TASKS"))
        return [one.refused async for one in tasks.newest(subjects, TaskFilter(), first=1, last=last, most=9)]


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(key_book, "_AGAIN", 0.0)
    shop = Shop()
    bus = TestBus(shop.inventory, engine=ScriptedEngine(), limits=WorkerLimits())
    bus.deployment = replace(bus.deployment, notaries=frozenset({bus.names.id_of("notary")}))
    async with bus:
        yield Site(bus, shop)


async def later(site: Site) -> None:
    """Let the moment of the restore pass."""
    await site.bus.advance(2 * LATER / SECOND, idle=False)


async def test_what_waited_is_put_off_until_a_notary_names_the_stream_and_then_handled(site: Site) -> None:
    await site.submit("1")
    await until(
        lambda: site.bus.workers["inventory"].node.counters.value("sealbus_refused_total", code="state_unavailable") > 0
    )
    assert await site.listed() == ["state_unavailable"]
    await later(site)
    # A book from before says nothing of it.
    assert site.shop.handled == []
    await site.say(site.row())
    await site.bus.idle()
    assert site.shop.handled == [("1", 1)]
    assert await site.listed() == [""]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"created": 1}],
        [{"last": 0}],
        [{"stream": "EVENTS"}],
    ],
    ids=str,
)
async def test_what_no_notary_names_is_refused_for_good(site: Site, rows: Sequence[dict[str, int]]) -> None:
    await site.submit("1")
    await later(site)
    await site.say(
        *(site.row(**{name: site.created + n if name == "created" else n for name, n in row.items()}) for row in rows)
    )
    await site.bus.idle()
    assert site.shop.handled == []
    assert site.refused() == 1
    assert await site.listed() == ["replayed"]


async def test_a_copy_of_what_was_restored_is_refused_as_before(site: Site) -> None:
    await site.submit("1")
    await later(site)
    # Behind the restored part, though within its minute; `last` is too high, as if an operator had said too much.
    [message] = site.bus.stored("TASKS")
    site.bus.broker.inject(message.subject, message.payload, message.header_block)
    await site.say(site.row(last=9))
    await site.submit("2")
    await site.bus.idle()
    assert sorted(site.shop.handled) == [("1", 1), ("2", 1)]
    assert site.refused() == 1


async def test_an_agents_word_is_none(site: Site) -> None:
    await site.submit("1")
    await later(site)
    await site.say(site.row(), who="inventory")
    await site.say()
    await site.bus.idle()
    assert site.shop.handled == []
    assert site.refused() == 1


async def test_without_a_notary_in_the_settings_it_is_refused_at_once() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine(), limits=WorkerLimits()) as bus:
        site = Site(bus, shop)
        await site.submit("1")
        await site.bus.idle()
        assert shop.handled == []
        assert site.refused() == 1


async def test_what_came_after_the_restore_waits_for_no_notary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_book, "_AGAIN", 0.0)
    away, open_batch = set[int](), Opener.open

    async def noted(opener: Opener, deliveries: Sequence[Delivery]) -> OpenedBatch:
        batch = await open_batch(opener, deliveries)
        refused = [delivery.arrival for error, delivery in batch.refused if isinstance(error, StateUnavailable)]
        away.update(arrival.sequence for arrival in refused if arrival is not None)
        return batch

    monkeypatch.setattr(Opener, "open", noted)
    shop = Shop()
    bus = TestBus(engine=ScriptedEngine())
    bus.deployment = replace(bus.deployment, notaries=frozenset({bus.names.id_of("notary")}))
    async with bus:
        site = Site(bus, shop)
        await site.submit("before")
        await later(site)
        await site.submit("after")
        node, stop = (await bus.client("inventory")).node, asyncio.Event()
        async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group:
            # Both are there when it begins, and come in one batch.
            group.create_task(worker.run(stop))
            await until(lambda: bool(shop.handled and away))
            assert shop.handled == [("after", 1)]
            assert away == {1}
            await site.say(site.row())
            await until(lambda: len(shop.handled) > 1)
            stop.set()


@pytest.mark.parametrize("restored", [(True, False), (False, True), (False, True, False)])
async def test_each_message_of_a_batch_is_measured_by_its_own_stream(
    monkeypatch: pytest.MonkeyPatch, restored: tuple[bool, ...]
) -> None:
    monkeypatch.setattr(key_book, "_AGAIN", 0.0)
    shop = Shop()
    bus = TestBus(engine=ScriptedEngine())
    bus.deployment = replace(bus.deployment, notaries=frozenset({bus.names.id_of("notary")}))
    async with bus:
        site, stream = Site(bus, shop), bus.broker.streams["TASKS"]
        for number, is_restored in enumerate(restored):
            stream.created = site.created if is_restored else site.before
            await site.submit(str(number))
        stream.created = site.created
        await later(site)
        await site.say(site.row(last=len(restored)))
        node, stop = (await bus.client("inventory")).node, asyncio.Event()
        async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group:
            # All of them are there when it begins, and come in one batch.
            group.create_task(worker.run(stop))
            await until(lambda: len(shop.handled) == len(restored))
            stop.set()
        assert node.counters.value("sealbus_refused_total") == 0
