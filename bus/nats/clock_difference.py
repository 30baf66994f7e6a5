"""Measures how far this host's clock is from the broker's, by which messages are judged (SPEC.md section 3, *Life*).

The difference is measured periodically by a request to the broker, less half of the round trip. If our clock is set in
between, that is noticed without a request. While the difference exceeds the format's limit, nothing may be decided, because
a policy would get a wrong time. Messages are dated by the broker's time, as it was measured when the clocks last agreed, and
carried on by the monotonic clock. With our own clock's time, recipients would refuse what a host seals that is off by about
the limit, or whose clock was set since, such as the result of a running handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import nan
from typing import Final

from sealbus.bus.clocks import ELAPSED, HOST_CLOCK, HostClock
from sealbus.envelopes.errors import ClockSkew, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

_logger = logging.getLogger(__name__)

EVERY: Final = 10.0
"""Seconds between two measurements while the clocks agree."""

AGAIN: Final = 1.0
"""Seconds between measurements while the clocks disagree."""

LOOK: Final = 5.0
"""Seconds between checks whether our clock was set, while nothing arrives: a batch that arrives is checked in any case."""

STEP: Final = SECOND
"""A wall clock that drifts by more than this from the monotonic clock was set. Earlier measurements no longer hold."""

TRIP: Final = 2 * SECOND
"""The longest round trip that is precise enough."""


class ClockDifference:
    """The difference to one broker. `ask` returns the broker's time (microseconds; 0 if unknown)."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[int]],
        *,
        clock: HostClock = HOST_CLOCK,
        elapsed: Callable[[], float] = ELAPSED,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._elapsed = elapsed
        self._measured: tuple[int, int, int] | None = None
        """How far ahead our clock was, the uncertainty, and our clock's offset from the monotonic clock at that time."""
        self._agreed: int | None = None
        """The offset of the broker's clock from our monotonic clock, when ours last agreed with it."""
        self._reported = ""
        self._begun = elapsed()
        self.started = clock()
        """When this was made, by our clock's time until that has agreed with the broker's, and then by the later of the two.

        What was sent before that may have been handled by a process before this one.
        """

    def now(self) -> int:
        """Return the broker's time (microseconds); our clock's until the two have agreed."""
        if self._agreed is None:
            return self._clock()
        return int(self._elapsed() * SECOND) + self._agreed

    @property
    def ahead(self) -> int | None:
        """Microseconds that our clock is ahead of the broker's; `None` before the first measurement."""
        if self._measured is None:
            return None
        ahead, _, beside = self._measured
        return ahead + self._offset() - beside

    def seconds_ahead(self) -> float:
        """Return `ahead` in seconds, for a metric; NaN before the first measurement."""
        ahead = self.ahead
        return ahead / SECOND if ahead is not None else nan

    @property
    def problem(self) -> ClockSkew | None:
        """The reason why nothing may be decided now, or `None` if the clocks agree."""
        ahead = self.ahead
        if self._measured is None or ahead is None:
            return ClockSkew("the broker's time is not known yet")
        if abs(ahead) - self._measured[1] <= DEFAULT_LIMITS.clock_skew:
            return None
        way = "ahead of" if ahead > 0 else "behind"
        allowed = DEFAULT_LIMITS.clock_skew // SECOND
        return ClockSkew(f"this host is {abs(ahead) / SECOND:.1f} s {way} the broker, {allowed} s are allowed")

    async def settle(self) -> ClockSkew | None:
        """Return `problem`, after a new measurement if our clock was set since the last one."""
        if self._measured is None or abs(self._offset() - self._measured[2]) > STEP:
            await self._measure()
        return self.problem

    async def measure(self) -> ClockSkew | None:
        """Measure now; return `problem`."""
        await self._measure()
        return self.problem

    async def agree(self) -> None:
        """Measure again every second until the clocks agree."""
        while await self.settle() is not None:
            await asyncio.sleep(AGAIN)
            await self._measure()

    async def disagree(self) -> None:
        """Measure periodically until the clocks disagree."""
        due = self._elapsed() + EVERY
        while await self.settle() is None:
            await asyncio.sleep(LOOK)
            if self._elapsed() >= due:
                await self._measure()
                due = self._elapsed() + EVERY

    async def run(self) -> None:
        """Measure periodically until cancelled, whether or not the clocks agree."""
        while True:
            await self.agree()
            await self.disagree()

    async def _measure(self) -> None:
        """Measure. Without an answer keep the last result; `ahead` adjusts it by how far our clock was set."""
        begun = self._elapsed()
        try:
            broker_time = await self._ask()
        except SealbusError as error:
            _logger.warning("the broker's time is not known: %s", error.code)
            return
        trip, beside = int((self._elapsed() - begun) * SECOND), self._offset()
        if broker_time and trip <= TRIP:
            ours = int(begun * SECOND) + trip // 2 + beside
            self._measured = ours - broker_time, trip // 2, beside
            if self.problem is None:
                agreed = beside - (ours - broker_time)
                if self._agreed is None:
                    self.started = int(self._begun * SECOND) + max(agreed, beside)
                self._agreed = agreed
            self._report()

    def _report(self) -> None:
        problem = self.problem
        if (detail := problem.detail if problem is not None else "") and not self._reported:
            _logger.error("%s: nothing is decided until the clocks are synchronized (NTP)", detail)
        elif self._reported and not detail:
            _logger.warning("this host's clock and the broker's agree again")
        self._reported = detail

    def _offset(self) -> int:
        return self._clock() - int(self._elapsed() * SECOND)
