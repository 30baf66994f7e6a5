"""Values by key in memory: written by comparison, so that of two writers one is told."""

from __future__ import annotations

import asyncio

import pytest

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import StreamRefused
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND

SUBJECT = "state.inventory.effect.00"


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.add_stream("STATE", ["state.>"], max_bytes=1_000)
    return made


@pytest.fixture
def keyed(broker: MemoryBroker) -> KeyValue:
    return KeyValue(broker.connect())


async def test_a_value_is_created_once(keyed: KeyValue) -> None:
    assert await keyed.get(SUBJECT) is None
    first = await keyed.create(SUBJECT, b"1")
    assert first is not None
    assert await keyed.create(SUBJECT, b"2") is None
    found = await keyed.get(SUBJECT)
    assert found is not None
    assert (found.sequence, found.payload) == (first, b"1")
    assert 0 <= wall_clock() - found.stored < 60 * SECOND


async def test_of_two_that_create_one_is_told(keyed: KeyValue) -> None:
    made = await asyncio.gather(*(keyed.create(SUBJECT, bytes([one])) for one in range(8)))
    assert sum(one is not None for one in made) == 1


async def test_a_value_is_replaced_by_who_knows_the_last(keyed: KeyValue) -> None:
    first = await keyed.create(SUBJECT, b"1")
    assert first is not None
    second = await keyed.replace(SUBJECT, b"2", last=first)
    assert second is not None
    assert second > first
    assert await keyed.replace(SUBJECT, b"3", last=first) is None
    found = await keyed.get(SUBJECT)
    assert found is not None
    assert (found.sequence, found.payload) == (second, b"2")


async def test_subjects_are_apart(keyed: KeyValue) -> None:
    await keyed.create(SUBJECT, b"1")
    assert await keyed.create(SUBJECT + "1", b"2") is not None


@pytest.mark.parametrize("error", [BusUnavailable("away"), StreamRefused("full", 10_077), ValueError("else")])
async def test_a_stream_that_does_not_answer_is_unavailable(
    keyed: KeyValue, broker: MemoryBroker, error: Exception
) -> None:
    broker.fail("STATE", error)
    with pytest.raises(BusUnavailable):
        await keyed.create(SUBJECT, b"1")
    with pytest.raises(BusUnavailable):
        await keyed.replace(SUBJECT, b"1", last=3)
    with pytest.raises(BusUnavailable):
        await keyed.get(SUBJECT)


async def test_a_full_stream_is_unavailable(keyed: KeyValue) -> None:
    with pytest.raises(StreamRefused):
        await keyed.create(SUBJECT, bytes(2_000))
