"""The broker in memory keeps the promises of a real one that the gate relies on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.ports import ConsumerLoad, Delivery, Outgoing, PubAck, StoredValue, StreamRefused
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND


class Clock:
    now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> MemoryBroker:
    made = MemoryBroker(clock)
    made.add_stream("TASKS", ["task.>"], max_bytes=1_000)
    return made


@pytest.fixture
def transport(broker: MemoryBroker) -> MemoryTransport:
    return broker.connect()


def message(number: int, subject: str = "task.a.run", payload: bytes = b"x") -> Outgoing:
    return Outgoing(subject=subject, payload=payload, message_id=f"{number:032x}")


async def test_messages_are_numbered_and_a_repeat_is_a_duplicate(transport: MemoryTransport) -> None:
    answers = await transport.publish([message(1), message(2), message(1)], deadline=1)
    assert answers == [
        PubAck(stream="TASKS", sequence=1, duplicate=False),
        PubAck(stream="TASKS", sequence=2, duplicate=False),
        PubAck(stream="TASKS", sequence=1, duplicate=True),
    ]


async def test_a_repeat_after_the_window_is_stored_again(transport: MemoryTransport, clock: Clock) -> None:
    await transport.publish([message(1)], deadline=1)
    clock.now += 121 * SECOND
    (again,) = await transport.publish([message(1)], deadline=1)
    assert again == PubAck(stream="TASKS", sequence=2, duplicate=False)


async def test_a_full_stream_refuses_what_is_new(transport: MemoryTransport, broker: MemoryBroker) -> None:
    first, second = await transport.publish([message(1), message(2, payload=b"x" * 2_000)], deadline=1)
    assert isinstance(first, PubAck)
    assert isinstance(second, StreamRefused)
    assert second.err_code == 10_077
    assert len(broker.streams["TASKS"].stored) == 1


async def test_a_subject_without_a_stream_is_not_stored(transport: MemoryTransport) -> None:
    (answer,) = await transport.publish([message(1, "event.a.b")], deadline=1)
    assert isinstance(answer, BusUnavailable)


async def test_a_stream_fails_until_it_is_told_to_work(transport: MemoryTransport, broker: MemoryBroker) -> None:
    error = BusUnavailable("away")
    broker.fail("TASKS", error)
    assert await transport.publish([message(1)], deadline=1) == [error]
    broker.fail("TASKS", None)
    assert isinstance((await transport.publish([message(1)], deadline=1))[0], PubAck)


async def test_a_consumer_redelivers_with_its_count_and_remembers_acks(transport: MemoryTransport) -> None:
    pull = transport.pull("TASKS", "a", ["task.a.>"], batch=10, ack_wait=1, max_ack_pending=10)
    await transport.publish([message(1), message(2, "task.b.run"), message(3)], deadline=1)
    async with aclosing(pull.batches()) as batches:
        first, third = await anext(batches)
        assert not pull.idle
        pull.ack([first])
        pull.retry(third, 0)
        (again,) = await anext(batches)
        assert again.arrival is not None
        assert (again.arrival.sequence, again.arrival.delivery) == (3, 2)
        pull.term(again)
        assert pull.idle


def taken(deliveries: Sequence[Delivery]) -> list[tuple[int, int]]:
    return [(delivery.sequence, delivery.number) for delivery in deliveries]


async def test_no_more_than_allowed_is_in_hand(transport: MemoryTransport) -> None:
    pull, _ = (
        transport.pull("TASKS", "a", ["task.a.>"], batch=10, ack_wait=1, max_ack_pending=most) for most in (2, 1)
    )
    await transport.publish([message(number) for number in range(3)], deadline=1)
    async with aclosing(pull.batches()) as batches:
        first = await anext(batches)
        assert taken(first) == [(1, 1), (2, 1)]
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        pull.ack(first[:1])
        assert taken(await waiting) == [(3, 1)]
        pull.retry(first[1], 60.0)
        assert await pull.load() == ConsumerLoad(unsettled=1, most=2)
        pull.ack([first[1]])
        assert await pull.load() == ConsumerLoad(unsettled=0, most=2)


async def test_a_delayed_message_comes_while_others_do(transport: MemoryTransport) -> None:
    pull = transport.pull("TASKS", "a", ["task.a.>"], batch=10, ack_wait=1, max_ack_pending=10)
    await transport.publish([message(1), message(2)], deadline=1)
    async with aclosing(pull.batches()) as batches:
        first, second = await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        pull.retry(second, 0.01)
        pull.retry(second, 0.0)
        assert taken(await waiting) == [(2, 2)]
        pull.retry(first, 60.0)
        await transport.publish([message(3)], deadline=1)
        assert taken(await anext(batches)) == [(3, 1)]
        pull.term(first)
        pull.lapse()
        assert taken(await anext(batches)) == [(2, 3), (3, 2)]
        assert not pull.idle


async def test_a_server_forgets_one_acknowledgement_or_all(transport: MemoryTransport) -> None:
    pull = transport.pull("TASKS", "a", ["task.a.>"], batch=10, ack_wait=1, max_ack_pending=10)
    await transport.publish([message(1), message(2)], deadline=1)
    async with aclosing(pull.batches()) as batches:
        pull.ack(await anext(batches))
        assert pull.idle
        pull.repeat(2)
        assert taken(await anext(batches)) == [(2, 2)]
        pull.rewind()
        assert taken(await anext(batches)) == [(1, 1), (2, 1)]


async def test_a_stored_message_is_changed_on_the_disk(broker: MemoryBroker, transport: MemoryTransport) -> None:
    await transport.publish([message(1), message(2)], deadline=1)
    stream = broker.streams["TASKS"]
    first, second = stream.stored
    assert second.arrival is not None
    stream.tamper(first._replace(subject="task.b.run", payload=b"other"))
    stream.tamper(second._replace(arrival=second.arrival._replace(stored=5)))
    read = [one async for batch in transport.read("TASKS", [">"]) for one in batch]
    changed = [(one.subject, one.payload, one.arrival.stored) for one in read if one.arrival is not None]
    assert changed == [("task.b.run", b"other", Clock.now), ("task.a.run", b"x", 5)]


async def test_core_messages_go_to_all_but_once_to_a_queue(transport: MemoryTransport) -> None:
    sources = [transport.listen("call.a.*"), *(transport.listen("call.a.*", queue="a") for _ in "xy")]
    waiting = [asyncio.ensure_future(anext(one)) for one in sources]
    await asyncio.sleep(0)
    transport.send([Outgoing(subject="call.a.run", payload=b"1"), Outgoing(subject="call.a.run", payload=b"2")])
    got = [[one.payload for one in await batch] for batch in waiting]
    assert got[0] == [b"1", b"2"]
    assert sorted(got[1] + got[2]) == [b"1", b"2"]
    for source in sources:
        await source.aclose()


async def test_a_slow_listener_loses_the_newest(transport: MemoryTransport, broker: MemoryBroker) -> None:
    source = transport.listen("call.a.*", pending=2)
    waiting = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    transport.send([Outgoing(subject="call.a.run", payload=b"%d" % number) for number in range(3)])
    assert broker.subscriptions[0].dropped == 1
    assert [one.payload for one in await waiting] == [b"0", b"1"]
    await source.aclose()
    assert broker.subscriptions == []


async def test_reading_begins_where_it_is_told(transport: MemoryTransport, clock: Clock) -> None:
    await transport.publish([message(1)], deadline=1)
    clock.now += SECOND
    await transport.publish([message(2), message(3, "task.b.run")], deadline=1)

    async def sequences(*subjects: str, start: int = 1, since: int = 0) -> list[int]:
        source = transport.read("TASKS", subjects, start=start, since=since)
        return [one.arrival.sequence for batch in [b async for b in source] for one in batch if one.arrival]

    assert await sequences("task.>") == [1, 2, 3]
    assert await sequences("task.b.*") == [3]
    assert await sequences("task.>", start=2) == [2, 3]
    assert await sequences("task.>", since=clock.now) == [2, 3]
    assert await transport.created("TASKS") == Clock.now

    source = transport.values("TASKS", "task.b.*", since=clock.now)
    assert [one async for batch in source for one in batch] == [("task.b.run", StoredValue(3, b"x", clock.now))]
