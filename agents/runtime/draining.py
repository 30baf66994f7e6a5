"""What a worker that drains waits for, said to its operator: actions, how many, since when; never a payload or an id."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

from sealbus.bus.ports import Clock
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.limits import SECOND

__all__ = ["describe_unfinished", "say_while_draining"]

_log = logging.getLogger(__name__)

SAY_EVERY = 5.0
"""Seconds between two lines."""
MOST_ACTIONS: Final = 8
"""Actions that are named in one line, those with the oldest work first."""


@asynccontextmanager
async def say_while_draining(
    agent: str,
    unfinished: Callable[[], Collection[Work]],
    *,
    within: float,
    clock: Clock,
    every: float | None = None,
) -> AsyncGenerator[None, None]:
    """Log what is unfinished when the block begins, and every few seconds until it is left; nothing if nothing is.

    `within` is the seconds that the drain may take in all.
    """
    end = asyncio.get_running_loop().time() + within

    async def say() -> None:
        while works := unfinished():
            left = max(0.0, end - asyncio.get_running_loop().time())
            _log.info("%s drains, for %.0f s at most: %s", agent, left, describe_unfinished(works, clock()))
            await asyncio.sleep(SAY_EVERY if every is None else every)

    saying = asyncio.create_task(say(), name="draining")
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.wait({saying})


def describe_unfinished(works: Collection[Work], now: int) -> str:
    """Return how many of each action are handled, and since when at `now`, and how many wait for their turn.

    Without `works` it is their decisions that are not stored yet.
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
    more = f"; and {len(parts) - MOST_ACTIONS} more" if len(parts) > MOST_ACTIONS else ""
    return "; ".join(parts[:MOST_ACTIONS]) + more
