"""Counts, bounded whatever is counted."""

from __future__ import annotations

from dataclasses import replace

from vectors.issuing import INVENTORY, PLANNER
from vectors.recorded import records
from vectors.world import Message

from sealbus.envelopes.export.processes import Run, Started
from sealbus.envelopes.export.tally import MOST_ROWS, Row, Span, Tally
from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.records.work import READ_AGAIN, DenialsRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ALL = {kind: [parse_record(item) for item in items] for kind, items in records(Message()).items()}
RECORDER = SpiffeId(INVENTORY)


def counted(kind: str) -> dict[Row, int]:
    tally = Tally()
    for record in ALL[kind]:
        tally.take_record(record, RECORDER, counted=True)
    assert tally.records[kind] == len(ALL[kind])
    return dict(tally.rows)


def test_decisions() -> None:
    rows = counted("decision")
    assert rows[Row(INVENTORY, "inventory.update", "allow", "")] == 11
    assert rows[Row(INVENTORY, "inventory.update", "deny", "policy_unavailable")] == 2


def test_outcomes() -> None:
    assert counted("outcome") == {
        Row(INVENTORY, "", "done", ""): 4,
        Row(INVENTORY, "", "failed", "handler_failed"): 1,
        Row(INVENTORY, "", "failed", "a" * 64): 1,
    }


def test_denials_count_as_often_as_they_say() -> None:
    assert counted("denials") == {
        Row(INVENTORY, "", "deny", "denied"): 40,
        Row(INVENTORY, "", "deny", "bad_body"): 1,
        Row(INVENTORY, "", "deny", "obligation_unknown"): 1,
        Row(INVENTORY, "", "deny", "a_code_of_a_newer_writer"): 2,
    }


def test_what_was_read_again_was_allowed() -> None:
    tally = Tally()
    # What only begins like the code, or is its beginning, is another code.
    counts = {READ_AGAIN: 7, "denied": 2, f"{READ_AGAIN}_x": 3, READ_AGAIN[:-1]: 1}
    tally.take_record(DenialsRecord(iss=RECORDER, minute=0, counts=counts), RECORDER, counted=True)
    assert tally.rows == {
        Row(RECORDER.value, "", "allow", READ_AGAIN): 7,
        Row(RECORDER.value, "", "deny", "denied"): 2,
        Row(RECORDER.value, "", "deny", f"{READ_AGAIN}_x"): 3,
        Row(RECORDER.value, "", "deny", READ_AGAIN[:-1]): 1,
    }


def test_what_is_not_counted_by_row() -> None:
    assert counted("policy") == {}
    tally = Tally()
    tally.take_record(ALL["decision"][0], RECORDER, counted=False)
    assert (tally.records.total(), tally.rows.total()) == (1, 0)


def test_processes_are_counted_with_their_times() -> None:
    start = ProcessRecord(action="start", instance=bytes(16), version="0.2.0")
    tally = Tally()
    tally.take_record(start, RECORDER, counted=True, time=7)
    tally.take_record(ALL["decision"][0], RECORDER, counted=True, time=8)
    tally.take_record(replace(start, instance=bytes([1]) * 16), RECORDER, counted=False, time=9)
    assert tally.processes.started == {Run(INVENTORY, bytes(16)): Started(7, "0.2.0")}
    assert tally.records["process"] == 2


def test_what_was_counted_before_is_removed() -> None:
    tally, again = Tally(), Tally()
    for one in (tally, tally, again):
        one.entries["verified"] += 1
        one.take_record(ALL["decision"][0], SpiffeId(PLANNER), counted=True)
    tally.remove(again)
    assert (tally.entries["verified"], tally.records["decision"], tally.rows.total()) == (2, 1, 1)


def test_rows_that_are_there_are_counted_however_many_there_are() -> None:
    tally = Tally()
    for number in range(MOST_ROWS):
        tally.take_record(DenialsRecord(iss=RECORDER, minute=0, counts={f"code_{number}": 1}), RECORDER, counted=True)
    assert len(tally.rows) == MOST_ROWS
    for code in ("code_0", "denied", "another"):
        tally.take_record(DenialsRecord(iss=RECORDER, minute=0, counts={code: 1}), RECORDER, counted=True)
    assert tally.rows[Row(RECORDER.value, "", "deny", "code_0")] == 2
    assert (tally.rows[Row("...", "...", "deny", "denied")], tally.rows[Row("...", "...", "deny", "...")]) == (1, 1)


def test_two_are_added() -> None:
    tally, other = Tally(), Tally()
    for one in (tally, other):
        one.entries["verified"] += 2
        one.take_record(ALL["decision"][0], SpiffeId(PLANNER), counted=True)
    tally.add(other)
    assert (tally.entries["verified"], tally.records["decision"], tally.rows.total()) == (4, 2, 2)


def test_rows_are_bounded() -> None:
    tally, other = Tally(), Tally()
    for number in range(MOST_ROWS + 5):
        other.rows[Row(INVENTORY, f"a.{number}", "allow", "")] += 1
    tally.add(other)
    assert len(tally.rows) == MOST_ROWS + 1
    assert tally.rows[Row("...", "...", "allow", "")] == 5


def test_made_up_codes_fill_no_memory() -> None:
    tally, other = Tally(), Tally()
    for number in range(MOST_ROWS):
        tally.rows[Row(INVENTORY, f"a.{number}", "allow", "")] += 1
    for code in ("denied", "DENIED", "made_up", "denied_twice", "deni"):
        other.rows[Row(INVENTORY, "a.b", "deny", code)] += 1
    tally.add(other)
    assert len(tally.rows) == MOST_ROWS + 2
    assert tally.rows[Row("...", "...", "deny", "...")] == 4


def test_a_span() -> None:
    assert [Span(2, 4).holds(time) for time in (1, 2, 3, 4)] == [False, True, True, False]
    assert Span().holds(0)


def test_records_of_later_kinds_are_counted_together() -> None:
    tally = Tally()
    for record in (*ALL["letter"], *ALL["letter_2"], *ALL["outcome"]):
        tally.take_record(record, RECORDER, counted=True)
    assert (tally.later, len(tally.records)) == (2, 2)
    tally.remove(tally)
    assert tally.later == 0
