"""Signals that end a command that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from sealbus.agents.cli.stopping import stop_signalled


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_both_signals_are_heard(number: signal.Signals) -> None:
    stop = stop_signalled()
    try:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await stop.wait()
    finally:
        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(one)
