"""SIGINT and SIGTERM as an event: what every command waits for that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import signal

__all__ = ["stop_signalled"]


def stop_signalled() -> asyncio.Event:
    """Return an event that is set by SIGINT or SIGTERM from now on, on the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
