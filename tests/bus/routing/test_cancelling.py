"""A cancellation of ours is told from one that only passes by."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from sealbus.bus.routing.timers import being_cancelled, cancellations, raise_if_cancelled_since


async def test_what_others_cancelled_is_not_about_us() -> None:
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    shared.cancel()
    with suppress(asyncio.CancelledError):
        await shared
    assert not being_cancelled()


async def test_a_timeout_that_is_over_is_not_about_us() -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    assert not being_cancelled()


async def test_who_is_cancelled_knows_it() -> None:
    seen: list[bool] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(being_cancelled())

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert seen == [True]


async def test_a_cancellation_that_was_swallowed_is_raised_all_the_same() -> None:
    reached: list[str] = []

    async def swallows() -> None:
        before = cancellations()
        raise_if_cancelled_since(before)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        reached.append("swallowed")
        raise_if_cancelled_since(before)
        reached.append("went on")

    task = asyncio.create_task(swallows())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reached == ["swallowed"]
