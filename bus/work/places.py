"""Places for deliveries that are put off: the number that one process may put off at a time, by cause.

A delivery that is put off holds one of its consumer's `max_ack_pending` until it is redelivered. If all are held, the agent
stands still. So unauthenticated messages have a small share. Passing failures have so few places that half of them stay free
even if 16 processes serve one agent (SPEC.md section 7). Messages that wait for a verb have their own room
(`bus.work.verb_room`).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from sealbus.bus.ports import Delivery, Settlement
from sealbus.bus.telemetry import Counters, OperatorLog

_logger = logging.getLogger(__name__)


class Cause(StrEnum):
    """Why a delivery is put off."""

    UNAUTHENTICATED = "unauthenticated"
    """An unknown key or trust domain: nothing in the message is verified."""
    PASSING = "passing"
    """An engine, resource, stream or handler failed: the message is genuine, and is never given up for lack of room."""


AT_MOST: Final = {Cause.UNAUTHENTICATED: 128, Cause.PASSING: 2_048}
"""Most deliveries that a process puts off at a time, by cause."""

SHARE: Final = {Cause.UNAUTHENTICATED: 64, Cause.PASSING: 4}
"""The fraction of `max_ack_pending` that each cause has, if that is less than `AT_MOST`."""


class Places:
    """The places of one process, whose consumers have `max_ack_pending`. Each cause has at least one place."""

    def __init__(
        self, max_ack_pending: int, *, counters: Counters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = {cause: max(1, min(AT_MOST[cause], max_ack_pending // SHARE[cause])) for cause in Cause}
        self._counters = counters
        self._clock = clock
        self._held: dict[Cause, list[float]] = {cause: [] for cause in Cause}
        """The time at which each delivery is redelivered, the soonest first."""
        self._operator_log = OperatorLog(_logger)
        for cause in Cause:
            counters.add("sealbus_put_off_total", 0, cause=cause.value)

    def put_off(self, cause: Cause, delivery: Delivery, settlement: Settlement, seconds: float) -> bool:
        """Have `delivery` redelivered in `seconds` if there is a place; return whether there was.

        `Cause.PASSING` always has a place: `room` bounds it.
        """
        held = self._held[cause]
        if cause is not Cause.PASSING and self.waiting(cause) >= self._most[cause]:
            self._counters.add("sealbus_no_place_total", 1, cause=cause.value)
            self._operator_log.warning("no place is left to put off a delivery: %s", cause.value)
            return False
        heapq.heappush(held, self._clock() + seconds)
        self._counters.add("sealbus_put_off_total", 1, cause=cause.value)
        settlement.retry(delivery, seconds)
        return True

    def waiting(self, cause: Cause) -> int:
        """Return the number of deliveries that are put off for `cause` now."""
        held, now = self._held[cause], self._clock()
        while held and held[0] <= now:
            heapq.heappop(held)
        return len(held)

    async def room(self) -> None:
        """Wait while `Cause.PASSING` has no place left."""
        while self.waiting(Cause.PASSING) >= self._most[Cause.PASSING]:
            self._operator_log.warning(
                "nothing new is taken: %d deliveries are put off", len(self._held[Cause.PASSING])
            )
            await asyncio.sleep(max(0.0, self._held[Cause.PASSING][0] - self._clock()))

    def notes(self) -> dict[str, str]:
        """Return notes for operators, by part."""
        notes = {}
        if strangers := self.waiting(Cause.UNAUTHENTICATED):
            notes["keys"] = f"{strangers} deliveries wait for keys or trust domains that are not known"
        if self.waiting(Cause.PASSING) >= self._most[Cause.PASSING]:
            notes["put_off"] = f"nothing new is taken: {len(self._held[Cause.PASSING])} deliveries are put off"
        return notes
