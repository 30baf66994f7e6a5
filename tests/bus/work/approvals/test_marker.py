"""The marker of a parked task: who may say it, what holds once it was said, and how it is written beside others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.acceptance import INVENTORY, ISSUER, Message
from support.envelopes import NAMES, NOW
from support.near import near, nearly, shown
from support.parked import parked_task, value_of

from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Identity
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.bus.work.approvals.marker import (
    Marker,
    Markers,
    marker_of,
    marker_subject,
    parsed_marker,
    waits_note,
)
from sealbus.bus.work.approvals.parked_tasks import Parked, ParkedState, ParkedTasks
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.header import parse_header

TASK = parse_header(Message().raw())
OWN = SimpleNamespace(spiffe_id=INVENTORY, sealer=lambda: ISSUER.sealer(INVENTORY))
SUBJECT = marker_subject("inventory", "planner", TASK.id)


class Shelf:
    """What HELD is to who writes markers; others are quicker as often as `lost` says."""

    def __init__(self, lost: int = 0) -> None:
        self.values: dict[str, HeldValue] = {}
        self.keys: dict[str, Mapping[str, Value]] = {}
        self.lost = lost
        self.writes: list[int] = []
        self.reads = 0
        self.written: Callable[[], object] = lambda: None

    def put(self, subject: str, keys: Mapping[str, Value], number: int = 1) -> None:
        bare = value_of(parked_task(), subject=subject)
        self.values[subject] = replace(bare, number=number, last=number)
        self.keys[subject] = {**keys}

    async def newest(self, pattern: str, payload_type: str) -> dict[str, HeldValue]:
        del pattern, payload_type
        return {subject: self.read(subject) for subject in self.values}

    async def standing(self, subject: str, payload_type: str) -> tuple[HeldValue | None, int]:
        self.reads += 1
        value = (await self.newest(subject, payload_type)).get(subject)
        return value, value.last if value is not None else 0

    async def write(self, subject: str, keys: Mapping[str, Value], *_: object, **more: Any) -> HeldValue | None:
        before = more.get("before")
        last: int = before.last if before is not None else more.get("last", 0)
        self.writes.append(last)
        if self.lost or last != (self.values[subject].last if subject in self.values else 0):
            self.lost = max(0, self.lost - 1)
            return None
        self.put(subject, keys, last + 1)
        self.written()
        return self.values[subject]

    def marker(self) -> Marker | None:
        return parsed_marker(self.read(SUBJECT)) if SUBJECT in self.values else None

    def read(self, subject: str) -> HeldValue:
        """Return a value with all its keys, which are taken when they are read."""
        return replace(self.values[subject], keys=RecordMap({"v": 1, **self.keys[subject]}))


def markers(shelf: Shelf, now: Callable[[], int] = lambda: NOW) -> Markers:
    identity = cast("Identity", OWN)
    return Markers(cast("Held", shelf), identity=identity, names=NAMES, clock=BusClock(now))


async def test_a_marker_is_written_and_ends() -> None:
    shelf = Shelf()
    await markers(shelf).put(TASK, until=NOW, ended=False, first=True)
    assert shelf.marker() == Marker(digest=TASK.digest, until=NOW, ended=False)
    assert not await markers(shelf).has_ended(TASK)
    await markers(shelf).put(TASK, until=NOW, ended=False)
    assert shelf.writes == [0]
    await markers(shelf).put(TASK, until=NOW, ended=True)
    assert await markers(shelf).has_ended(TASK)
    assert shelf.writes == [0, 1]


async def test_what_was_said_holds() -> None:
    shelf = Shelf()
    await markers(shelf).put(TASK, until=NOW + 9, ended=False, first=True)
    await markers(shelf).put(TASK, until=NOW, ended=True)
    assert shelf.marker() == Marker(digest=TASK.digest, until=NOW + 9, ended=True)
    await markers(shelf).put(TASK, until=NOW + 5, ended=False, first=True)
    await markers(shelf).put(TASK, until=NOW + 99, ended=False)
    assert shelf.marker() == Marker(digest=TASK.digest, until=NOW + 99, ended=True)


async def test_what_follows_a_marker_that_is_known_is_written_without_a_look() -> None:
    shelf = Shelf()
    known = await markers(shelf).put(TASK, until=NOW + 9, ended=False, first=True)
    ended = await markers(shelf).put(TASK, until=NOW, ended=True, known=known)
    assert ended.marker == shelf.marker() == Marker(digest=TASK.digest, until=NOW + 9, ended=True)
    assert await markers(shelf).put(TASK, until=NOW, ended=True, known=ended) == ended
    assert (shelf.reads, shelf.writes) == (0, [0, 1])
    # What is known is no longer so: what was said since holds.
    again = await markers(shelf).put(TASK, until=NOW + 99, ended=False, known=known)
    assert again.marker == shelf.marker() == Marker(digest=TASK.digest, until=NOW + 99, ended=True)
    assert (shelf.reads, shelf.writes) == (1, [0, 1, 1, 2])


async def test_what_is_said_of_another_message_does_not_hold() -> None:
    shelf = Shelf()
    other = Marker(digest=nearly(TASK.digest), until=NOW + 9, ended=True)
    shelf.put(SUBJECT, other.keys())
    assert not await markers(shelf).has_ended(TASK)
    await markers(shelf).put(TASK, until=NOW, ended=False)
    assert shelf.marker() == Marker(digest=TASK.digest, until=NOW, ended=False)


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_others_may_be_quicker_for_a_while(lost: int) -> None:
    shelf = Shelf(lost)
    await markers(shelf).put(TASK, until=NOW, ended=False, first=True)
    assert shelf.marker() is not None
    assert len(shelf.writes) == lost + 1


async def test_others_may_not_be_quicker_for_ever() -> None:
    with pytest.raises(StateUnavailable):
        await markers(Shelf(4)).put(TASK, until=NOW, ended=False)


@pytest.mark.parametrize("until", [NOW + 5, NOW + 99])
@pytest.mark.parametrize("there", [True, False])
async def test_readers_are_moved_to_another_time(until: int, there: bool) -> None:
    shelf = Shelf()
    if there:
        await markers(shelf).put(TASK, until=NOW + 9, ended=False, first=True)
    moved = await markers(shelf).move(TASK, until=until, since=NOW + 9)
    assert moved is not None
    assert moved.marker == shelf.marker() == Marker(digest=TASK.digest, until=until, ended=False)
    writes = len(shelf.writes)
    assert await markers(shelf).move(TASK, until=until, since=NOW) is not None
    assert len(shelf.writes) == writes


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("until", "now", "moves"),
    [
        (NOW + 99, NOW + 8, True),
        (NOW + 99, NOW + 9, False),
        (NOW + 5, NOW + 4, True),
        (NOW + 5, NOW + 5, False),
    ],
)
async def test_nobody_is_moved_who_may_have_concluded(until: int, now: int, moves: bool, there: bool) -> None:
    shelf = Shelf()
    if there:
        await markers(shelf).put(TASK, until=NOW + 9, ended=False, first=True)
    assert (await markers(shelf, lambda: now).move(TASK, until=until, since=NOW + 9) is not None) is moves
    assert len(shelf.writes) == there + moves
    # Nor where its write was acknowledged too late, whoever has read it.
    shelf = Shelf()
    if there:
        await markers(shelf).put(TASK, until=NOW + 9, ended=False, first=True)
    clock = [NOW]
    shelf.written = lambda: clock.append(now)
    assert (await markers(shelf, lambda: clock[-1]).move(TASK, until=until, since=NOW + 9) is not None) is moves


async def test_what_another_message_waits_for_moves_nobody() -> None:
    shelf = Shelf()
    other = Marker(digest=nearly(TASK.digest), until=NOW + 9, ended=True)
    shelf.put(SUBJECT, other.keys())
    moved = await markers(shelf).move(TASK, until=NOW + 99, since=NOW + 9)
    assert moved is not None
    assert moved.marker == shelf.marker() == Marker(digest=TASK.digest, until=NOW + 99, ended=False)


async def test_what_has_ended_is_not_moved() -> None:
    shelf = Shelf()
    await markers(shelf).put(TASK, until=NOW + 9, ended=True, first=True)
    assert await markers(shelf).move(TASK, until=NOW + 99, since=NOW + 9) is None
    assert await markers(shelf).move(TASK, until=NOW + 9, since=NOW + 9) is None
    assert shelf.marker() == Marker(digest=TASK.digest, until=NOW + 9, ended=True)


@pytest.mark.parametrize(
    ("number", "late", "moves"), [(1, 50, True), (2, 50, False), (2, 5, True)], ids=["first", "late", "in time"]
)
async def test_what_was_stored_late_may_have_been_missed(number: int, late: int, moves: bool) -> None:
    shelf = Shelf()
    shelf.put(SUBJECT, Marker(digest=TASK.digest, until=NOW + 9, ended=False).keys(), number)
    value = shelf.values[SUBJECT]
    shelf.values[SUBJECT] = replace(value, at=NOW, stored=NOW + late * SECOND)
    assert (await markers(shelf).move(TASK, until=NOW + 99, since=NOW + 9) is not None) is moves
    assert (await markers(shelf).move(TASK, until=NOW + 9, since=NOW + 9) is not None) is moves


async def test_others_may_be_quicker_to_move() -> None:
    shelf = Shelf(2)
    assert await markers(shelf).move(TASK, until=NOW + 99, since=NOW + 9) is not None
    with pytest.raises(StateUnavailable):
        await markers(Shelf(4)).move(TASK, until=NOW + 99, since=NOW + 9)


async def read(shelf: Shelf) -> Marker | None:
    pending = PendingRequest.of(TASK)
    return await marker_of(cast("Held", shelf), pending, own=TASK.iss, names=NAMES)


async def test_only_the_tasks_agent_says_that_it_waits() -> None:
    shelf = Shelf()
    assert await read(shelf) is None
    said = Marker(digest=TASK.digest, until=NOW, ended=False)
    shelf.put(SUBJECT, said.keys())
    assert await read(shelf) == said
    genuine = shelf.values[SUBJECT]
    for other in near(INVENTORY):
        shelf.values[SUBJECT] = replace(genuine, own=other)
        assert await read(shelf) is None, shown(other)
    shelf.put(SUBJECT, {**said.keys(), "dig": nearly(TASK.digest)})
    assert await read(shelf) is None
    shelf.put(SUBJECT, {"dig": TASK.digest})
    assert await read(shelf) is None


def test_a_requester_reads_until_when() -> None:
    assert waits_note(NOW).startswith("waits for an approval until 20")


async def found(*states: tuple[str, ParkedState, int, int]) -> Parked | None:
    """Return which of several is the one that counts, each with its queue, state, turn and since."""
    shelf = Shelf()
    for queue, state, turn, since in states:
        parked = parked_task(asked={"queue": queue}, state=state, turn=turn, since=since)
        shelf.values[parked.subject("inventory")] = value_of(parked)
    identity = cast("Identity", OWN)
    tasks = ParkedTasks(cast("Held", Plain(shelf)), identity=identity, names=NAMES)
    return await tasks.find(TASK.digest)


class Plain:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def newest(self, pattern: str, payload_type: str) -> dict[str, HeldValue]:
        del pattern, payload_type
        return self._shelf.values


async def test_of_several_places_the_one_counts_that_it_was_moved_to() -> None:
    waiting, running, ended = ParkedState.WAITING, ParkedState.RUNNING, ParkedState.ENDED
    assert await found() is None
    for several, queue in (
        ([("a", running, 1, 1), ("b", waiting, 1, 1)], "b"),
        ([("a", ended, 1, 1), ("b", waiting, 1, 1)], "b"),
        ([("a", running, 1, 1), ("b", waiting, 0, 2)], "a"),
        ([("a", ended, 0, 1), ("b", waiting, 0, 2)], "a"),
        ([("a", ended, 0, 1), ("b", running, 1, 2)], "b"),
        ([("a", waiting, 0, 2), ("b", waiting, 0, 1)], "b"),
        ([("a", waiting, 0, 1)], "a"),
    ):
        one = await found(*several)
        assert one is not None
        assert one.obligation.queue == queue, several
