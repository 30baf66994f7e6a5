"""SIGINT and SIGTERM as an event: what every command waits for that runs until it is told to stop, also while it starts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["ended_by", "stop_signalled"]


def stop_signalled() -> asyncio.Event:
    """Return an event that is set by SIGINT or SIGTERM from now on, on the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def ended_by(stop: asyncio.Event) -> AsyncGenerator[None, None]:
    """Run what is inside, such as the wait for an identity, at most until `stop` is set: look at `stop` afterwards."""
    limit = asyncio.timeout(None)
    try:
        async with limit:
            watching = asyncio.ensure_future(stop.wait())
            watching.add_done_callback(lambda _: None if watching.cancelled() else limit.reschedule(0.0))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
