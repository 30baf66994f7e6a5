"""The loop of a simulation: order by seed, virtual time, hosts that are killed and paused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from simulation.loop import CURRENT, WORLD, Host, SimulatedLoop


def run(seed: int, work: Coroutine[Any, Any, None]) -> SimulatedLoop:
    """Run `work` to its end on a loop of its own."""
    loop = SimulatedLoop(seed)  # type: ignore[abstract]  # sockets and processes are not simulated
    loop.run_until(loop.create_task(work), most=10_000)
    return loop


def order(seed: int) -> list[int]:
    """Return the order in which ten tasks of a group ran."""
    ran: list[int] = []

    async def note(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(note(number))

    run(seed, main())
    return ran


def test_the_order_follows_from_the_seed() -> None:
    assert order(1) == order(1)
    assert sorted(order(1)) == list(range(10))
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


def test_time_passes_only_when_nothing_is_ready() -> None:
    seen: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3600.0)
        seen.append(loop.time())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await loop.create_future()
        seen.append(loop.time())

    run(0, main())
    assert seen == pytest.approx([3600.0, 3660.0], abs=0.01)


def test_a_killed_host_takes_no_further_step_and_cleans_nothing_up() -> None:
    said: list[str] = []
    host = Host("one")

    async def work() -> None:
        try:
            said.append(CURRENT.get().name)
            await asyncio.sleep(10.0)
            said.append("woke")
        finally:
            said.append("cleaned up")

    async def main() -> None:
        with host.entered():
            working = asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(5.0)
        host.alive = False
        await asyncio.sleep(10.0)
        assert not working.done()
        assert CURRENT.get() is WORLD

    run(0, main())
    assert said == ["one"]


def test_a_paused_host_takes_its_steps_later() -> None:
    woke: list[float] = []
    host = Host("one")

    async def work() -> None:
        await asyncio.sleep(1.0)
        woke.append(asyncio.get_running_loop().time())

    async def main() -> None:
        with host.entered():
            working = asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(0.5)
        host.paused_until = 30.0
        await working

    run(0, main())
    assert woke == pytest.approx([30.0], abs=0.01)


def test_a_function_in_a_thread_runs_within_the_step_that_asks() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        host, after = await asyncio.to_thread(lambda: (CURRENT.get(), loop.time()))
        assert host is WORLD
        assert after == pytest.approx(before, abs=0.01)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    run(0, main())


def test_a_loop_without_anything_to_run_says_so() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing is left"):
        run(0, main())
    with pytest.raises(TimeoutError, match="not done"):
        run(0, _endless())


async def _endless() -> None:
    for _ in itertools.count():
        await asyncio.sleep(0)
