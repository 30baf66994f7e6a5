"""Whether a `CancelledError` is about us: code that we run may raise one of its own, or swallow one that is."""

from __future__ import annotations

import asyncio

__all__ = ["being_cancelled", "cancellations", "raise_if_cancelled_since"]


def being_cancelled() -> bool:
    """Say whether somebody wants the current task to end.

    Where not, a `CancelledError` came from what the task awaited: a future that others wait on too, and that one of them
    has cancelled. That is a failure like any other, and must not end who waited.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def cancellations() -> int:
    """Return how many cancellations of the current task are wanted by now, for `raise_if_cancelled_since`."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def raise_if_cancelled_since(before: int) -> None:
    """Raise `CancelledError` if the task was cancelled since there were `before`: what it awaited took no notice."""
    if cancellations() > before:
        raise asyncio.CancelledError
