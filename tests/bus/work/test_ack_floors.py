"""How far consumers were acknowledged counts as the agent has signed it, and as 0 otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from support.envelopes import NOW
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.ports import StoredFloor
from sealbus.bus.work.ack_floors import FLOOR, StoredFloors, floor_key
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.envelopes.limits import SECOND

STORED = StoredFloor(NOW - SECOND, 41, 2)
KEY = floor_key("TASKS", "inventory")


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker(lambda: NOW)
    broker.add_stream("STATE", ["state.>"])
    return broker


def site(broker: MemoryBroker) -> Any:
    return site_of(broker.connect(), lambda: NOW)


async def test_a_floor_is_read_by_all_processes_and_replaced_by_one(broker: MemoryBroker) -> None:
    floors = StoredFloors(site(broker))
    assert await floors.read("TASKS", "inventory") == StoredFloor()
    first = await floors.replace("TASKS", "inventory", STORED)
    assert first == STORED._replace(last=1)
    assert await StoredFloors(site(broker)).read("TASKS", "inventory") == first
    # Whoever does not know the last one is too late.
    assert await floors.replace("TASKS", "inventory", STORED) is None
    assert await floors.replace("TASKS", "inventory", first._replace(floor=42)) == first._replace(floor=42, last=2)
    # Another consumer has its own.
    assert await floors.read("TASKS", "id-ctl-inventory") == StoredFloor()
    assert await floors.read("TASKS-2", "inventory") == StoredFloor()


async def test_a_moved_agent_finds_the_floors_of_each_stream_by_what_it_is_named_now(broker: MemoryBroker) -> None:
    """It was in default and is in east; a third cell is west."""
    former = MemoryBroker(lambda: NOW)
    former.add_stream("STATE", ["state.>"])
    at_home = StoredFloors(site(former))
    for number, stream in enumerate(("TASKS", "EVENTS", "cell.east.EVENTS", "cell.west.EVENTS"), 1):
        await at_home.replace(stream, "inventory", STORED._replace(floor=number))
    cells = {"east": broker.connect(), "default": former.connect()}
    moved = site(broker)
    moved.transport.cells_of = lambda _: cells
    floors = StoredFloors(moved)
    found = {
        stream: (await floors.read(stream, "inventory")).floor
        for stream in ("TASKS", "cell.default.TASKS", "EVENTS", "cell.default.EVENTS", "cell.west.EVENTS")
    }
    assert found == {"TASKS": 0, "cell.default.TASKS": 1, "EVENTS": 3, "cell.default.EVENTS": 2, "cell.west.EVENTS": 4}
    assert (await floors.read("EVENTS", "inventory")).last == 0
    # What it has stored since counts, and hides no other.
    for stream in ("TASKS", "EVENTS"):
        await StoredFloors(site(broker)).replace(stream, "inventory", STORED)
    assert (await floors.read("EVENTS", "inventory")).floor == STORED.floor
    assert (await floors.read("cell.default.TASKS", "inventory")).floor == 1
    assert (await floors.read("cell.default.EVENTS", "inventory")).floor == 2


async def test_other_bytes_in_its_place_are_floor_0(broker: MemoryBroker) -> None:
    floors = StoredFloors(site(broker))
    await floors.replace("TASKS", "inventory", STORED)
    broker.inject(f"state.inventory.{FLOOR}.{KEY.hex()}", b"other bytes")
    found = await floors.read("TASKS", "inventory")
    assert found == StoredFloor(last=2)
    # The next one stands in their place.
    assert await floors.replace("TASKS", "inventory", STORED._replace(last=2)) == STORED._replace(last=3)


async def test_a_floor_of_another_consumer_does_not_count(broker: MemoryBroker) -> None:
    floors = StoredFloors(site(broker))
    await floors.replace("TASKS", "id-ctl-inventory", STORED)
    value = broker.streams["STATE"].stored[-1]
    broker.inject(f"state.inventory.{FLOOR}.{KEY.hex()}", value.payload)
    assert await floors.read("TASKS", "inventory") == StoredFloor(last=2)


@pytest.mark.parametrize("fields", [[], [1, 2], [1, 2, 3, 4], [1, -2, 3]])
async def test_other_arrays_of_the_agent_are_floor_0(broker: MemoryBroker, fields: list[int]) -> None:
    last = await TimelyArrays(FLOOR, site(broker)).write(KEY, fields, 0)
    assert last == 1
    assert await StoredFloors(site(broker)).read("TASKS", "inventory") == StoredFloor(last=1)
