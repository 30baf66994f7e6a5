"""Tasks that go on beside a body, whose own error comes out as itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import ParamSpec

__all__ = ["Background", "Beside"]

_Arguments = ParamSpec("_Arguments")


class Background(asyncio.TaskGroup):
    """A `TaskGroup` for what an `async with` of ours runs beside the code of whoever entered it.

    What that code raises is its own affair, and `except Denied` around the whole has to meet it: it is not wrapped. What
    else failed by then is named in a note. Where only tasks fail, that is an `ExceptionGroup` as ever.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if error is None or error not in group.exceptions:
                raise
            for other in group.exceptions:
                if other is not error:
                    # Its type alone: the text of somebody else's error may hold anything.
                    error.add_note(f"beside it, a task failed: {type(other).__name__}")


class Beside:
    """Runs what takes round trips beside whoever asks for it, `at_a_time` at most, in tasks of `group`."""

    def __init__(self, group: asyncio.TaskGroup, at_a_time: int) -> None:
        self._group = group
        self._room = asyncio.Semaphore(at_a_time)
        self._running: set[asyncio.Task[None]] = set()

    async def start(
        self,
        function: Callable[_Arguments, Coroutine[None, None, None]],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> None:
        """Run `function` in a task of its own; returns once there is room for it."""
        await self._room.acquire()
        self._start(function(*arguments, **named), self._ended)

    def start_at_once(self, running: Coroutine[None, None, None]) -> None:
        """Run what is bounded by what asks for it."""
        self._start(running, self._running.discard)

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.wait(set(self._running))

    def _start(self, running: Coroutine[None, None, None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        task = self._group.create_task(running, name="beside")
        self._running.add(task)
        task.add_done_callback(ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()
