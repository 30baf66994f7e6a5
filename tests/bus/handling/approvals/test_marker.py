"""The marker of a task that waits: it reads back as it was written, and what was told before holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import Message
from support.envelopes import NOW
from support.parked import parked_task, value_of
from support.payments import Payments

from sealbus.bus.handling.approvals.marker import MARKER_TYPE, Marker, Markers, marker_subject, parsed_marker
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.testing import TestBus

NOT_ITS_OWN = dict.fromkeys(("que", "dig", "rec", "snc", "unt", "sta", "trn", "run"))
TASK = parse_header(Message().raw())


@given(st.binary(min_size=32, max_size=32), st.integers(0, 1 << 52), st.booleans())
def test_a_marker_reads_back_as_it_was_written(digest: bytes, until: int, ended: bool) -> None:
    marker = Marker(digest=digest, until=until, ended=ended)
    keys: dict[str, Any] = {**NOT_ITS_OWN, **marker.keys()}
    assert parsed_marker(value_of(parked_task(), **keys)) == marker
    for bent in ({"dig": "x"}, {"unt": "x"}, {"end": 1}, {"more": 1}, {"end": None}):
        assert parsed_marker(value_of(parked_task(), **{**keys, **bent})) is None


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as running:
        yield running


def markers(bus: TestBus) -> Markers:
    node = bus.workers["payments"].node
    return Markers(node.held, identity=node.identity, names=node.deployment.names)


async def told(bus: TestBus, task: Header = TASK) -> Marker | None:
    node = bus.workers["payments"].node
    subject = marker_subject("payments", node.deployment.names.token(task.iss), task.id)
    value, _ = await node.held.standing(subject, MARKER_TYPE)
    return parsed_marker(value) if value is not None else None


@pytest.mark.parametrize("first", [True, False])
async def test_what_was_told_before_holds(bus: TestBus, first: bool) -> None:
    written = markers(bus)
    await written.put(TASK, until=NOW + 5 * SECOND, ended=False, first=first)
    await written.put(TASK, until=NOW, ended=False, first=first)
    assert await told(bus) == Marker(digest=TASK.digest, until=NOW + 5 * SECOND, ended=False)
    assert not await written.has_ended(TASK)
    await written.put(TASK, until=NOW + 9 * SECOND, ended=True, first=first)
    await written.put(TASK, until=NOW + 6 * SECOND, ended=False, first=first)
    assert await told(bus) == Marker(digest=TASK.digest, until=NOW + 9 * SECOND, ended=True)
    assert await written.has_ended(TASK)
    # A message with the same id is another one, whose marker takes that place.
    other = TASK._replace(digest=bytes(32))
    assert not await written.has_ended(other)
    await written.put(other, until=NOW, ended=False)
    assert await told(bus) == Marker(digest=bytes(32), until=NOW, ended=False)


async def test_the_first_is_written_before_anybody_looks(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    node, looked = bus.workers["payments"].node, list[str]()
    true = node.held.standing

    async def standing(subject: str, *arguments: Any, **named: Any) -> Any:
        looked.append(subject)
        return await true(subject, *arguments, **named)

    monkeypatch.setattr(node.held, "standing", standing)
    await markers(bus).put(TASK, until=NOW, ended=False, first=True)
    assert not looked
    await markers(bus).put(TASK, until=NOW, ended=False)
    assert len(looked) == 1


async def test_it_is_written_where_another_has_come_in_between_and_given_up_where_all_do(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, left = bus.workers["payments"].node, [2]
    true = node.held.write

    async def write(*arguments: Any, **named: Any) -> int | None:
        left[0] -= 1
        return await true(*arguments, **named) if left[0] < 0 else None

    monkeypatch.setattr(node.held, "write", write)
    await markers(bus).put(TASK, until=NOW, ended=False)
    assert await told(bus) is not None
    left[0] = 100
    with pytest.raises(StateUnavailable):
        await markers(bus).put(TASK, until=NOW + SECOND, ended=False)
