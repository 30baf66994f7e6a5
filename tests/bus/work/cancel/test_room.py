"""The room for stops: each requester's own, counted in the order of the stream; and the table of doubtful messages."""

from __future__ import annotations

import weakref

import pytest
from support.acceptance import EDGE_ID, INVENTORY, PLANNER
from support.envelopes import HOUR, NAMES, NOW

from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.work.cancel import room as module
from sealbus.bus.work.cancel.room import SLOTS, Doubts, StopRoom, Taken
from sealbus.bus.work.cancel.stop import Stop
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def stop(
    number: int, *, agent: SpiffeId = INVENTORY, by: SpiffeId = PLANNER.iss, reason: str = "", at: int = NOW
) -> Stop:
    return Stop(
        agent=agent,
        digest=number.to_bytes(32),
        action="inventory.update",
        by=by,
        role=CancelRole.REQUESTER,
        reason=reason,
        end=NOW + HOUR,
        at=at,
        cancel=bytes(32),
    )


class Reader:
    """A process of the inventory, or of another agent, that takes in stops as they were stored."""

    def __init__(self, own: str = "inventory") -> None:
        self.room = StopRoom(own)

    def put(self, one: Stop, *, until: int = NOW + HOUR, now: int = NOW) -> Taken:
        return self.room.put(one.place(NAMES), one, until=until, now=now)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OF_REQUESTER", 2)


def test_processes_that_read_the_same_stream_count_alike_whenever_they_read_it() -> None:
    """Room is free for what was stored after others were over, and not for what was stored before, by whoever counts."""
    stored = [
        (stop(1), NOW, NOW + 10),
        (stop(2), NOW + 1, NOW + HOUR),
        (stop(3), NOW + 2, NOW + HOUR),
        (stop(4), NOW + 11, NOW + HOUR),
        (stop(5), NOW + 12, NOW + HOUR),
    ]
    found = []
    for _ in range(2):
        reader = Reader()
        found.append([reader.put(one, until=until, now=at) for one, at, until in stored])
    assert found[0] == found[1] == [Taken.NEW, Taken.NEW, Taken.FULL, Taken.NEW, Taken.FULL]


def test_each_requester_and_each_agent_has_room_of_its_own() -> None:
    reader = Reader()
    for number in range(2):
        assert reader.put(stop(number)) is Taken.NEW
        assert reader.put(stop(number, by=EDGE_ID)) is Taken.NEW
        assert reader.put(stop(number, agent=PLANNER.iss)) is Taken.NEW
    assert reader.put(stop(3)) is reader.put(stop(3, by=EDGE_ID)) is Taken.FULL
    assert len(reader.room) == 6
    assert set(reader.room.under((1).to_bytes(32))) == {
        stop(1).place(NAMES),
        stop(1, by=EDGE_ID).place(NAMES),
        stop(1, agent=PLANNER.iss).place(NAMES),
    }


def test_the_later_of_two_versions_counts_and_takes_no_further_room() -> None:
    reader = Reader()
    assert reader.put(stop(1, at=NOW + 1, reason="later")) is Taken.NEW
    assert reader.put(stop(1, reason="before"), until=NOW - 1) is Taken.AGAIN
    [kept] = reader.room.under((1).to_bytes(32)).values()
    assert kept.reason == "later"
    assert reader.put(stop(1, at=NOW + 2, reason="last")) is Taken.AGAIN
    [kept] = reader.room.under((1).to_bytes(32)).values()
    assert kept.reason == "last"
    assert not reader.room.is_full("inventory", "planner")


def test_one_that_is_over_frees_the_room_of_its_place() -> None:
    reader = Reader()
    assert reader.put(stop(1)) is reader.put(stop(2)) is Taken.NEW
    assert reader.put(stop(1, at=NOW + 1), until=NOW - 1) is Taken.OVER
    assert stop(1).place(NAMES) not in reader.room
    assert reader.put(stop(3)) is Taken.NEW
    assert reader.put(stop(4), until=NOW - 1) is Taken.OVER


@pytest.mark.parametrize(("of_agent", "in_memory"), [(3, 9), (9, 3)])
def test_memory_is_bounded_for_others_and_not_for_the_own_agent(
    monkeypatch: pytest.MonkeyPatch, of_agent: int, in_memory: int
) -> None:
    monkeypatch.setattr(module, "OF_REQUESTER", 100)
    monkeypatch.setattr(module, "OF_AGENT", of_agent)
    monkeypatch.setattr(module, "IN_MEMORY", in_memory)
    reader = Reader("planner")
    assert [reader.put(stop(number)) for number in range(5)] == [Taken.NEW] * 3 + [Taken.NO_MEMORY] * 2
    assert [reader.put(stop(number, agent=PLANNER.iss)) for number in range(5)] == [Taken.NEW] * 5
    # One that is known is kept.
    assert reader.put(stop(1, at=NOW + 1)) is Taken.AGAIN


class Token(str):
    """A part of a place by which the place can be seen to be forgotten."""

    __slots__ = ("__weakref__",)


def test_what_was_written_again_and_again_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPARE", 10)
    room, places = StopRoom("inventory"), list[weakref.ref[Token]]()

    def remembered() -> int:
        return sum(one() is not None for one in places)

    def put_again(number: int) -> None:
        again = stop(1, at=NOW + number)
        place = again.place(NAMES)._replace(agent=(token := Token("inventory")))
        places.append(weakref.ref(token))
        room.put(place, again, until=NOW + HOUR + number, now=NOW)

    for number in range(1_000):
        put_again(number)
        # The entries that may be out of date, and those for what is known.
        assert remembered() <= 10 + 3
    room.forget(NOW + HOUR + 999)
    assert len(room) == 1
    room.forget(NOW + HOUR + 1_000)
    assert len(room) == remembered() == 0


def test_a_doubt_is_about_its_message_until_its_end() -> None:
    doubts = Doubts()
    assert not doubts
    digest, other = bytes(32), bytes(7) + b"\1" + bytes(24)
    doubts.add(digest, NOW + 10 * SECOND)
    doubts.add(digest, NOW)
    assert doubts
    assert doubts.has(digest, NOW + 10 * SECOND)
    assert not doubts.has(digest, NOW + 12 * SECOND)
    assert not doubts.has(other, NOW)
    # Who shares its slot is asked about as well.
    assert doubts.has(SLOTS.to_bytes(8) + bytes(24), NOW)
    doubts.add(other, 2**53 - 1)
    assert doubts.has(other, NOW)
