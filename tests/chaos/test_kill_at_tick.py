"""Workers on a real server that are killed at a tick, between claiming and sending it, and between sending and marking it.

`TICK_KILLS` says how many are killed; a few unless said. Each tick is in the stream once, however many began with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support import tick_worker
from support.tick_worker import Effect

from sealbus import Client
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.stream_names import TASKS
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope

KILLS = int(os.environ.get("TICK_KILLS", "8"))
AT_A_TIME = 4
SCHEDULES = 24

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180 + 6 * KILLS)]

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "all"} if request.v == 1
"""


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "authz.rego").write_text(POLICY)
    options = DevOptions(folder=tmp_path / "dev", agents=("effects", "shop"), port=-1, policy=policy, max_bytes=1 << 27)
    async with open_environment(options) as running:
        yield running


@asynccontextmanager
async def worker(settings: Path, dies: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, tick_worker.__file__, str(settings), dies, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def sent(environment: Environment) -> list[Header]:
    """Return the headers of all tasks that schedules sent, in order."""
    found = []
    async with (
        open_connection("operator", environment.settings) as (_, connection),
        aclosing(NatsTransport(connection).read(TASKS, ["task.effects.happen"])) as batches,
    ):
        async for batch in batches:
            found += [parse_header(parse_envelope(one.payload).header) for one in batch]
    return found


async def test_each_tick_is_sent_once_whoever_is_killed(environment: Environment) -> None:
    settings, killed, asked = environment.settings_file, 0, 0
    async with open_node("shop", environment.settings) as node, worker(settings, "never"):
        schedules = Client.on(node).schedules
        while killed < KILLS:
            async with AsyncExitStack() as stack:
                points = ["claimed", "published"] * (AT_A_TIME // 2)
                dying = await asyncio.gather(*(stack.enter_async_context(worker(settings, point)) for point in points))
                names = [f"n{asked + number}" for number in range(SCHEDULES)]
                asked += SCHEDULES
                # Due together, a moment after all have heard of them.
                await asyncio.gather(
                    *(
                        schedules.submit("effects.happen", Effect(name=name), after=3, name=name, owner="effects")
                        for name in names
                    )
                )
                ended = [asyncio.create_task(one.wait()) for one in dying]
                await asyncio.wait(ended, timeout=8)
                killed += sum(one.returncode == -signal.SIGKILL for one in dying)
        count = 0

        async def all_sent() -> bool:
            nonlocal count
            count = len(await sent(environment))
            return count >= asked

        async with asyncio.timeout(30):
            while not await all_sent():
                await asyncio.sleep(0.5)
        # Longer than any claim lasts: whoever would send one twice has done so.
        await asyncio.sleep(2 * tick_worker.CLAIMED_FOR)
    headers = await sent(environment)
    sys.stdout.write(f"{killed} killed, {asked} ticks, {len(headers)} tasks\n")
    assert set(Counter(one.id for one in headers).values()) == {1}
    assert set(Counter(one.re for one in headers).values()) == {1}
    assert len(headers) == asked
