"""`gather`: waits for several tasks at a time, to a deadline, and returns those done, failed and late ones apart.

It is no protocol: each task is read and decided on as by `TaskHandle.result`, and a late one goes on as if nobody had waited,
unless it is to be canceled.
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

__all__ = ["Gathered", "gather"]

_log = logging.getLogger(__name__)

Res = TypeVar("Res")

MOST: Final = 512
"""Tasks that are gathered at a time: half of the readings that one identity may have open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered(Generic[Res]):
    """What became of the tasks, each in exactly one group, in the order in which they were given."""

    done: tuple[tuple[TaskHandle[Res], Res], ...]
    """Those with a result that our own policy allowed."""
    failed: tuple[tuple[TaskHandle[Res], SealbusError], ...]
    """Those that ended without one, each with the error that `TaskHandle.result` raises."""
    late: tuple[TaskHandle[Res], ...]
    """Those that were still open; their results may come later."""

    @property
    def results(self) -> tuple[Res, ...]:
        """The results of those done."""
        return tuple(result for _, result in self.done)


async def gather(
    handles: Iterable[TaskHandle[Res]],
    *,
    deadline: float = 60.0,
    least: int | None = None,
    late: Literal["leave", "cancel"] = "leave",
) -> Gathered[Res]:
    """Wait until all tasks have ended, `least` of them are done, or `deadline` seconds have passed.

    What is known by then is returned, and no failure is raised. Late ones go on, or with `cancel` are canceled; if an agent
    does not confirm that in 10 s, or denies it, its task is late all the same. Raises `BusUnavailable` if statuses
    cannot be read (`Overloaded` for too many readings), and `ValueError` for more than 512 handles, a `deadline` that is not
    over 0, or a `least` that is not from 1 to the number of handles.
    """
    wanted = list(handles)
    if len(wanted) > MOST:
        raise ValueError(f"{len(wanted)} handles: gather at most {MOST} at a time")
    if not deadline > 0:
        raise ValueError(f"deadline is over 0 seconds, not {deadline}")
    if least is not None and not 1 <= least <= len(wanted):
        raise ValueError(f"least is from 1 to the {len(wanted)} handles, not {least}")
    waiting = [asyncio.ensure_future(_outcome(one, deadline)) for one in wanted]
    try:
        await _enough(waiting, len(wanted) if least is None else least, deadline)
        ended = [one.result() if one.done() else None for one in waiting]
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    pairs = list(zip(wanted, ended, strict=True))
    if late == "cancel":
        await asyncio.gather(*[_cancel(handle) for handle, end in pairs if end is None])
    return Gathered(
        done=tuple((handle, end.result) for handle, end in pairs if isinstance(end, _Done)),
        failed=tuple((handle, end) for handle, end in pairs if isinstance(end, SealbusError)),
        late=tuple(handle for handle, end in pairs if end is None),
    )


async def _cancel(handle: TaskHandle[Res]) -> None:
    try:
        await handle.cancel("late")
    except (SealbusError, TimeoutError) as error:
        _log.warning("a late task of %s is not known to be canceled: %s", handle.action, type(error).__name__)


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
        # Says nothing of the task.
        raise
    except SealbusError as error:
        return error


async def _enough(
    waiting: Sequence[asyncio.Future[_Done[Res] | SealbusError | None]], least: int, deadline: float
) -> None:
    """Return once `least` of the tasks are done, all have ended, or `deadline` seconds have passed; raise what one raised."""
    end = asyncio.get_running_loop().time() + deadline
    open_, done = set(waiting), 0
    while open_ and done < least:
        left = end - asyncio.get_running_loop().time()
        ended, open_ = await asyncio.wait(open_, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            return
        done += sum(isinstance(one.result(), _Done) for one in ended)
