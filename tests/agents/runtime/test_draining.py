"""What a worker says while it drains: how many of which action, since when, and nothing of what is in them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import cast

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.shop import Price, Update

from sealbus import Agent, Context
from sealbus.agents.runtime import draining
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.draining import describe_unfinished, say_while_draining
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus

NOW = 1_000 * SECOND


@dataclass
class _Route:
    action: str


@dataclass
class _Permitted:
    route: _Route


@dataclass
class _Work:
    permitted: _Permitted
    started: int


def work(action: str, *, since: float | None) -> Work:
    """Return a message of `action` that has been handled for `since` seconds, or waits."""
    started = 0 if since is None else NOW - int(since * SECOND)
    return cast("Work", _Work(_Permitted(_Route(action)), started))


def test_the_oldest_come_first_and_those_that_wait_last() -> None:
    works = [
        work("bank.note", since=2),
        work("bank.pay", since=None),
        work("bank.note", since=1.25),
        work("bank.pay", since=7.5),
    ]
    assert describe_unfinished(works, NOW) == (
        "1 of bank.pay handled, the oldest for 7.5 s; 2 of bank.note handled, the oldest for 2.0 s; 1 of bank.pay waiting"
    )


def test_a_line_is_bounded() -> None:
    works = [work(f"bank.verb{number}", since=number) for number in range(20)]
    assert describe_unfinished(works, NOW).endswith("; and 12 more")
    assert describe_unfinished([], NOW) == "decisions that are being recorded"


@dataclass
class Slow:
    """An agent whose handlers go on until they are let go."""

    begun: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(default_factory=lambda: Agent("slow"))

    def __post_init__(self) -> None:
        @self.agent.task("work", retry=0)
        async def work(body: Update, ctx: Context) -> None:
            self.begun += 1
            await self.go.wait()

        @self.agent.call("look")
        async def look(body: Update, ctx: Context) -> Price:
            await work(body, ctx)
            return Price(item_id=body.item_id, price=1)


async def test_a_worker_says_at_once_and_again_what_it_waits_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "SAY_EVERY", 0.01)
    caplog.set_level(logging.INFO, "sealbus")
    slow = Slow()
    async with TestBus(engine=ScriptedEngine()) as bus:
        client, stop = await bus.client("shop-web"), asyncio.Event()
        node = (await bus.client("slow")).node
        async with Worker(slow.agent, node, WorkerLimits(concurrency=2)) as worker:
            running = asyncio.ensure_future(worker.run(stop))
            await worker.ready.wait()
            call = asyncio.ensure_future(client.call("slow.look", Update(item_id="SECRET"), returns=Price))
            await until(lambda: slow.begun == 1)
            for _ in range(2):
                await client.submit("slow.work", Update(item_id="SECRET"))
            await until(lambda: slow.begun == 2 and len(worker.parts.work.executor.unfinished()) == 3)
            stop.set()
            await until(lambda: sum("slow drains, for" in line for line in caplog.messages) >= 2)
            slow.go.set()
            assert await running is True
            await call
    [said, *_] = [line for line in caplog.messages if "slow drains" in line]
    assert "1 of slow.look handled, the oldest for" in said
    assert "1 of slow.work handled" in said
    assert said.endswith("1 of slow.work waiting")
    assert "SECRET" not in caplog.text


async def test_a_worker_with_nothing_to_wait_for_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sealbus")
    async with say_while_draining("slow", list, within=5.0, clock=lambda: NOW):
        await asyncio.sleep(0)
    assert caplog.messages == []


async def test_it_ends_with_what_the_block_raises() -> None:
    with pytest.raises(KeyError):
        async with say_while_draining("slow", lambda: [work("a.b", since=1)], within=5.0, clock=lambda: NOW):
            raise KeyError
