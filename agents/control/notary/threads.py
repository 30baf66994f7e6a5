"""Work on files off the event loop, which is over before anything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread; a cancellation meanwhile is raised once it is done.

    A thread cannot be cancelled: whoever held a lock for it would give it back while it still wrote.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            # Seen by nobody else; the cancellation says enough.
            task.exception()
        raise
