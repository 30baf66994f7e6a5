"""Streams are checked again on every new link: not ready until they were, and a wrong one ends the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
from support.lab import until

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.streams import check as stream_guard
from sealbus.bus.streams.check import StreamGuard
from sealbus.bus.streams.declared import Stream, declared_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

STREAMS = declared_streams({"TASKS": 1_000, "AUDIT": 1_000})
LINK = cast("Link", None)


class Checks:
    """Stands in for the check itself: waits for its gate, then says what it is told to."""

    def __init__(self) -> None:
        self.seen: list[Sequence[Stream]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, streams: Sequence[Stream], jetstream: object) -> None:
        self.seen.append(streams)
        await self.gate.wait()
        if self.error is not None:
            raise self.error


class FakeConnection:
    jetstream = object()


@pytest.fixture
async def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    made = Checks()
    monkeypatch.setattr(stream_guard, "check_streams", made)
    monkeypatch.setattr(stream_guard, "AGAIN", 0.0)
    return made


@pytest.fixture
async def guard(checks: Checks) -> AsyncIterator[StreamGuard]:
    made = StreamGuard(STREAMS, cast("Connection", FakeConnection()))
    running = asyncio.create_task(made.check_links())
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_it_is_checked_once_a_link_is_there_and_not_before_the_answer(guard: StreamGuard, checks: Checks) -> None:
    await asyncio.sleep(0)
    assert checks.seen == []
    guard.enter(LINK)
    await until(lambda: len(checks.seen) == 1)
    assert checks.seen == [STREAMS]
    assert not guard.checked.is_set()
    checks.gate.set()
    await guard.checked.wait()


async def test_a_new_link_is_checked_anew(guard: StreamGuard, checks: Checks) -> None:
    checks.gate.set()
    guard.enter(LINK)
    await guard.checked.wait()
    checks.gate.clear()
    guard.lost(LINK)
    guard.enter(LINK)
    assert not guard.checked.is_set()
    await until(lambda: len(checks.seen) == 2)
    assert not guard.checked.is_set()
    checks.gate.set()
    await guard.checked.wait()
    await guard.leave(LINK)
    assert len(checks.seen) == 2


async def test_without_an_answer_it_is_tried_again(guard: StreamGuard, checks: Checks) -> None:
    checks.error = BusUnavailable("away")
    checks.gate.set()
    guard.enter(LINK)
    await until(lambda: len(checks.seen) >= 2)
    assert not guard.checked.is_set()
    checks.error = None
    await guard.checked.wait()


async def test_a_stream_that_is_not_as_declared_ends_it(checks: Checks) -> None:
    made = StreamGuard(STREAMS, cast("Connection", FakeConnection()))
    checks.error = ConfigurationError("AUDIT: deny_delete must be true")
    checks.gate.set()
    made.enter(LINK)
    with pytest.raises(ConfigurationError, match="deny_delete"):
        await made.check_links()
    assert not made.checked.is_set()


async def test_another_check_of_each_link_counts_as_well(checks: Checks) -> None:
    failures = [BusUnavailable("away"), ConfigurationError("there may be cells")]

    async def also() -> None:
        raise failures.pop(0)

    made = StreamGuard(STREAMS, cast("Connection", FakeConnection()), also=also)
    checks.gate.set()
    made.enter(LINK)
    with pytest.raises(ConfigurationError, match="there may be cells"):
        await made.check_links()
    assert (len(checks.seen), failures) == (2, [])
    assert not made.checked.is_set()
