"""`LoopWatch`: a thread that notices when the event loop of the process is blocked, and logs the place in the code.

A handler that computes for seconds, or calls a blocking library, stops every handler, renewal and probe of its process. The
thread logs the name of the running task and its place in the code, by names and line numbers alone. It also serves the
health pages (`agents/runtime/health`), so that they answer meanwhile. Code that keeps Python's global lock, as some extension
modules do, stops this thread too until it returns.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sealbus.bus.telemetry import Counters, Histogram, OperatorLog

_logger = logging.getLogger(__name__)

BLOCKED_AFTER: Final = 1.0
"""Seconds without a turn of the event loop after which it counts as blocked."""
TURN: Final = 0.25
"""Seconds between two checks by the thread, and between two turns that the loop records."""
FRAMES: Final = 8
"""Innermost frames of the blocked thread that are logged."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A blocked event loop: `task` is the name of the running task, `place` its innermost frames."""

    task: str
    place: str
    since: float
    """By the monotonic clock of the host."""

    def describe(self, now: float) -> str:
        """Return one line for an operator, without values of the code."""
        return f"blocked for {now - self.since:.1f} s by {self.task}: {self.place}"


class LoopWatch:
    """Watch the running event loop from a thread, as an async context manager. Enter it on the loop that is watched.

    `after` is the time in seconds after which the loop counts as blocked. The thread has its own event loop, on which `run`
    runs work that must go on meanwhile.
    """

    def __init__(self, *, after: float = BLOCKED_AFTER) -> None:
        self._after = after
        self._every = min(TURN, after / 4)
        self._turned = 0.0
        self._blocked: Blocked | None = None
        self._histograms: list[Histogram] = []
        self._operator_log = OperatorLog(_logger)
        self._main: asyncio.AbstractEventLoop | None = None
        self._main_thread = 0
        self._beat: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        self._main, self._main_thread = asyncio.get_running_loop(), threading.get_ident()
        self._turned = time.monotonic()
        self._thread = threading.Thread(target=self._run_thread, name="loop-watch", daemon=True)
        self._thread.start()
        await asyncio.to_thread(self._started.wait)
        self._beat = asyncio.create_task(self._note_turns(), name="loop-turns")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._ended is not None and self._thread is not None  # noqa: S101, PT018  entered
        if self._beat is not None:
            self._beat.cancel()
        self._loop.call_soon_threadsafe(self._ended.set)
        await asyncio.to_thread(self._thread.join)

    def count_in(self, counters: Counters) -> None:
        """Observe in `counters`, too, for how long the loop was blocked each time, by task."""
        self._histograms.append(counters.histogram("sealbus_loop_blocked_seconds", ("task",)))

    def blocked(self) -> str:
        """Return one line about the task that blocks the event loop now; empty if none does. Call it from any thread."""
        blocked = self._blocked
        return blocked.describe(time.monotonic()) if blocked is not None else ""

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` on the event loop of the thread, and return its result. Await it on the loop that is watched."""
        assert self._loop is not None  # noqa: S101  entered
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _note_turns(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            now, blocked = time.monotonic(), self._blocked
            self._turned = now
            if blocked is not None:
                self._blocked = None
                for histogram in self._histograms:
                    histogram.observe(now - blocked.since, blocked.task)
                self._operator_log.warning(
                    "the event loop turns again after %.1f s in which %s blocked it", now - blocked.since, blocked.task
                )

    def _run_thread(self) -> None:
        asyncio.run(self._watch())

    async def _watch(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        while not self._ended.is_set():
            self._look()
            try:
                async with asyncio.timeout(self._every):
                    await self._ended.wait()
            except TimeoutError:
                continue

    def _look(self) -> None:
        turned, now = self._turned, time.monotonic()
        if self._blocked is not None or now - turned < self._after:
            return
        frame = sys._current_frames().get(self._main_thread)  # documented, in spite of its name
        running = asyncio.current_task(self._main)
        if running is None and frame is not None and frame.f_code.co_name == "select":
            # The loop waits for events, and the host gives the process no time.
            return
        frames = islice(traceback.walk_stack(frame), FRAMES) if frame is not None else ()
        place = " < ".join(
            f"{Path(inner.f_code.co_filename).name}:{line} in {inner.f_code.co_name}" for inner, line in frames
        )
        task = running.get_name() if running is not None else "a callback"
        if self._turned != turned:
            # The loop turned meanwhile: the stack may be that of the next task.
            return
        self._blocked = Blocked(task=task, place=place, since=turned)
        self._operator_log.warning("the event loop is %s", self._blocked.describe(now))
