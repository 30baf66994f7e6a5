"""The callout's role: what was refused before there is a connection is kept, up to a bound, and published afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sealbus.agents.control.callout import role
from sealbus.agents.control.callout.responder import Callout, RefusedConnection
from sealbus.agents.control.callout.role import KEPT, CalloutRole, RefusedConnections
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import BusUnavailable, Code, SealbusError


class Published:
    """Refusals as they are counted, in place of those that go to the stream."""

    def __init__(self) -> None:
        self.samples: list[bytes] = []
        self.running = asyncio.Event()

    def count(self, error: SealbusError, delivery: Delivery) -> None:
        assert error.code is Code.DENIED
        self.samples.append(delivery.payload)

    async def run(self) -> None:
        self.running.set()
        await asyncio.Event().wait()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    found = Published()
    monkeypatch.setattr(role, "Refusals", lambda **_: found)
    monkeypatch.setattr(role, "NatsTransport", lambda connection: connection)
    return found


def refused(number: int) -> RefusedConnection:
    return RefusedConnection(code=Code.DENIED, detail="", subject=f"spiffe://example.org/agent/a{number}")


class Door:
    """Connections that fail `failures` times before there is one."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Connection]:
        self.asked += 1
        if self.asked <= self.failures:
            raise BusUnavailable("no responder answers")
        yield cast("Connection", object())


async def test_what_was_refused_first_is_published_once_there_is_a_connection(published: Published) -> None:
    door, counters = Door(2), Counters()
    connections = RefusedConnections(door, subject="refused.control", counters=counters)
    connections.note(refused(1))
    running = asyncio.create_task(connections.run())
    await published.running.wait()
    connections.note(refused(2))
    assert [b"/agent/a1" in published.samples[0], b"/agent/a2" in published.samples[1]] == [True, True]
    assert door.asked == 3
    running.cancel()
    await asyncio.wait({running})
    connections.note(refused(3))
    assert len(published.samples) == 2


async def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(published: Published) -> None:
    counters = Counters()
    connections = RefusedConnections(Door(0), subject="refused.control", counters=counters)
    for number in range(KEPT + 3):
        connections.note(refused(number))
    assert counters.value("sealbus_refusals_lost_total") == 3
    running = asyncio.create_task(connections.run())
    await published.running.wait()
    assert len(published.samples) == KEPT
    assert b"/agent/a3" in published.samples[0]
    running.cancel()
    await asyncio.wait({running})


class Answering:
    problem = "the auth callout does not run"

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def run(self) -> None:
        self.running.set()
        await asyncio.Event().wait()


async def test_it_answers_while_it_cannot_publish_yet(published: Published) -> None:
    """The ordinary connection is let in by the answers: whoever waited for it would wait for ever."""
    callout, never = Answering(), Door(1_000_000)
    both = CalloutRole(
        cast("Callout", callout), RefusedConnections(never, subject="refused.control", counters=Counters())
    )
    assert both.problem == callout.problem
    running = asyncio.create_task(both.run())
    await callout.running.wait()
    assert not published.running.is_set()
    running.cancel()
    await asyncio.wait({running})
