"""Deadlines and alarms of many tasks on one timer, and tests whether a `CancelledError` is meant for the current task.

`asyncio.timeout` and `call_later` put a timer on the loop's heap for each use and remove it again. That takes longer than the
rest of a call, or of a handler that does not wait. Most deadlines are never reached: here one timer is set to the first
deadline, stays there when a block is left in time, and checks all open deadlines when it fires.

Code of handlers may raise a `CancelledError` of its own, or swallow ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self


class Stuck(NamedTuple):
    """The callback for a block that continues for `after` seconds after it was cancelled at its deadline."""

    after: float
    callback: Callable[[], object]


class Deadlines:
    """The deadlines and alarms of one event loop: `with deadlines.within(seconds) as deadline:`."""

    __slots__ = ("_open", "_timer")

    def __init__(self) -> None:
        self._open: dict[Alarm, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float, *, stuck: Stuck | None = None) -> Deadline:
        """Return a deadline for the current task, `seconds` from now; `stuck` is for a block that continues after it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a running task")
        return Deadline(self, task.get_loop().time() + seconds, task, stuck)

    def after(self, seconds: float, callback: Callable[[], object]) -> Alarm:
        """Return an alarm that calls `callback` `seconds` from now; its exceptions go to the loop's handler."""
        return Alarm(self, asyncio.get_running_loop().time() + seconds, callback)

    def enter(self, alarm: Alarm) -> None:
        """Start watching `alarm`; only for alarms to call."""
        self._open[alarm] = None
        if self._timer is None or alarm.until < self._timer.when():
            self._set(alarm.until)

    def leave(self, alarm: Alarm) -> None:
        """Stop watching `alarm`; only for alarms to call."""
        self._open.pop(alarm, None)

    def close(self) -> None:
        """Cancel the timer, once no alarm is open any more."""
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
            for alarm in [alarm for alarm in self._open if alarm.until <= now]:
                self._open.pop(alarm, None)
                alarm.ring()
        finally:
            # Even if an alarm raises, the others ring at the next turn.
            if self._open:
                self._set(min([alarm.until for alarm in self._open]))


class Alarm:
    """A block whose callback is called, once, if it is not left by `until`, by the loop's time."""

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
        """Call back; only for `Deadlines` to call."""
        self._callback()


class Deadline(Alarm):
    """A block that is cancelled, and ends with `TimeoutError`, if it is not left by `until`.

    `expired` tells whether this deadline, or `end`, cancelled the block. As with `asyncio.timeout`, other cancellations stay
    cancellations. `is_stuck` tells whether the block has swallowed its cancellation at `until` and continued for some time.
    """

    __slots__ = ("_cancelled", "_cancelling", "_later", "_stuck", "_task", "is_stuck")

    def __init__(self, owner: Deadlines, until: float, task: asyncio.Task[object], stuck: Stuck | None = None) -> None:
        super().__init__(owner, until, task.cancel)
        self._task = task
        self._stuck = stuck
        self.is_stuck = False
        self._later: asyncio.TimerHandle | None = None
        self._cancelling = task.cancelling()
        self._cancelled = 0
        """How often this deadline cancelled the block: by `end`, and when its time was over."""

    @property
    def left_behind(self) -> bool:
        """Whether more cancellations of the task are requested than when this deadline was made."""
        return self._task.cancelling() > self._cancelling

    async def take_back(self) -> None:
        """Take back what is `left_behind`, as `take_back_cancellations` does."""
        await take_back_cancellations(self._cancelling)

    @property
    def expired(self) -> bool:
        """Whether this deadline cancelled the block."""
        return self._cancelled > 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.leave(self)
        if not self._cancelled:
            return
        if self._later is not None:
            self._later.cancel()
        for _ in range(self._cancelled):
            self._task.uncancel()
        # The same rule as in `asyncio.timeout`: a cancellation from elsewhere must not be swallowed.
        if self._task.cancelling() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def ring(self) -> None:
        """Cancel the block: its time is over. Only for `Deadlines` to call."""
        self.end()
        if self._stuck is not None:
            self._later = self._task.get_loop().call_later(self._stuck.after, self._sticks, self._stuck.callback)

    def _sticks(self, callback: Callable[[], object]) -> None:
        self.is_stuck = True
        callback()

    def end(self) -> None:
        """Cancel the block now. It is cancelled again when its time is over, if it continues until then."""
        self._cancelled += 1
        self._task.cancel()


def being_cancelled() -> bool:
    """Return whether a cancellation of the current task was requested.

    Otherwise a `CancelledError` came from the awaited future, which another task awaits and has cancelled. That is a failure
    like any other, and must not end the awaiting task.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def cancellations() -> int:
    """Return how many cancellations of the current task are requested, for `raise_if_cancelled_since`."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def raise_if_cancelled_since(before: int) -> None:
    """Raise `CancelledError` if the task has more than `before` cancellations: the awaited code has swallowed one."""
    if cancellations() > before:
        raise asyncio.CancelledError


async def take_back_cancellations(before: int) -> None:
    """Reduce the cancellations of the current task to `before`: later ones were not meant for it.

    An `asyncio.TaskGroup` that fails while it is left leaves such a cancellation behind (Python 3.11).
    """
    task = asyncio.current_task()
    if task is None or task.cancelling() <= before:
        return
    # A cancellation that was not raised yet would be raised at the next wait, wherever that is.
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    while task.cancelling() > before:
        task.uncancel()
