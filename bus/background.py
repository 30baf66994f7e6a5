"""Tasks that run in the background of a block, whose own exception is not wrapped in a group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Entry = TypeVar("_Entry")


class Background(asyncio.TaskGroup):
    """A `TaskGroup` for background tasks of an `async with` block that runs a caller's code.

    What the caller's code raises is not wrapped, so that `except Denied` around the block works; tasks that failed by then
    are named in a note. If only tasks fail, an `ExceptionGroup` is raised as usual.
    """

    left = False
    """Whether the block has ended, and all its tasks."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                await super().__aexit__(kind, error, trace)
            finally:
                self.left = True
        except BaseExceptionGroup as group:
            if error is None or error not in group.exceptions:
                raise
            for other in group.exceptions:
                if other is not error:
                    # Only its type: the text of another's exception may hold anything.
                    error.add_note(f"a background task failed too: {type(other).__name__}")


async def all_ended(running: Iterable[Awaitable[_Result]]) -> list[_Result | Exception]:
    """Run all at once; return what each returns or raises, in order, once all have ended."""
    ended: list[_Result | Exception] = []
    for result in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, Exception):
            raise result
        ended.append(result)
    return ended


async def all_done(running: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Run all at once; return their results in order, or raise the first error in this order, once all have ended."""
    results: list[_Result] = []
    for result in await all_ended(running):
        if isinstance(result, Exception):
            raise result
        results.append(result)
    return results


class BoundedTasks:
    """Background work that takes round trips, at most `at_a_time` at once, in tasks of `group`."""

    def __init__(self, group: Background, at_a_time: int) -> None:
        self._group = group
        self._room = asyncio.Semaphore(at_a_time)
        self._running: set[asyncio.Task[object]] = set()

    async def start(
        self,
        function: Callable[_Arguments, Coroutine[None, None, object]],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> None:
        """Run `function` in a task of its own; return once there is room for it."""
        await self._room.acquire()
        self._start(function(*arguments, **named), self._ended)

    def start_at_once(self, running: Coroutine[None, None, object]) -> None:
        """Run at once what its caller bounds; nothing, once the group was left, as if the process had ended before."""
        if self._group.left:
            running.close()
        else:
            self._start(running, self._running.discard)

    def cancel(self) -> None:
        """Cancel everything that runs; what is started after that runs."""
        for task in self._running:
            task.cancel()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.wait(set(self._running))

    def _start(self, running: Coroutine[None, None, object], ended: Callable[[asyncio.Task[object]], None]) -> None:
        task = self._group.create_task(running, name="background")
        self._running.add(task)
        task.add_done_callback(ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        self._room.release()


def batch_from(following: _Entry | None, queue: asyncio.Queue[_Entry | None], most: int) -> tuple[list[_Entry], bool]:
    """Return the entry just taken from `queue` with those behind it, at most `most`, and whether the queue ends there.

    `None` in the queue is its end. The caller waits for the first entry, so that this costs no coroutine.
    """
    batch: list[_Entry] = []
    while following is not None:
        batch.append(following)
        if len(batch) == most or queue.empty():
            return batch, False
        following = queue.get_nowait()
    return batch, True
