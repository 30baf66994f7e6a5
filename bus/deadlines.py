"""Deadlines of many tasks on one timer.

`asyncio.timeout` puts a timer on the loop's heap for each use and takes it off again, which takes longer than all else
about a handler that does not wait, or a call. Deadlines mostly are not reached: here one timer stands at the first of
them, stays where it is when they are kept, and looks at all that are left when it rings.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Deadline", "Deadlines"]


class Deadlines:
    """Makes deadlines: `with deadlines.within(seconds) as deadline:`, in a task. One event loop has its own."""

    __slots__ = ("_open", "_timer")

    def __init__(self) -> None:
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Deadline:
        """Return a deadline for the current task, `seconds` from now."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task")
        return Deadline(self, task, task.get_loop().time() + seconds)

    def enter(self, deadline: Deadline) -> None:
        """Watch over `deadline`; for `Deadline` alone."""
        self._open.add(deadline)
        if self._timer is None or deadline.until < self._timer.when():
            self._set(deadline.task.get_loop(), deadline.until)

    def leave(self, deadline: Deadline) -> None:
        """Watch over `deadline` no more; for `Deadline` alone."""
        self._open.discard(deadline)

    def close(self) -> None:
        """Take the timer off the loop, where no task is under a deadline any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self.close()
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline in [one for one in self._open if one.until <= now]:
            self._open.discard(deadline)
            deadline.ring()
        if self._open:
            self._set(loop, min([one.until for one in self._open]))


class Deadline:
    """The block runs over at `until`, by the loop's time: then it is cancelled and ends with `TimeoutError`.

    `expired` tells that it was this deadline. As with `asyncio.timeout`, a cancellation from elsewhere stays one.
    """

    __slots__ = ("_cancelling", "_owner", "expired", "task", "until")

    def __init__(self, owner: Deadlines, task: asyncio.Task[object], until: float) -> None:
        self.task = task
        self.until = until
        self.expired = False
        self._owner = owner
        self._cancelling = 0

    def __enter__(self) -> Self:
        self._cancelling = self.task.cancelling()
        self._owner.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self)
        # The same rule as `asyncio.timeout` has: who else wanted the task to end is not to be denied.
        if self.expired and self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def ring(self) -> None:
        """End the block: its time is over. For `Deadlines` alone."""
        self.expired = True
        self.task.cancel()
