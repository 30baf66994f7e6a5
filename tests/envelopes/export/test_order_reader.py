"""The order of entries, told on after something was wrong."""

from __future__ import annotations

import pytest
from support.log_world import make_world

from sealbus.envelopes.export.entries import OrderReader
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.log.entries import EntryKind

CREATION = Frame(EntryKind.CREATION, 0, 5, b"AUDIT")


def message(sequence: int, stored: int = 7) -> Frame:
    return Frame(EntryKind.UNVERIFIED, sequence, stored, b"")


def gap(first: int, count: int, stored: int = 7) -> Frame:
    return Frame(EntryKind.GAP, first, stored, count.to_bytes(8, "big"))


def places(*frames: Frame) -> list[str]:
    reader = OrderReader()
    for index, frame in enumerate(frames):
        reader.take(frame, index)
    reader.end()
    return [finding.place for finding in reader.findings]


@pytest.mark.parametrize("seed", range(6))
def test_a_log_is_in_order(seed: int) -> None:
    assert places(*(Frame(EntryKind(one.kind), *one[1:]) for one in make_world(seed, 20).frames)) == []


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        ([CREATION, message(1), message(3), message(4)], ["#3"]),
        ([CREATION, message(1), message(1), message(2)], ["#1"]),
        ([CREATION, message(2)], ["#2"]),
        ([message(1), message(2)], ["#1"]),
        ([CREATION, message(1), CREATION, message(2)], ["#0"]),
        ([CREATION, gap(1, 4), message(5)], []),
        ([CREATION, gap(1, 4), message(6)], ["#6"]),
        ([CREATION, gap(1, 4), message(5, stored=8)], ["#5"]),
        ([CREATION, gap(1, 4)], ["checkpoint"]),
        ([], ["checkpoint"]),
        ([CREATION, gap(1, 0), message(9)], []),
    ],
)
def test_what_is_out_of_order_is_said_once(frames: list[Frame], found: list[str]) -> None:
    assert places(*frames) == found


def test_order_begins_anew_after_what_is_lost() -> None:
    reader = OrderReader()
    reader.take(CREATION, 0)
    reader.lose()
    for index, sequence in enumerate((40, 41, 43), 7):
        reader.take(message(sequence), index)
    reader.end()
    assert [finding.place for finding in reader.findings] == ["#43"]


def test_nothing_is_said_of_an_end_that_is_lost() -> None:
    reader = OrderReader()
    reader.take(CREATION, 0)
    reader.take(gap(1, 4), 1)
    reader.lose()
    reader.end()
    assert reader.findings == []


def test_a_lost_beginning() -> None:
    reader = OrderReader()
    reader.lose()
    reader.take(CREATION, 0)
    reader.take(message(1), 1)
    assert reader.findings == []
