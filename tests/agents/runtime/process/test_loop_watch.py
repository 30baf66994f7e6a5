"""A thread says what blocks the event loop, and the health pages answer meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.lab import until

from sealbus import Agent, Context
from sealbus.agents.runtime.health import HealthServer, Probes
from sealbus.agents.runtime.process import loop_watch
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.bus.telemetry import Counters
from sealbus.testing import TestBus

SECONDS = 30.0
SHORT = 0.05
"""After so many seconds a loop counts as blocked here."""


class Lines(logging.Handler):
    """The lines of the watch; `written` is set at the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.written = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.written.set()


@contextmanager
def lines() -> Iterator[Lines]:
    found, logger = Lines(), logging.getLogger(loop_watch.__name__)
    logger.addHandler(found)
    try:
        yield found
    finally:
        logger.removeHandler(found)


def block_until_logged(found: Lines, secret: str) -> None:
    assert found.written.wait(SECONDS), f"nothing was logged for {len(secret)} characters"


async def test_the_task_and_the_place_that_block_are_logged_without_values() -> None:
    counters = Counters()
    with lines() as found:
        async with LoopWatch(after=SHORT) as watch:
            watch.count_in(counters)
            assert watch.blocked() == ""

            async def blocking() -> None:
                block_until_logged(found, "the password is 1234")
                assert watch.blocked()

            await asyncio.create_task(blocking(), name="handler of shop.pay")
            await until(lambda: not watch.blocked(), seconds=SECONDS)
    blocked, turned = found.texts
    assert "by handler of shop.pay: threading.py:" in blocked
    assert f"{__name__.rpartition('.')[2]}.py:" in blocked
    assert " in block_until_logged < " in blocked
    assert "1234" not in blocked
    assert "turns again after" in turned
    assert 'sealbus_loop_blocked_seconds_count{task="handler of shop.pay"} 1.0' in counters.render()


async def test_a_loop_that_turns_is_not_blocked() -> None:
    with lines() as found:
        async with LoopWatch(after=SECONDS) as watch:
            for _ in range(3):
                await asyncio.sleep(0)
            assert watch.blocked() == ""
    assert found.texts == []


def ask(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Ask from the thread of the event loop, which is blocked by that."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=SECONDS) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/metrics"])
async def test_the_pages_say_what_blocks_the_loop(path: str) -> None:
    probes = Probes(healthy=dict, ready=dict)
    async with (
        LoopWatch(after=SHORT) as watch,
        HealthServer("0", probes=probes, counters=Counters(), watch=watch) as server,
    ):
        status, document = ask(server.port, path)
        assert (status, document["ok"]) == (503, False)
        assert "loop" in str(document["reasons"])
        await until(lambda: not watch.blocked(), seconds=SECONDS)
        assert (await asyncio.to_thread(ask, server.port, "/readyz"))[0] == 200


async def test_a_page_waits_for_a_slow_loop_no_longer_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.agents.runtime.health.PAGE_SECONDS", SHORT)
    probes = Probes(healthy=dict, ready=dict)
    async with (
        LoopWatch(after=SECONDS) as watch,
        HealthServer("0", probes=probes, counters=Counters(), watch=watch) as server,
    ):
        assert ask(server.port, "/readyz") == (
            503,
            {"ok": False, "reasons": {"loop": f"no turn of the event loop for {SHORT} s"}},
        )


async def test_a_handler_that_blocks_is_named() -> None:
    agent = Agent("pricing")
    with lines() as found:

        @agent.task("quote")
        async def quote(body: int, ctx: Context) -> None:
            block_until_logged(found, str(body))

        async with LoopWatch(after=SHORT), TestBus(agent) as bus:
            # Starting the bus may have blocked the loop for a moment, too.
            found.written.clear()
            client = await bus.client("shop-web")
            handle = await client.submit("pricing.quote", 1)
            await handle.result(type(None))
    assert any("by handler of pricing.quote: " in text for text in found.texts)
