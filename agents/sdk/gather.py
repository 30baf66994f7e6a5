"""`gather`: wait for several tasks until a deadline, and return the done, the failed and the late ones apart.

Each task is read and decided on as by `TaskHandle.result`. A late task goes on, unless `gather` is told to cancel it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.answer import CallExpired
from sealbus.envelopes.errors import BusUnavailable, SealbusError

_logger = logging.getLogger(__name__)

Res = TypeVar("Res")

MOST: Final = 512
"""Most tasks of one call: half of the readings that one identity may have open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered(Generic[Res]):
    """The tasks, each in exactly one group, in the order of the call."""

    done: tuple[tuple[TaskHandle[Res], Res], ...]
    """Tasks with a result that our own policy allowed."""
    failed: tuple[tuple[TaskHandle[Res], SealbusError], ...]
    """Tasks that ended without a result, each with the error that `TaskHandle.result` raises."""
    late: tuple[TaskHandle[Res], ...]
    """Tasks that were still open; their results may come later."""

    @property
    def results(self) -> tuple[Res, ...]:
        """The results of the done tasks."""
        return tuple(result for _, result in self.done)


async def gather(
    handles: Iterable[TaskHandle[Res]],
    *,
    deadline: float = 60.0,
    least: int | None = None,
    late: Literal["leave", "cancel"] = "leave",
) -> Gathered[Res]:
    """Wait until all tasks have ended, `least` of them are done, or `deadline` seconds have passed.

    The failure of a task is returned, not raised. Late tasks go on, or with `late="cancel"` are canceled; a task whose agent
    does not confirm the cancel in 10 s, or denies it, is late all the same. Raises `BusUnavailable` if statuses
    cannot be read (`Overloaded` for too many readings), and `ValueError` for more than 512 handles, a `deadline` that is not
    over 0, or a `least` that is not from 1 to the number of handles.
    """
    tasks = list(handles)
    if len(tasks) > MOST:
        raise ValueError(f"{len(tasks)} handles: gather at most {MOST} at a time")
    if not deadline > 0:
        raise ValueError(f"deadline is over 0 seconds, not {deadline}")
    if least is not None and not 1 <= least <= len(tasks):
        raise ValueError(f"least is from 1 to the {len(tasks)} handles, not {least}")
    waiting = [asyncio.ensure_future(_outcome(handle, deadline)) for handle in tasks]
    try:
        await _enough(waiting, len(tasks) if least is None else least, deadline)
        outcomes = [future.result() if future.done() else None for future in waiting]
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    pairs = list(zip(tasks, outcomes, strict=True))
    if late == "cancel":
        await asyncio.gather(*[_cancel(handle) for handle, outcome in pairs if outcome is None])
    return Gathered(
        done=tuple((handle, outcome.result) for handle, outcome in pairs if isinstance(outcome, _Done)),
        failed=tuple((handle, outcome) for handle, outcome in pairs if isinstance(outcome, SealbusError)),
        late=tuple(handle for handle, outcome in pairs if outcome is None),
    )


async def _cancel(handle: TaskHandle[Res]) -> None:
    try:
        await handle.cancel("late")
    except (SealbusError, TimeoutError) as error:
        _logger.warning("a late task of %s is not known to be canceled: %s", handle.action, type(error).__name__)


@dataclass(frozen=True, slots=True)
class _Done(Generic[Res]):
    result: Res


async def _outcome(handle: TaskHandle[Res], deadline: float) -> _Done[Res] | SealbusError | None:
    """Return a task's result or the error that it ended with; None if it is open after `deadline` seconds."""
    try:
        return _Done(await handle.result(timeout=deadline))
    except TimeoutError:
        return None
    except CallExpired as expired:
        return expired
    except BusUnavailable:
        # The statuses could not be read, which is no outcome of the task.
        raise
    except SealbusError as error:
        return error


async def _enough(
    waiting: Sequence[asyncio.Future[_Done[Res] | SealbusError | None]], least: int, deadline: float
) -> None:
    """Return once `least` tasks are done, all have ended, or `deadline` seconds have passed; raise what a future raised."""
    end = asyncio.get_running_loop().time() + deadline
    open_, done = set(waiting), 0
    while open_ and done < least:
        seconds = max(0.0, end - asyncio.get_running_loop().time())
        ended, open_ = await asyncio.wait(open_, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            return
        done += sum(isinstance(future.result(), _Done) for future in ended)
