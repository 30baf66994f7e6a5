from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from support.workload_api import no_thread_left

from sealbus.agents.identity.threads import run_in_thread


async def test_result_and_error_come_back() -> None:
    """In a thread of its own that is gone afterwards."""
    main = threading.get_ident()

    def fail() -> int:
        raise LookupError("as expected")

    with no_thread_left():
        assert await run_in_thread(threading.get_ident, name="t", stop=lambda: None) != main
        with pytest.raises(LookupError, match="as expected"):
            await run_in_thread(fail, name="t", stop=lambda: None)


async def test_cancellation_stops_the_call_and_waits_for_it() -> None:
    """The thread has ended before the cancellation goes on."""
    started, stop, ended = threading.Event(), threading.Event(), threading.Event()
    loop_started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        started.set()
        loop.call_soon_threadsafe(loop_started.set)
        stop.wait()
        ended.set()

    with no_thread_left():
        task = asyncio.create_task(run_in_thread(block, name="t", stop=stop.set))
        await loop_started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


async def test_an_error_after_cancellation_is_nobodys() -> None:
    """The cancellation wins, and nothing is reported as never retrieved."""
    stop, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(begun.set)
        stop.wait()
        raise LookupError("canceled")

    with no_thread_left():
        task = asyncio.create_task(run_in_thread(block, name="t", stop=stop.set))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_canceled_twice_nothing_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The second cancellation does not wait for the thread; what that one raises then is nobody's either."""
    stop, release, begun = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def block() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait()
        raise LookupError("canceled twice")

    with no_thread_left():
        task = asyncio.create_task(run_in_thread(block, name="t", stop=stop.set))
        await begun.wait()
        task.cancel()
        await stop.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
    await asyncio.sleep(0)
    del task
    gc.collect()
    assert caplog.records == []


async def test_the_loop_goes_on_meanwhile() -> None:
    """A call that blocks blocks nobody else."""
    release = threading.Event()
    task = asyncio.create_task(run_in_thread(release.wait, name="t", stop=release.set))
    await asyncio.sleep(0)
    release.set()
    assert await task
