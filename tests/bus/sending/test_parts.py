"""Results in parts: counted and hashed as they are written, read in order, without gaps, of one delivery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.bus.sending import parts as module
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import MOST_PARTS, PART_BYTES, PARTS_TYPE, GatheredParts, PartsReading, PartsTally
from sealbus.bus.sending.status import State, Status, sequence_of
from sealbus.envelopes.errors import Code, HandlingError


def content(body: bytes) -> Content:
    return Content(body=body, typ="application/json")


def part(number: int, body: bytes = b"1", *, delivery: int = 1, place: int | None = None) -> Status:
    sequence = sequence_of(delivery, number if place is None else place)
    return Status(state=State.WORKING, part=content(body), number=number, sequence=sequence)


def result(bodies: Sequence[bytes]) -> Content:
    tally = PartsTally()
    for number, body in enumerate(bodies):
        assert tally.add(content(body)) == number
    return tally.result()


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_what_was_written_is_read(bodies: list[bytes]) -> None:
    reading = PartsReading()
    assert [reading.take(part(number, body)) for number, body in enumerate(bodies)] == [False] * len(bodies)
    reading.check(result(bodies))


def test_the_result_says_how_many_parts_there_are_and_their_hash() -> None:
    said = json.loads(result([b"a", b"b"]).body)
    assert said == {"v": 1, "parts": 2, "hash": sha256(sha256(b"a").digest() + sha256(b"b").digest()).hexdigest()}
    assert result([]).typ == PARTS_TYPE


def test_other_statuses_may_stand_between_parts() -> None:
    reading = PartsReading()
    reading.take(part(0, place=3))
    reading.take(part(1, place=7))
    reading.check(result([b"1", b"1"]))


def test_a_result_of_another_type_is_no_matter_of_parts() -> None:
    PartsReading().check(content(b"null"))


@pytest.mark.parametrize("numbers", [[1], [0, 2], [0, 0], [0, 1, 1]])
def test_a_gap_or_a_part_again_is_found(numbers: list[int]) -> None:
    reading = PartsReading()
    for place, number in enumerate(numbers[:-1]):
        reading.take(part(number, place=place))
    with pytest.raises(HandlingError) as caught:
        reading.take(part(numbers[-1], place=len(numbers)))
    assert caught.value.code is Code.BAD_RESULT


@pytest.mark.parametrize("other", [[b"1"], [b"1", b"2"], [b"2", b"1"], [b"1", b"1", b"1"], []])
def test_parts_of_another_result_are_found(other: list[bytes]) -> None:
    reading = PartsReading()
    for number in range(2):
        reading.take(part(number))
    with pytest.raises(HandlingError) as caught:
        reading.check(result(other))
    assert caught.value.code is Code.BAD_RESULT


def test_another_delivery_begins_again_and_one_before_it_does_not_come_back() -> None:
    reading = PartsReading()
    reading.take(part(0, b"a"))
    reading.take(part(1, b"b"))
    assert reading.take(part(0, b"c", delivery=3))
    reading.check(result([b"c"]))
    with pytest.raises(HandlingError):
        reading.take(part(1, b"d", delivery=1))


def test_a_delivery_that_does_not_begin_at_its_first_part_is_found() -> None:
    reading = PartsReading()
    reading.take(part(0))
    with pytest.raises(HandlingError):
        reading.take(part(1, delivery=2))


def test_a_reader_that_had_earlier_parts_goes_on_behind_them() -> None:
    reading = PartsReading(resumed=True)
    assert not reading.take(part(5))
    assert not reading.take(part(6))
    with pytest.raises(HandlingError):
        reading.take(part(8))


def test_a_status_that_is_no_part_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="no part"):
        PartsReading().take(Status(state=State.WORKING))


def test_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = PartsTally()
    tally.add(content(bytes(PART_BYTES)))
    with pytest.raises(HandlingError):
        tally.add(content(bytes(PART_BYTES + 1)))
    many = PartsTally()
    for _ in range(MOST_PARTS):
        many.add(content(b""))
    with pytest.raises(HandlingError):
        many.add(content(b""))
    monkeypatch.setattr(module, "PARTS_BYTES", 10)
    few = PartsTally()
    few.add(content(b"123456"))
    with pytest.raises(HandlingError) as caught:
        few.add(content(b"12345"))
    assert caught.value.code is Code.BAD_RESULT


def test_the_parts_of_the_delivery_that_counts_are_gathered() -> None:
    parts = GatheredParts()
    parts.take(Status(state=State.WORKING, note="begun", sequence=sequence_of(1, 5)))
    for one in (part(0, b"1"), part(1, b"2"), part(0, b"3", delivery=2)):
        parts.take(one)
    assert parts.contents == [content(b"3")]
    with pytest.raises(HandlingError):
        parts.take(Status(state=State.COMPLETED, result=result([b"1", b"2"]), sequence=sequence_of(2, 9)))
    parts.take(Status(state=State.COMPLETED, result=result([b"3"]), sequence=sequence_of(2, 9)))
    with pytest.raises(HandlingError):
        parts.take(part(2, b"4", delivery=2))
