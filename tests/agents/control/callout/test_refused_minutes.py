"""Refused connections: one record a minute, whoever asks how often."""

from __future__ import annotations

import asyncio

import pytest

from sealbus.agents.control.callout.refused_minutes import KEPT, RefusedMinutes
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.records.operation import ConnectionsRecord
from sealbus.envelopes.records.work import MINUTE

START = 29_800_000 * MINUTE


class Minutes:
    """The minutes under test, with a clock that the test moves and a stream that may be away."""

    def __init__(self) -> None:
        self.now = START
        self.away = False
        self.stored: list[ConnectionsRecord] = []
        self.tested = RefusedMinutes(lambda: self.now)

    @property
    def counted(self) -> list[tuple[int, dict[str, int]]]:
        return [(record.minute, dict(record.counts)) for record in self.stored]

    async def store(self, record: ConnectionsRecord) -> None:
        if self.away:
            raise BusUnavailable("away")
        self.stored.append(record)


async def test_a_minute_is_recorded_once_it_has_ended() -> None:
    minutes = Minutes()
    for code in ["denied"] * 1_000 + ["bad_credential"] * 2:
        minutes.tested.note(code)
    await minutes.tested.flush(minutes.store)
    assert minutes.stored == []
    minutes.now += MINUTE
    await minutes.tested.flush(minutes.store)
    minutes.tested.note("denied")
    minutes.now += 5 * MINUTE
    await minutes.tested.flush(minutes.store)
    await minutes.tested.flush(minutes.store)
    assert minutes.counted == [(START, {"denied": 1_000, "bad_credential": 2}), (START + MINUTE, {"denied": 1})]
    assert len({record.instance for record in minutes.stored}) == 2


async def test_what_cannot_be_stored_waits_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    minutes = Minutes()
    minutes.away = True
    for _ in range(KEPT + 2):
        minutes.tested.note("denied")
        minutes.now += MINUTE
    await minutes.tested.flush(minutes.store)
    assert "not recorded yet" in caplog.text
    assert caplog.text.count("1 refused connections are in no record") == 2
    minutes.away = False
    await minutes.tested.flush(minutes.store)
    assert [record.minute for record in minutes.stored] == [START + (2 + n) * MINUTE for n in range(KEPT)]


async def test_the_present_minute_is_recorded_at_the_end() -> None:
    minutes = Minutes()
    minutes.tested.note("denied")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(minutes.tested.store_minutes(minutes.store))
        await asyncio.sleep(0)
        task.cancel()
    assert minutes.counted == [(START, {"denied": 1})]
