"""Whether a `CancelledError` is about us: code that we run for others may raise one of its own."""

from __future__ import annotations

import asyncio

__all__ = ["being_cancelled"]


def being_cancelled() -> bool:
    """Say whether somebody wants the current task to end.

    Where not, a `CancelledError` came from what the task awaited: a future that others wait on too, and that one of them
    has cancelled. That is a failure like any other, and must not end who waited.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
