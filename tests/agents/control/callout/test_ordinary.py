"""The control process's ordinary connection: made again and again, with all that is done over it begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sealbus.agents.control.callout import role as ordinary
from sealbus.agents.control.callout.role import OrdinaryConnection
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable


class Door:
    """Connections that fail `failures` times before there is one."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0
        self.open = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Connection]:
        self.asked += 1
        if self.asked <= self.failures:
            raise BusUnavailable("no responder answers")
        self.open += 1
        try:
            yield cast("Connection", self)
        finally:
            self.open -= 1


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordinary, "_BACKOFF", Backoff(initial_interval=1e-6, maximum_interval=1e-6))


async def test_it_is_made_once_the_callout_answers_and_ends_with_whoever_runs_it() -> None:
    door, used = Door(3), asyncio.Event()

    async def use(connection: Connection) -> None:
        assert cast("object", connection) is door
        used.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(OrdinaryConnection(door, [use]).run())
    await used.wait()
    assert (door.asked, door.open) == (4, 1)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    assert door.open == 0


async def test_one_use_that_fails_has_all_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    door, begun, again = Door(0), [0, 0], asyncio.Event()

    async def fails(_: Connection) -> None:
        begun[0] += 1
        if begun[0] == 1:
            raise BusUnavailable("the stream is gone")
        again.set()
        await asyncio.Event().wait()

    async def lasts(_: Connection) -> None:
        begun[1] += 1
        await asyncio.Event().wait()

    running = asyncio.create_task(OrdinaryConnection(door, [lasts, fails]).run())
    await again.wait()
    assert begun == [2, 2]
    assert "no ordinary connection: the stream is gone" in caplog.text
    running.cancel()
    await asyncio.wait({running})


async def test_what_is_no_failure_of_ours_ends_it() -> None:
    async def broken(_: Connection) -> None:
        raise RuntimeError("a mistake")

    with pytest.raises(ExceptionGroup) as raised:
        await OrdinaryConnection(Door(0), [broken]).run()
    assert raised.group_contains(RuntimeError)
