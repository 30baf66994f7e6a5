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
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from support import tick_worker
from support.tick_worker import Effect
from support.worker_process import small_environment, worker_process

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.stream_names import TASKS
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope

KILLS = int(os.environ.get("TICK_KILLS", "8"))
AT_A_TIME = 4
SCHEDULES = 24

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(600 + 20 * KILLS)]


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    async with small_environment(tmp_path, "effects", "shop", max_bytes=1 << 27) as running:
        yield running


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
    async with (
        open_node("shop", environment.settings) as node,
        worker_process(tick_worker, settings, "never", says=b"ready"),
    ):
        schedules = Client.on(node).schedules
        while killed < KILLS:
            async with AsyncExitStack() as stack:
                points = ["claimed", "published"] * (AT_A_TIME // 2)
                dying = await asyncio.gather(
                    *(
                        stack.enter_async_context(worker_process(tick_worker, settings, point, says=b"ready"))
                        for point in points
                    )
                )
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

        async with asyncio.timeout(60):
            while not await all_sent():
                await asyncio.sleep(0.5)
        # Longer than any claim lasts: whoever would send one twice has done so.
        await asyncio.sleep(2 * tick_worker.CLAIMED_FOR)
    headers = await sent(environment)
    sys.stdout.write(f"{killed} killed, {asked} ticks, {len(headers)} tasks\n")
    assert set(Counter(one.id for one in headers).values()) == {1}
    assert set(Counter(one.re for one in headers).values()) == {1}
    assert len(headers) == asked
