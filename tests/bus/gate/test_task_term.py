"""The term of a task: whether it waits for an approval, until when it is open, and what its marker changes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import pytest
from support.acceptance import INVENTORY, PLANNER, Message
from support.envelopes import HOUR, NAMES
from support.near import nearly
from support.parked import parked_task, value_of

from sealbus.bus.gate.task_term import Phase, TaskTerm
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.bus.work.approvals.marker import MARKER_TYPE, Marker, marker_subject
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError, StateUnavailable
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.header import parse_header

TASK = PendingRequest.of(parse_header(Message().raw()))
PROFILE = ResultProfile(own=PLANNER.iss, names=NAMES)
SUBJECT = marker_subject("inventory", "planner", TASK.id)


class Stored:
    """Stands for HELD with at most one marker in it."""

    def __init__(self) -> None:
        self.marker: Marker | None = None
        self.error: SealbusError | None = None
        self.reads = 0

    def put(self, until: int, *, ended: bool = False, digest: bytes = TASK.digest) -> None:
        self.marker = Marker(digest=digest, until=until, ended=ended)

    async def newest(self, pattern: str, payload_type: str) -> dict[str, HeldValue]:
        assert (pattern, payload_type) == (SUBJECT, MARKER_TYPE)
        self.reads += 1
        if self.error is not None:
            raise self.error
        if self.marker is None:
            return {}
        value = value_of(parked_task(), subject=SUBJECT)
        return {SUBJECT: replace(value, own=INVENTORY, keys=RecordMap({"v": 1, **self.marker.keys()}))}


def term_of(stored: Stored | None) -> TaskTerm:
    return TaskTerm(TASK, cast("Held | None", stored), PROFILE)


async def test_without_a_marker_a_task_is_open_until_its_own_end() -> None:
    term = term_of(Stored())
    assert not await term.learn()
    assert (term.phase, term.end, term.is_parked) == (Phase.OPEN, TASK.end, False)


@pytest.mark.parametrize(("later", "counts"), [(HOUR, True), (0, False), (-HOUR, False)])
async def test_a_marker_says_until_when_the_task_waits(later: int, counts: bool) -> None:
    stored = Stored()
    stored.put(TASK.end + later)
    term = term_of(stored)
    # Statuses that did not count before may count only if the task is open for longer than was known.
    assert await term.learn() is counts
    assert (term.phase, term.end, term.is_parked) == (Phase.PARKED, TASK.end + later, True)
    assert not await term.learn()


async def test_a_task_that_has_ended_is_over_and_is_not_looked_up_again() -> None:
    stored = Stored()
    stored.put(TASK.end - HOUR, ended=True)
    term = term_of(stored)
    assert await term.learn()
    assert (term.phase, term.end, term.is_parked) == (Phase.OVER, TASK.end - HOUR, True)
    assert not await term.learn()
    assert stored.reads == 1


async def test_the_marker_of_another_task_changes_nothing() -> None:
    stored = Stored()
    stored.put(TASK.end + HOUR, digest=nearly(TASK.digest))
    term = term_of(stored)
    assert not await term.learn()
    assert (term.phase, term.end) == (Phase.OPEN, TASK.end)


async def test_a_status_alone_says_that_the_task_waits_and_not_until_when() -> None:
    term = term_of(None)
    term.note_parked()
    assert (term.phase, term.end, term.is_parked) == (Phase.PARKED, TASK.end, True)
    assert not await term.learn()


@pytest.mark.parametrize("phase", [Phase.UNLEARNED, Phase.OVER])
def test_a_status_changes_no_later_phase(phase: Phase) -> None:
    term = term_of(None)
    term.phase = phase
    term.note_parked()
    assert term.phase is phase


async def test_a_marker_that_turns_out_not_to_be_there_ends_the_tries() -> None:
    term = term_of(Stored())
    term.phase = Phase.UNLEARNED
    assert not await term.learn()
    assert term.phase is Phase.PARKED


async def test_without_the_stream_no_task_waits_and_the_operator_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    stored = Stored()
    stored.error = ConfigurationError("no stream HELD")
    term = term_of(stored)
    with caplog.at_level(logging.WARNING):
        assert not await term.learn()
    assert (term.phase, term.end) == (Phase.OPEN, TASK.end)
    assert f"whether task {TASK.id.hex()} is parked is not known: no stream HELD" in caplog.text


@pytest.mark.parametrize("error", [BusUnavailable("away"), StateUnavailable("later")])
async def test_a_marker_that_cannot_be_read_now_is_an_error_and_changes_nothing(error: SealbusError) -> None:
    stored = Stored()
    stored.error = error
    term = term_of(stored)
    with pytest.raises(type(error)):
        await term.learn()
    assert (term.phase, term.end) == (Phase.OPEN, TASK.end)
