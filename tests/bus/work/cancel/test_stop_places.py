"""Of which messages it is known that nobody has kept a stop: what was stored since is read, and nothing is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from support.acceptance import Message
from support.envelopes import NOW, message_id

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.ports import Transport
from sealbus.bus.work.cancel.kept import StopPlaces
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.header import parse_header

FIRST, SECOND, THIRD = [parse_header(Message(fields={"id": message_id(one)}).raw()) for one in (1, 2, 3)]
CHAIN = (FIRST, SECOND, THIRD)


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker(lambda: NOW)
    broker.add_stream("HELD", ["held.>"])
    return broker


def put(broker: MemoryBroker, digest: str, agent: str = "inventory") -> None:
    broker.inject(f"held.{agent}.stop.{digest}.planner", b"anything")


async def test_what_was_stored_since_is_read(broker: MemoryBroker) -> None:
    places = StopPlaces(broker.connect())
    assert await places.refresh()
    assert not places.may_hold(CHAIN)
    put(broker, SECOND.digest.hex(), "whoever")
    assert await places.refresh()
    assert places.may_hold(CHAIN)
    assert places.may_hold([SECOND])
    assert not places.may_hold([FIRST])
    put(broker, "no digest")
    assert await places.refresh()
    assert places.may_hold(CHAIN)


async def test_what_a_message_is_detached_from_does_not_concern_it(broker: MemoryBroker) -> None:
    places = StopPlaces(broker.connect())
    put(broker, FIRST.digest.hex())
    assert await places.refresh()
    detached = parse_header(Message(fields={"id": message_id(4), "ext": {"_det": True}}).raw())
    assert not places.may_hold([FIRST, detached])
    assert not places.may_hold([FIRST, detached, THIRD])
    assert places.may_hold([detached, FIRST])
    put(broker, detached.digest.hex())
    assert await places.refresh()
    assert places.may_hold([FIRST, detached, THIRD])


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_where_there_are_too_many_each_is_looked_up(broker: MemoryBroker, most: int) -> None:
    places = StopPlaces(broker.connect(), most=most)
    for number in range(2):
        put(broker, bytes([number] * 32).hex())
    assert await places.refresh() is (most > 2)
    # What came first stays, so that what is said of it is true.
    assert await places.refresh() is (most > 2)


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(broker: MemoryBroker) -> None:
    places = StopPlaces(broker.connect())
    for number in range(3):
        put(broker, bytes([number] * 32).hex())
    assert await places.refresh()
    del broker.streams["HELD"]
    with pytest.raises(ConfigurationError):
        await places.refresh()
    broker.add_stream("HELD", ["held.>"])
    broker.streams["HELD"].created = NOW + 1
    put(broker, SECOND.digest.hex())
    assert await places.refresh()
    assert places.may_hold([SECOND])


class Silent(MemoryTransport):
    """A broker that says nothing more after the first message, unless it is told to."""

    silent = True

    async def read(self, *arguments: Any, **named: Any) -> AsyncGenerator[Any, None]:
        async for batch in super().read(*arguments, **named):
            yield batch[:1] if self.silent else batch
            if self.silent:
                await asyncio.Event().wait()


async def test_what_is_not_read_in_time_is_not_known_and_read_the_next_time(broker: MemoryBroker) -> None:
    transport = Silent(broker)
    places = StopPlaces(transport, within=0.01)
    put(broker, FIRST.digest.hex())
    put(broker, SECOND.digest.hex())
    assert not await places.refresh()
    transport.silent = False
    assert await places.refresh()
    assert places.may_hold([FIRST])
    assert places.may_hold([SECOND])


class TwoCells(MemoryTransport):
    """A cell whose processes reach another one."""

    def __init__(self, broker: MemoryBroker, other: MemoryTransport) -> None:
        super().__init__(broker)
        self.other = other

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        return {"default": self, "east": self.other}


class Meeting(TwoCells):
    """Two cells that answer once `both` are asked."""

    def __init__(self, broker: MemoryBroker, both: asyncio.Barrier, other: MemoryTransport) -> None:
        super().__init__(broker, other)
        self.both = both

    async def created(self, stream: str) -> int:
        await self.both.wait()
        return await super().created(stream)


def other_broker() -> MemoryBroker:
    other = MemoryBroker(lambda: NOW)
    other.add_stream("HELD", ["held.>"])
    return other


async def test_all_cells_are_asked_at_once(broker: MemoryBroker) -> None:
    both, other = asyncio.Barrier(2), other_broker()
    places = StopPlaces(Meeting(broker, both, Meeting(other, both, MemoryTransport(other))))
    put(broker, FIRST.digest.hex())
    put(other, SECOND.digest.hex())
    assert await places.refresh()
    assert [places.may_hold([header]) for header in (FIRST, SECOND, THIRD)] == [True, True, False]


async def test_one_cell_that_does_not_answer_leaves_all_unknown(broker: MemoryBroker) -> None:
    other = other_broker()
    places = StopPlaces(TwoCells(broker, (silent := Silent(other))), within=0.01)
    put(broker, FIRST.digest.hex())
    put(other, SECOND.digest.hex())
    put(other, THIRD.digest.hex())
    assert not await places.refresh()
    silent.silent = False
    assert await places.refresh()
    assert places.may_hold([THIRD])


async def test_a_cell_without_the_stream_is_said(broker: MemoryBroker) -> None:
    with pytest.raises(ConfigurationError, match="HELD"):
        await StopPlaces(TwoCells(broker, MemoryTransport(MemoryBroker(lambda: NOW)))).refresh()
