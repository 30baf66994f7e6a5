"""Tasks that go on beside a body, whose own error comes out as itself."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Background"]


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
