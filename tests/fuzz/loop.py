"""One event loop for all targets that need one, and what they opened in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

__all__ = ["close", "opened", "run"]

T = TypeVar("T")


class _Loop:
    """The loop while it is open."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.open: dict[Callable[[], AbstractAsyncContextManager[Any]], Any] = {}


_loops: list[_Loop] = []


def _loop() -> _Loop:
    if not _loops:
        _loops.append(_Loop())
    return _loops[0]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end and return its result."""
    return _loop().runner.run(work)


def opened(make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
    """Return what `make` opened, which stays open until `close`."""
    loop = _loop()
    if make not in loop.open:
        loop.open[make] = loop.runner.run(loop.stack.enter_async_context(make()))
    found: T = loop.open[make]
    return found


def close() -> None:
    """Close all that was opened, and the loop."""
    while _loops:
        loop = _loops.pop()
        loop.runner.run(loop.stack.aclose())
        loop.runner.close()
