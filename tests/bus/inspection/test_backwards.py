"""A stream read from its end, window by window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.inspection.backwards import backwards, read_on
from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import BusUnavailable


@pytest.fixture
def broker() -> MemoryBroker:
    """A stream of ten messages, every third of them of another agent."""
    made = MemoryBroker()
    made.add_stream("TASKS", ["task.>"])
    for number in range(1, 11):
        made.inject(f"task.{'other' if number % 3 == 0 else 'shop'}.x", b"%d" % number)
    return made


async def read(
    broker: MemoryBroker, subject: str, *, first: int = 1, last: int = 10, window: int = 4
) -> list[list[str]]:
    def payload(delivery: Delivery) -> str:
        return delivery.payload.decode()

    source = backwards(broker.connect(), "TASKS", [subject], first=first, last=last, keep=payload, window=window)
    return [found async for found in source]


async def test_each_message_is_read_once_the_newest_window_first(broker: MemoryBroker) -> None:
    assert await read(broker, "task.>") == [["7", "8", "9", "10"], ["3", "4", "5", "6"], ["1", "2"]]
    assert await read(broker, "task.>", window=100) == [[str(number) for number in range(1, 11)]]


async def test_a_window_without_any_is_passed_over(broker: MemoryBroker) -> None:
    assert await read(broker, "task.other.>", window=2) == [["9"], ["6"], ["3"]]
    assert await read(broker, "task.nobody.>") == []


async def test_nothing_outside_of_the_bounds_is_read(broker: MemoryBroker) -> None:
    assert await read(broker, "task.>", first=3, last=8) == [["5", "6", "7", "8"], ["3", "4"]]
    assert await read(broker, "task.>", first=1, last=0) == []


class Refused(MemoryTransport):
    """A reader that is refused tries again for ever, as it does where permissions lack."""

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        await asyncio.Event().wait()
        yield []


async def test_an_operator_does_not_wait_for_ever(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.bus.inspection.backwards.ANSWER_WITHIN", 0.01)
    with pytest.raises(BusUnavailable, match="TASKS cannot be read"):
        [one async for one in read_on(Refused(broker), "TASKS", ["task.>"])]
