"""Processes without an end, whatever part of a log their start and end are in, and however many there are."""

from __future__ import annotations

import pytest
from vectors.issuing import INVENTORY, PLANNER

from sealbus.envelopes.export import processes
from sealbus.envelopes.export.processes import OpenProcesses, Run, Started
from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def part(*records: tuple[str, int, int], agent: str = INVENTORY, counted: bool = True) -> OpenProcesses:
    """Return a part of a log with these records: action, instance, time."""
    made = OpenProcesses()
    for action, instance, time in records:
        record = ProcessRecord(action=action, instance=bytes([instance]) * 16, version="1.2")
        made.take_record(record, SpiffeId(agent), time=time, counted=counted)
    return made


def whole(*parts: OpenProcesses) -> OpenProcesses:
    made = OpenProcesses()
    for one in parts:
        made.add(one)
    return made


def run(instance: int, agent: str = INVENTORY) -> Run:
    return Run(agent, bytes([instance]) * 16)


def test_one_without_an_end() -> None:
    made = whole(part(("start", 1, 10), ("start", 2, 20)), part(("end", 1, 30)))
    assert made.started == {run(2): Started(20, "1.2")}
    assert made.more == 0


def test_an_end_by_another_agent_ends_nothing() -> None:
    made = whole(part(("start", 1, 10)), part(("end", 1, 20), agent=PLANNER))
    assert list(made.started) == [run(1)]


def test_a_start_outside_of_the_span_is_not_shown_and_an_end_after_it_counts() -> None:
    made = whole(part(("start", 1, 10), counted=False), part(("start", 2, 20)), part(("end", 2, 30), counted=False))
    assert made.started == {}


def test_an_action_of_a_newer_writer_is_neither() -> None:
    assert whole(part(("start", 1, 10), ("resume", 1, 20))).started == {run(1): Started(10, "1.2")}


def test_a_start_that_is_stored_again_after_the_end_opens_nothing() -> None:
    again = part(("start", 1, 30))
    made = whole(part(("start", 1, 10), ("end", 1, 20)), again)
    made.remove(again)
    assert made.started == {}


def test_a_start_that_is_stored_twice_without_an_end_is_the_first() -> None:
    again = part(("start", 1, 30))
    made = whole(part(("start", 1, 10)), again)
    made.remove(again)
    assert made.started == {run(1): Started(10, "1.2")}


def test_an_end_after_a_repeated_start_of_its_part_ends_the_first_too() -> None:
    assert whole(part(("start", 1, 10)), part(("start", 1, 20), ("end", 1, 30))).started == {}


def test_more_than_are_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST_OPEN", 2)
    made = whole(part(("start", 1, 1), ("start", 2, 2), ("start", 3, 3)), part(("start", 4, 4)))
    assert (list(made.started), made.more) == ([run(1), run(2)], 2)
    ended = part(("end", 1, 5), ("end", 2, 5), ("end", 3, 5))
    assert len(ended.ended) == 2
