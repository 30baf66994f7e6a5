"""Deadlines and alarms of many tasks on one timer, and whether a `CancelledError` is about us.

`asyncio.timeout` and `call_later` put a timer on the loop's heap for each use and take it off again, which takes longer
than all else about a handler that does not wait, or a call. Mostly they are not reached: here one timer stands at the
first of them, stays where it is when they are left in time, and looks at all that are open when it rings.

Code that we run may raise a `CancelledError` of its own, or swallow one that is ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Alarm", "Deadline", "Deadlines", "being_cancelled", "cancellations", "raise_if_cancelled_since"]


class Deadlines:
    """Makes deadlines and alarms: `with deadlines.within(seconds) as deadline:`. One event loop has its own."""

    __slots__ = ("_open", "_timer")

    def __init__(self) -> None:
        self._open: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> Deadline:
        """Return a deadline for the current task, `seconds` from now."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task")
        return Deadline(self, task.get_loop().time() + seconds, task)

    def after(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Return an alarm that calls `callback` `seconds` from now; what that raises goes to the loop's handler."""
        return Alarm(self, asyncio.get_running_loop().time() + seconds, callback)

    def enter(self, alarm: Alarm) -> None:
        """Watch over `alarm`; for alarms alone."""
        self._open.add(alarm)
        if self._timer is None or alarm.until < self._timer.when():
            self._set(alarm.until)

    def leave(self, alarm: Alarm) -> None:
        """Watch over `alarm` no more; for alarms alone."""
        self._open.discard(alarm)

    def close(self) -> None:
        """Take the timer off the loop, where nothing is under an alarm any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        self.close()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        try:
            for alarm in [one for one in self._open if one.until <= now]:
                self._open.discard(alarm)
                alarm.ring()
        finally:
            # Also where one raises: the others ring all the same, at the next turn.
            if self._open:
                self._set(min([one.until for one in self._open]))


class Alarm:
    """Rings once if its block is not left by `until`, by the loop's time."""

    __slots__ = ("_callback", "_owner", "until")

    def __init__(self, owner: Deadlines, until: float, callback: Callable[[], object]) -> None:
        self.until = until
        self._owner = owner
        self._callback = callback

    def __enter__(self) -> Self:
        self._owner.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self)

    def ring(self) -> None:
        """Call back; for `Deadlines` alone."""
        self._callback()


class Deadline(Alarm):
    """A block that is not left by `until` is cancelled and ends with `TimeoutError`.

    `expired` tells that it was this deadline. As with `asyncio.timeout`, a cancellation from elsewhere stays one.
    """

    __slots__ = ("_cancelling", "_task", "expired")

    def __init__(self, owner: Deadlines, until: float, task: asyncio.Task[object]) -> None:
        super().__init__(owner, until, task.cancel)
        self.expired = False
        self._task = task
        self._cancelling = task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self)
        # The same rule as `asyncio.timeout` has: who else wanted the task to end is not to be denied.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def ring(self) -> None:
        """End the block: its time is over. For `Deadlines` alone."""
        self.expired = True
        self._task.cancel()


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
