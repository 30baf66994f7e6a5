"""Refusals: counted per code, subject and minute in bounded memory, and never in anybody's way."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.lab import until

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.clocks import BusClock
from sealbus.bus.gate.refusals import MAX_KEYS, Refusals
from sealbus.bus.ports import Delivery
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, Code, EnvelopeError
from sealbus.envelopes.limits import SECOND

ERROR = EnvelopeError(Code.MALFORMED, 1, "no envelope")


class Setting:
    def __init__(self) -> None:
        self.now = 120 * SECOND
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("REFUSALS", ["refused.>"])
        self.counters = Counters()
        self.refusals = Refusals(
            transport=self.broker.connect(),
            subject="refused.inventory",
            counters=self.counters,
            clock=BusClock(lambda: self.now),
        )

    def count(self, subject: str = "task.inventory.update", payload: bytes = b"garbage") -> None:
        self.refusals.count(ERROR, Delivery(subject=subject, payload=payload, header_block=b""))

    async def published(self) -> list[dict[str, object]]:
        await self.refusals.flush()
        return [json.loads(one.payload) for one in self.broker.streams["REFUSALS"].stored]


@pytest.fixture
def setting() -> Setting:
    return Setting()


async def test_one_refusal_says_what_and_where(setting: Setting) -> None:
    setting.count()
    assert await setting.published() == [
        {
            "code": "malformed",
            "subject": "task.inventory.update",
            "minute": 120,
            "count": 1,
            "step": 1,
            "detail": "no envelope",
            "sample": b"garbage".hex(),
        }
    ]


async def test_the_same_again_is_a_count_with_the_first_as_sample(setting: Setting) -> None:
    for payload in (b"first", b"second", b"third"):
        setting.count(payload=payload)
    (one,) = await setting.published()
    assert (one["count"], one["sample"]) == (3, b"first".hex())


async def test_another_minute_is_counted_apart(setting: Setting) -> None:
    setting.count()
    setting.now += 60 * SECOND
    setting.count()
    assert [one["minute"] for one in await setting.published()] == [120, 180]


async def test_a_sample_is_bounded(setting: Setting) -> None:
    setting.count(payload=b"x" * 5_000)
    (one,) = await setting.published()
    assert one["sample"] == (b"x" * 1_024).hex()


async def test_keys_are_bounded_and_the_rest_is_counted_together(setting: Setting) -> None:
    for number in range(10_000):
        setting.count(f"task.inventory.x{number}")
    found = await setting.published()
    assert len(found) == MAX_KEYS + 1
    assert {one["subject"]: one["count"] for one in found}["other"] == 10_000 - MAX_KEYS


async def test_what_cannot_be_published_is_counted_and_dropped(setting: Setting) -> None:
    setting.broker.fail("REFUSALS", BusUnavailable("away"))
    setting.count()
    assert await setting.published() == []
    assert setting.counters.value("sealbus_refusals_lost_total") == 1
    assert setting.counters.value("sealbus_refused_total", code="malformed") == 1
    setting.broker.fail("REFUSALS", None)
    assert await setting.published() == []


async def test_refusals_are_published_while_it_runs_each_time_there_are_some(setting: Setting) -> None:
    setting.refusals._every = 0.001
    running = asyncio.create_task(setting.refusals.run())
    stream = setting.broker.streams["REFUSALS"]
    for number in (1, 2):
        setting.count()
        await until(lambda number=number: len(stream.stored) == number, seconds=60)  # type: ignore[misc]
    running.cancel()
    await asyncio.wait({running})
    assert len(stream.stored) == 2
