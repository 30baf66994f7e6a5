"""Limits on how many messages of one handler, and of one partition, are handled at a time in this process.

A message that has to wait is queued in a line, in order of arrival, and takes no place of the executor. It holds up only its
own source: no more messages are taken from a source while too many of its messages wait in lines. Pure bookkeeping.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final

from sealbus.bus.work.executor.work import Work

LINED_UP: Final = 256
"""Messages of one source that may wait in lines before no more are taken from it. Batches under way may add to them."""


class _Line:
    """The line of one limit: how many messages run under it, and the messages that wait for it."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[Work] = deque()


class ConcurrencyLimits:
    """The lines of one worker. A line exists while a message runs under its limit or waits for it."""

    def __init__(self) -> None:
        self._lines: dict[object, _Line] = {}
        self._waiting: Counter[object] = Counter()
        self._moved = asyncio.Event()

    def enter(self, work: Work) -> bool:
        """Return whether `work` may be handled now; otherwise `leave` returns it once it may."""
        ready = self._advance(work, 0)
        if not ready:
            self._waiting[work.source] += 1
        return ready

    def leave(self, work: Work) -> Work | None:
        """Free the places of `work`, which was handled; return the message that may be handled now, if any."""
        ready: Work | None = None
        for number, (key, _) in enumerate(_limits(work)):
            line = self._lines[key]
            if not line.waiting:
                line.running -= 1
                if not line.running:
                    del self._lines[key]
                continue
            following = line.waiting.popleft()
            if self._advance(following, number + 1):
                ready = following
                self._waiting[following.source] -= 1
                if not self._waiting[following.source]:
                    del self._waiting[following.source]
                self._moved.set()
        return ready

    async def room(self, source: object) -> None:
        """Wait until no more than `LINED_UP` messages of `source` wait in lines."""
        while self._waiting[source] > LINED_UP:
            self._moved.clear()
            await self._moved.wait()

    def _advance(self, work: Work, passed: int) -> bool:
        """Take the limits of `work` from number `passed` on. At the first full limit, queue `work` and return `False`."""
        for key, most in _limits(work)[passed:]:
            line = self._lines.setdefault(key, _Line())
            if line.running >= most:
                line.waiting.append(work)
                return False
            line.running += 1
        return True


def _limits(work: Work) -> list[tuple[object, int]]:
    """Return each limit that a message has to pass, in order: that of its partition before that of its handler."""
    route = work.permitted.route
    limits: list[tuple[object, int]] = []
    if route.options.ordered:
        limits.append(((route.endpoint, work.delivery.subject), 1))
    if route.options.concurrency is not None:
        limits.append((route.endpoint, route.options.concurrency))
    return limits
