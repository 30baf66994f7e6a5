"""Blocking calls in threads, which are awaited to their end even if the waiter is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STOP_SECONDS = 5.0
"""Seconds that a cancelled call may take to notice `stop`; gRPC takes milliseconds."""


async def run_in_thread(function: Callable[[], T], *, name: str, stop: Callable[[], None]) -> T:
    """Run `function` in its own daemon thread and return its result, or raise its exception.

    If the caller is cancelled, `stop` is called from the event loop's thread and must make `function` return soon; the
    cancellation continues once the thread has ended. `asyncio.to_thread` would leave the thread running, in a pool that lives
    as long as the loop.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def settle(result: list[T], error: BaseException | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result[0])

    def run() -> None:
        result: list[T] = []
        raised: BaseException | None = None
        try:
            result.append(function())
        except BaseException as error:  # noqa: BLE001  passed on to the caller
            raised = error
        # The loop is closed only if its owner did not wait for this thread; then the result is dropped.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, raised)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop()
        # No caller waits for its exception any more, also if that comes after a second cancellation, in this wait.
        ended.add_done_callback(_retrieve)
        await asyncio.wait({ended}, timeout=_STOP_SECONDS)
        raise
    finally:
        if ended.done():
            # The thread only has to return.
            thread.join(_STOP_SECONDS)


def _retrieve(ended: asyncio.Future[T]) -> None:
    if not ended.cancelled():
        ended.exception()


async def in_thread(work: Callable[[], T]) -> T:
    """Return the result of `work`, run in a thread; a cancellation meanwhile is raised once the work is done.

    A thread cannot be cancelled: a caller that holds a lock for it would release the lock while the thread still writes.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            # Retrieve and drop the error: the cancellation is raised instead.
            task.exception()
        raise
