"""A refused delivery whose outcome is not known yet is put off: a task by its own end, a resumed one by its approval's."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from support.envelopes import MINUTE, NOW
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.ports import Delivery
from sealbus.bus.routing.stages import Opened
from sealbus.bus.work.executor.ending import TurnDown
from sealbus.bus.work.executor.settlement import Stores, WorkSettlement
from sealbus.envelopes.errors import Code, StateUnavailable
from sealbus.envelopes.message.freshness import StreamArrival


def delivery(number: int) -> Delivery:
    return Delivery(
        "task.a.b", b"", b"", StreamArrival("task.a.b", b"", "TASKS", 1, NOW, NOW - MINUTE, number), "token"
    )


@pytest.mark.parametrize(
    ("task_ends", "approval_ends", "waits"),
    [
        (NOW + MINUTE, None, True),
        (NOW - 1, None, False),
        # The task's own end is long over while it waits for a person.
        (NOW - MINUTE, NOW + MINUTE, True),
        (NOW + MINUTE, NOW - 1, False),
    ],
)
async def test_it_waits_until_the_end_of_what_is_delivered(
    task_ends: int, approval_ends: int | None, waits: bool
) -> None:
    reporter, places, broker_side = AsyncMock(), Mock(), Mock()
    effects = Mock(was_told=lambda _: False, may_have_happened=AsyncMock(side_effect=StateUnavailable("away")))
    stores: Any = Mock(
        spec=Stores, statuses=Mock(reporter=lambda *_: reporter), effects=effects, places=places,
    )  # fmt: skip
    settlement = WorkSettlement(
        site_of(MemoryBroker(lambda: NOW).connect(), lambda: NOW),
        stores,
        outcomes=Mock(),
        completion=Mock(),
        background=Mock(),
        detail=Mock(),
    )
    approval = Mock(header=Mock(exp=approval_ends), arrival=delivery(2).arrival)
    opened = Opened(
        delivery=delivery(2 if approval_ends is None else 1),
        route=Mock(options=Mock(once=True)),
        message=Mock(header=Mock(exp=task_ends)),
        time=NOW,
        resumed=None if approval_ends is None else Mock(approval=approval),
    )
    await settlement.reject(opened, broker_side, TurnDown(Code.DENIED, Mock()), "")
    assert (places.put_off.called, reporter.tell.called, broker_side.term.called) == (waits, not waits, not waits)
