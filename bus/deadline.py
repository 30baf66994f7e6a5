"""Deadlines of one task, one after the other, all on one timer.

`asyncio.timeout` takes a timer for each use, which takes as long as all else about running a handler that does not wait.
Deadlines mostly are not reached: here the timer stays where it is until it rings, and is only then set anew.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Deadline"]


class Deadline:
    """`with deadline.within(seconds) as deadline:` in the task that made it; one block at a time.

    A block that runs over is cancelled and ends with `TimeoutError`, as with `asyncio.timeout`, and `expired` tells that
    it was this one; a cancellation from elsewhere stays one. `close` it when the task needs no more of them.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is made in the task that it is for")
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self.expired = False

    def within(self, seconds: float) -> Self:
        """Give the block that follows `seconds` from now."""
        self.expired = False
        self._cancelling = self._task.cancelling()
        self._until = until = self._loop.time() + seconds
        if self._timer is None or until < self._timer.when():
            self._set(until)
        return self

    def close(self) -> None:
        """Take the timer off the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until = None
        # The same rule as `asyncio.timeout` has: who else wanted the task to end is not to be denied.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _set(self, when: float) -> None:
        self.close()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._until is None:
            return
        if self._loop.time() < self._until:
            self._set(self._until)
        else:
            self.expired = True
            self._task.cancel()
