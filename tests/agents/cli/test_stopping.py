"""Signals that end a command that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from sealbus.agents.cli.options import ended_by, stop_signalled


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_both_signals_are_heard(number: signal.Signals) -> None:
    stop = stop_signalled()
    try:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            await stop.wait()
    finally:
        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(one)


async def test_a_stop_ends_what_is_still_opened() -> None:
    stop = asyncio.Event()
    reached = asyncio.Event()

    async def open_slowly() -> bool:
        async with ended_by(stop):
            reached.set()
            await asyncio.Event().wait()
        return stop.is_set()

    opening = asyncio.create_task(open_slowly())
    await reached.wait()
    stop.set()
    async with asyncio.timeout(60):
        assert await opening


async def test_without_a_stop_nothing_is_ended() -> None:
    stop = asyncio.Event()
    async with ended_by(stop):
        await asyncio.sleep(0)
    stop.set()
    await asyncio.sleep(0)


async def test_a_timeout_of_what_is_opened_is_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with ended_by(asyncio.Event()):
            raise TimeoutError
