"""Blocking calls in threads that have an owner: awaited to their end, also when the one who waits is canceled."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread", "run_in_thread"]

T = TypeVar("T")

_STOP_SECONDS = 5.0
"""How long a canceled call may take to notice `stop`; gRPC takes milliseconds."""


async def run_in_thread(function: Callable[[], T], *, name: str, stop: Callable[[], None]) -> T:
    """Run `function` in a daemon thread of its own and return its result, or raise what it raised.

    When the caller is canceled, `stop` is called, from the event loop's thread, and has to make `function` return soon;
    the cancellation goes on once the thread is gone. Not `asyncio.to_thread`: that one leaves the thread running and
    keeps it in a pool that lives as long as the loop.
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
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            raised = error
        # The loop is closed only if its owner did not wait for us; then nobody is left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, raised)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop()
        # What it still raises is nobody's, also if it comes after we were canceled a second time, in this wait.
        ended.add_done_callback(_retrieve)
        await asyncio.wait({ended}, timeout=_STOP_SECONDS)
        raise
    finally:
        if ended.done():
            # It has nothing left to do but return.
            thread.join(_STOP_SECONDS)


def _retrieve(ended: asyncio.Future[T]) -> None:
    if not ended.cancelled():
        ended.exception()


async def in_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread; a cancellation meanwhile is raised once it is done.

    A thread cannot be cancelled: whoever held a lock for it would give it back while it still wrote.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            # Seen by nobody else; the cancellation says enough.
            task.exception()
        raise
