"""Work in a thread is over before whoever asked for it goes on, cancelled or not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sealbus.agents.identity.threads import in_thread


async def test_what_it_returns_and_raises() -> None:
    assert await in_thread(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_is_raised_once_the_work_is_done(fails: bool) -> None:
    started, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait(10)
        done.set()
        if fails:
            raise ValueError

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
