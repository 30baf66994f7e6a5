"""What follows a task that was done: its requester is told, and its delivery settled; many of them together.

A terminal status is stored before its delivery is acknowledged: a process that dies between the two says it again, and
its reader takes the first. What waits is told in one write, so that no task of a lane's waits for its own round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sealbus.bus.claiming import Going
from sealbus.bus.effects import Effects
from sealbus.bus.outcomes import Outcomes
from sealbus.bus.routes import Answer
from sealbus.bus.status_body import State
from sealbus.bus.statuses import Statuses, Telling
from sealbus.bus.work import Work

__all__ = ["Completing", "Done"]

TOGETHER: Final = 256
"""Tasks whose statuses leave together: no more than the outbox puts under one signature."""

AT_A_TIME: Final = 4
"""Such batches at a time: one that waits for its acknowledgements does not hold up the next."""


class Done(NamedTuple):
    """A task whose handler has returned `result` and whose effect is noted as done; `started` is when (microseconds)."""

    work: Work
    going: Going
    telling: Telling
    result: Answer
    started: int


class Completing:
    """Tells and settles for one worker; `settled` is called once nothing more is to be done about a piece of work.

    Start `AT_A_TIME` tasks that `run`, and `close` it to end them.
    """

    def __init__(
        self,
        *,
        statuses: Statuses,
        effects: Effects,
        outcomes: Outcomes,
        settled: Callable[[Work], None],
        waiting: int = 1_024,
    ) -> None:
        self._statuses = statuses
        self._effects = effects
        self._outcomes = outcomes
        self._settled = settled
        self._queue: asyncio.Queue[Done | None] = asyncio.Queue(waiting)

    async def put(self, done: Done) -> None:
        """Take over one task; waits where too many wait already."""
        await self._queue.put(done)

    async def join(self) -> None:
        """Wait until everything that was taken over is settled."""
        await self._queue.join()

    async def close(self) -> None:
        """End what runs, once everything that was taken over is settled."""
        for _ in range(AT_A_TIME):
            await self._queue.put(None)

    async def run(self) -> None:
        """Tell and settle what waits, together, until this is closed."""
        last = False
        while not last:
            batch: list[Done] = []
            following = await self._queue.get()
            while following is not None:
                batch.append(following)
                if len(batch) == TOGETHER or self._queue.empty():
                    break
                following = self._queue.get_nowait()
            last = following is None
            try:
                if batch:
                    await self._complete(batch)
            finally:
                for done in batch:
                    self._settled(done.work)
                for _ in range(len(batch) + last):
                    self._queue.task_done()

    async def _complete(self, batch: Sequence[Done]) -> None:
        told = await self._statuses.store_each(
            [(one.work.permitted.message, one.telling.numbered(State.COMPLETED, result=one.result)) for one in batch]
        )
        for one, known in zip(batch, told, strict=True):
            if not known:
                self._effects.untold(one.going)
            await self._outcomes.settle(one.work, None, one.started)
