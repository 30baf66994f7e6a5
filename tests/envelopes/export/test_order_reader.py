"""The order of entries, told on after something was wrong."""

from __future__ import annotations

import pytest
from support.log_world import make_world

from sealbus.envelopes.export.entries import OrderReader
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.restoration import Restoration, sign_restoration
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ORIGIN = "log.example.org/audit"
SIGNER = NoteSigner(ORIGIN, bytes(32))
OPERATOR = SpiffeId("spiffe://example.org/agent/operator")
CREATION = Frame(EntryKind.CREATION, 0, 5, b"AUDIT")


def message(sequence: int, stored: int = 7) -> Frame:
    return Frame(EntryKind.UNVERIFIED, sequence, stored, b"")


def gap(first: int, count: int, stored: int = 7) -> Frame:
    return Frame(EntryKind.GAP, first, stored, count.to_bytes(8, "big"))


def places(*frames: Frame) -> list[str]:
    reader = OrderReader()
    for index, frame in enumerate(frames):
        reader.take_frame(frame, index)
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
    reader.take_frame(CREATION, 0)
    reader.lose()
    for index, sequence in enumerate((40, 41, 43), 7):
        reader.take_frame(message(sequence), index)
    reader.end()
    assert [finding.place for finding in reader.findings] == ["#43"]


def test_nothing_is_said_of_an_end_that_is_lost() -> None:
    reader = OrderReader()
    reader.take_frame(CREATION, 0)
    reader.take_frame(gap(1, 4), 1)
    reader.lose()
    reader.end()
    assert reader.findings == []


def test_a_lost_beginning() -> None:
    reader = OrderReader()
    reader.lose()
    reader.take_frame(CREATION, 0)
    reader.take_frame(message(1), 1)
    assert reader.findings == []


def lost(sequence: int) -> Frame:
    return Frame(EntryKind.LOST, sequence, 0, bytes(32))


def restored(last: int, *, before: int = 5, time: int = 40) -> Frame:
    one = Restoration(origin=ORIGIN, before=before, created=before + 1, last=last, by=OPERATOR, time=time)
    return Frame(EntryKind.RESTORED, last, time, sign_restoration(one, [SIGNER]))


@pytest.mark.parametrize(
    ("frames", "found"),
    [
        ([message(1), message(2), restored(2), message(3)], []),
        ([message(1), message(2), restored(1), message(2)], []),
        ([restored(0), message(1)], []),
        ([message(1), restored(1), restored(1, before=6), message(2)], []),
        ([message(1), restored(1), restored(1), message(2)], ["#1 bad_entry"]),
        ([message(1), lost(2), lost(3), restored(1), message(2)], ["#2 lost_records"]),
        ([message(1), lost(2), message(3), lost(4), restored(1), message(2)], ["#2 lost_records"]),
        ([message(1), lost(2), message(3), restored(2), message(3)], ["#2 bad_entry"]),
        ([message(1), lost(2)], ["#2 bad_entry"]),
        ([message(1), lost(3), message(4)], ["#3 bad_entry", "#3 bad_entry"]),
        ([message(1), restored(1, before=9), message(2)], ["#1 bad_entry"]),
        ([message(1), restored(2), message(2)], ["#2 bad_entry", "#2 bad_entry"]),
        ([gap(1, 3), lost(4), restored(0), message(1)], ["#4 lost_records"]),
        ([gap(1, 3), restored(0), message(1)], ["#0 bad_entry"]),
        ([message(1), restored(1)._replace(data=b"no note"), message(9)], []),
    ],
)
def test_a_restored_stream_goes_on_from_its_last_sequence(frames: list[Frame], found: list[str]) -> None:
    reader = OrderReader()
    for index, frame in enumerate([CREATION, *frames]):
        reader.take_frame(frame, index)
    reader.end()
    assert [f"{one.place} {one.code}" for one in reader.findings] == found


def test_what_was_lost_is_told_by_sequence() -> None:
    reader = OrderReader()
    for index, frame in enumerate([CREATION, message(1), lost(2), lost(3), message(4), lost(5), restored(1)]):
        reader.take_frame(frame, index)
    [shown] = reader.restorations
    assert (shown.logged, shown.lost, shown.ranges, shown.restoration.last) == (5, 3, ((2, 3), (5, 5)), 1)
    for index, sequence in enumerate(range(2, 2 * 150, 2), 7):
        reader.lose()
        reader.take_frame(lost(sequence), index)
    reader.lose()
    reader.take_frame(restored(1, before=6), 999)
    assert (len(reader.restorations[1].ranges), reader.restorations[1].lost) == (100, 149)


def test_order_begins_anew_where_what_is_lost_stands() -> None:
    reader = OrderReader()
    reader.lose()
    reader.take_frame(lost(40), 7)
    reader.take_frame(message(41), 8)
    reader.lose()
    reader.take_frame(restored(39, before=8), 0)
    assert [f"{one.place} {one.code}" for one in reader.findings] == ["#40 lost_records", "#39 bad_entry"]
