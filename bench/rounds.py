"""Rounds in which ways to do the same work take turns, each with its time and the processor time of the NATS server.

Other load on the machine slows all of them down, so that the ratios of a round say more than any rate.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Figure

__all__ = ["Rounds", "in_flight", "processor_seconds"]


class Rounds:
    """Seconds by `clock`, and the server's, for each message, by what was done, one entry a round.

    With `time.process_time`, for what waits for nothing, other load counts less.
    """

    def __init__(self, server: int | None = None, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.server = server
        self._clock = clock
        self.seconds: dict[str, list[float]] = {}
        self.costs: dict[str, list[float]] = {}

    @contextmanager
    def measured(self, name: str, count: int, *, server: int | None = None) -> Iterator[None]:
        """Add a round of `name`, which is what the block takes for each of `count` messages; `server` is its own process."""
        process = server or self.server
        cost, began = processor_seconds(process), self._clock()
        yield
        seconds, cost = self._clock() - began, processor_seconds(process) - cost
        self.add(name, seconds / count, server=cost / count if process is not None else None)

    def add(self, name: str, seconds: float, *, server: float | None = None) -> None:
        """Add a round that was measured otherwise, in seconds for each message."""
        self.seconds.setdefault(name, []).append(seconds)
        if server is not None:
            self.costs.setdefault(name, []).append(server)

    def ratio(
        self, label: str, ours: str, bare: str, *, guard: float | None = None, goal: float | None = None
    ) -> Figure:
        """Compare rates: how many of ours are done in the time of one bare one."""
        return self._ratio(label, bare, ours, (ours, bare), guard=guard, goal=goal, at_least=True)

    def times(
        self, label: str, ours: str, bare: str, *, guard: float | None = None, goal: float | None = None
    ) -> Figure:
        """Compare latencies: how many times as long one of ours takes."""
        return self._ratio(label, ours, bare, (ours, bare), guard=guard, goal=goal, at_least=False)

    def _ratio(
        self,
        label: str,
        above: str,
        below: str,
        cost: tuple[str, str],
        *,
        guard: float | None,
        goal: float | None,
        at_least: bool,
    ) -> Figure:
        found = [one / other for one, other in zip(self.seconds[above], self.seconds[below], strict=True)]
        ours, theirs = (self._cost(one) for one in cost)
        return Figure.of(
            found,
            name=label,
            unit="x",
            guard=guard,
            goal=goal,
            at_least=at_least,
            server=ours / theirs if ours and theirs else None,
        )

    def rate(self, name: str, *, label: str = "", unit: str = "/s", goal: float | None = None) -> Figure:
        """Return how many a second."""
        return Figure.of(
            [1 / one for one in self.seconds[name]],
            name=f"  {label or name}",
            unit=unit,
            goal=goal,
            at_least=True,
            server=self._shown_cost(name),
        )

    def latency(self, name: str, *, label: str = "", unit: str = "ms", goal: float | None = None) -> Figure:
        """Return how long one takes."""
        return Figure.of(
            [one * {"s": 1.0, "ms": 1e3, "us": 1e6}[unit] for one in self.seconds[name]],
            name=f"  {label or name}",
            unit=unit,
            goal=goal,
            server=self._shown_cost(name),
        )

    def _cost(self, name: str) -> float | None:
        costs = self.costs.get(name)
        # The mean, because the system counts processor time in steps of 10 ms, which are long for one round.
        return statistics.mean(costs) if costs else None

    def _shown_cost(self, name: str) -> float | None:
        cost = self._cost(name)
        return None if cost is None else cost * 1e6


def processor_seconds(process: int | None) -> float:
    """Return the processor time that another process has taken so far; 0 without one."""
    if process is None:
        return 0.0
    # What follows the name in parentheses, which may hold anything, begins with the third field: these are 14 and 15.
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def in_flight(call: Callable[[], Awaitable[object]], count: int, lanes: int) -> None:
    """Do `call` so many times, `lanes` of them at a time."""
    left = count

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())
