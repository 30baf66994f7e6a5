"""A base for objects that run tasks between the start and the end of `async with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self


class Entered(ABC):
    """Runs while it is entered with `async with`. It is entered once."""

    _running: AbstractAsyncContextManager[None] | None = None

    @abstractmethod
    def _run(self) -> AbstractAsyncContextManager[None]:
        """Return the context that is entered and left with this object."""

    async def __aenter__(self) -> Self:
        running = self._run()
        await running.__aenter__()
        self._running = running
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running, self._running = self._running, None
        if running is not None:
            # A task group must not see the exception that ended the caller's block: it would wrap it.
            await running.__aexit__(None, None, None)
