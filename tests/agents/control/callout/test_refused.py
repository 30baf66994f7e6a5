"""Refused connections are kept while they cannot be published, up to a bound, and published afterwards."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sealbus.agents.control.callout import role as module
from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.agents.control.callout.role import KEPT_REFUSALS, RefusedConnections
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Delivery
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, SealbusError

CONNECTION = cast("Connection", object())


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
    monkeypatch.setattr(module, "Refusals", lambda **_: found)
    monkeypatch.setattr(module, "NatsTransport", lambda connection: connection)
    return found


def refused(number: int) -> RefusedConnection:
    return RefusedConnection(code=Code.DENIED, detail="", subject=f"spiffe://example.org/agent/a{number}")


async def test_what_was_refused_before_and_what_is_refused_meanwhile(published: Published) -> None:
    connections = RefusedConnections(subject="refused.control", counters=Counters())
    connections.note(refused(1))
    assert published.samples == []
    running = asyncio.create_task(connections.publish(CONNECTION))
    await published.running.wait()
    connections.note(refused(2))
    assert [b"/agent/a1" in published.samples[0], b"/agent/a2" in published.samples[1]] == [True, True]
    running.cancel()
    await asyncio.wait({running})
    connections.note(refused(3))
    assert len(published.samples) == 2


async def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(published: Published) -> None:
    counters = Counters()
    connections = RefusedConnections(subject="refused.control", counters=counters)
    for number in range(KEPT_REFUSALS + 3):
        connections.note(refused(number))
    assert counters.value("sealbus_refusals_lost_total") == 3
    running = asyncio.create_task(connections.publish(CONNECTION))
    await published.running.wait()
    assert len(published.samples) == KEPT_REFUSALS
    assert b"/agent/a3" in published.samples[0]
    running.cancel()
    await asyncio.wait({running})
