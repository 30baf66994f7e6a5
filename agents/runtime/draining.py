"""Log lines about the work that a draining worker waits for: actions, counts and times; never a payload or an id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

from sealbus.bus.ports import Clock
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.limits import SECOND

_logger = logging.getLogger(__name__)

SAY_EVERY = 5.0
"""Seconds between two lines."""
MOST_ACTIONS: Final = 8
"""Most actions in one line, those with the oldest work first."""


@asynccontextmanager
async def say_while_draining(
    agent: str,
    unfinished: Callable[[], Collection[Work]],
    *,
    within: float,
    clock: Clock,
    every: float | None = None,
) -> AsyncGenerator[None, None]:
    """Log the unfinished work, if there is any, when the block begins and every few seconds until its end.

    `within` is the seconds that the drain may take in all.
    """
    end = asyncio.get_running_loop().time() + within

    async def log_unfinished() -> None:
        while works := unfinished():
            seconds = max(0.0, end - asyncio.get_running_loop().time())
            _logger.info("%s drains, for %.0f s at most: %s", agent, seconds, describe_unfinished(works, clock()))
            await asyncio.sleep(SAY_EVERY if every is None else every)

    logging_task = asyncio.create_task(log_unfinished(), name="draining")
    try:
        yield
    finally:
        logging_task.cancel()
        await asyncio.wait({logging_task})


def describe_unfinished(works: Collection[Work], now: int) -> str:
    """Return for each action how many messages are handled, for how long at `now`, and how many wait.

    If there are no `works`, decisions are still being recorded.
    """
    handled: dict[str, list[int]] = {}
    waiting: dict[str, int] = {}
    for work in works:
        action = work.permitted.route.action
        if work.started:
            handled.setdefault(action, []).append(work.started)
        else:
            waiting[action] = waiting.get(action, 0) + 1
    parts = [
        f"{len(started)} of {action} handled, the oldest for {max(0, now - min(started)) / SECOND:.1f} s"
        for action, started in sorted(handled.items(), key=lambda item: min(item[1]))
    ]
    parts += [f"{count} of {action} waiting" for action, count in sorted(waiting.items())]
    if not parts:
        return "decisions that are being recorded"
    rest = f"; and {len(parts) - MOST_ACTIONS} more" if len(parts) > MOST_ACTIONS else ""
    return "; ".join(parts[:MOST_ACTIONS]) + rest
