"""The order of entries: what a log begins with, every sequence once, gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import (
    Entry,
    EntryKind,
    EntryOrder,
    creation_entry,
    gap_entry,
    previous_entry,
    unverified_entry,
    verified_entry,
)

CREATION = creation_entry("AUDIT", created=5)
PREVIOUS = previous_entry(b"note", created=5)


def message(sequence: int, time: int = 10) -> Entry:
    return unverified_entry(sequence, time=time, payload=b"")


def taken(*entries: Entry) -> EntryOrder:
    order = EntryOrder()
    for entry in entries:
        order.take_entry(entry)
    return order


def refused(*entries: Entry) -> str:
    order = taken(*entries[:-1])
    with pytest.raises(LogError) as caught:
        order.take_entry(entries[-1])
    assert caught.value.code is Code.BAD_ENTRY
    assert order.size == len(entries) - 1
    return caught.value.detail


def test_a_log_from_its_beginning() -> None:
    good = verified_entry(2, time=10, header_digest=bytes(32))
    order = taken(CREATION, PREVIOUS, message(1), good, gap_entry(3, 4, time=20), message(7, 20))
    assert (order.size, order.next, order.settled) == (6, 8, True)


def test_a_checkpoint_lies_neither_before_the_first_entry_nor_in_a_gap() -> None:
    assert not EntryOrder().settled
    assert taken(CREATION).settled
    assert not taken(CREATION, gap_entry(1, 2, time=10)).settled
    assert taken(CREATION, gap_entry(1, 2, time=10), message(3)).settled


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([message(1)], "a log begins with"),
        ([PREVIOUS], "a log begins with"),
        ([CREATION, CREATION], "a log begins with"),
        ([CREATION, PREVIOUS, PREVIOUS], "comes second"),
        ([CREATION, message(1), PREVIOUS], "comes second"),
        ([CREATION, message(2)], "another sequence"),
        ([CREATION, message(1), message(1)], "another sequence"),
        ([CREATION, message(1), message(3)], "another sequence"),
        ([CREATION, gap_entry(2, 1, time=10)], "another sequence"),
        ([CREATION, gap_entry(1, 1, time=10), gap_entry(2, 1, time=10)], "two gaps"),
        ([CREATION, gap_entry(1, 2, time=10), message(2)], "another sequence"),
        ([CREATION, gap_entry(1, 2, time=10), message(3, 11)], "stored time of the entry after it"),
        ([CREATION, message(1), CREATION], "a log begins with"),
    ],
)
def test_what_may_not_come_next(entries: list[Entry], why: str) -> None:
    assert why in refused(*entries)


def test_a_stream_is_restored_to_at_most_what_was_logged() -> None:
    assert taken(CREATION, message(1), message(2), Entry(EntryKind.RESTORED, 2, 10, bytes(32), 0)).next == 3
    assert taken(CREATION, message(1), message(2), Entry(EntryKind.RESTORED, 0, 10, bytes(32), 0), message(1)).next == 2
    assert "beyond the logged entries" in refused(
        CREATION, message(1), message(2), Entry(EntryKind.RESTORED, 3, 10, bytes(32), 0)
    )


def test_it_goes_on_where_a_checkpoint_was() -> None:
    order = EntryOrder(size=12, last=9)
    order.take_entry(message(10))
    assert (order.size, order.next) == (13, 11)
    beginning = EntryOrder(size=1)
    beginning.take_entry(PREVIOUS)
    assert beginning.next == 1


@pytest.mark.parametrize(("size", "last"), [(-1, 0), (1, -1), (0, 1)])
def test_no_log_has_come_so_far(size: int, last: int) -> None:
    with pytest.raises(LogError, match="bad_entry"):
        EntryOrder(size, last)


@given(st.lists(st.integers(1, 5), max_size=20))
def test_every_sequence_is_accounted_for_once(steps: list[int]) -> None:
    """Messages with holes between them, each hole one gap: the order takes them, and counts up to the last."""
    order, last, entries = taken(CREATION), 0, 1
    for step in steps:
        if step > 1:
            order.take_entry(gap_entry(last + 1, step - 1, time=10))
            entries += 1
        last += step
        order.take_entry(message(last))
        entries += 1
    assert (order.next, order.size, order.settled) == (last + 1, entries, True)
