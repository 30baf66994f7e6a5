"""Counts the connections that a callout refuses, for one record a minute (SPEC.md section 8, `connections`)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.telemetry import OperatorLog
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.operation import INSTANCE_BYTES, ConnectionsRecord
from sealbus.envelopes.records.work import MINUTE

KEPT: Final = 1_440
"""Minutes that wait to be stored, a day's; then the oldest is dropped, and the operator's log says so."""

LEAVING: Final = 1.0
"""Seconds to store the present minute when the callout ends."""

_logger: Final = logging.getLogger(__name__)


class RefusedMinutes:
    """The refused connections of each minute, by code. Strangers can add to a count, and make no record of their own."""

    def __init__(self, clock: Clock = wall_clock) -> None:
        self._clock = clock
        self._minute = 0
        self._counts: Counter[str] = Counter()
        self._ended: deque[ConnectionsRecord] = deque()
        self._operator_log = OperatorLog(_logger)

    def note(self, code: str) -> None:
        """Count one refusal; never blocks."""
        self._turn()
        self._counts[code] += 1

    async def store_minutes(self, store: Callable[[ConnectionsRecord], Awaitable[object]]) -> None:
        """Have `store` take each minute once it has ended, and the present one when cancelled.

        What it cannot store now waits a minute more.
        """
        try:
            while True:
                await asyncio.sleep((MINUTE - self._clock() % MINUTE) / SECOND)
                await self.flush(store)
        finally:
            with suppress(asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(LEAVING):
                    await self.flush(store, closing=True)

    async def flush(self, store: Callable[[ConnectionsRecord], Awaitable[object]], *, closing: bool = False) -> None:
        """Have `store` take the minutes that have ended; when `closing`, also the present one so far."""
        self._turn()
        if closing:
            self._end_minute()
        try:
            while self._ended:
                record = self._ended[0]
                await store(record)
                # Meanwhile it may have made room for a later one.
                if self._ended and self._ended[0] is record:
                    self._ended.popleft()
        except SealbusError as error:
            self._operator_log.warning("refused connections are counted and not recorded yet: %s", error)

    def _turn(self) -> None:
        minute = self._clock() // MINUTE * MINUTE
        if minute != self._minute:
            self._end_minute()
            self._minute = minute

    def _end_minute(self) -> None:
        if self._counts:
            if len(self._ended) == KEPT:
                lost = self._ended.popleft()
                self._operator_log.warning("%d refused connections are in no record", sum(lost.counts.values()))
            self._ended.append(
                ConnectionsRecord(minute=self._minute, instance=os.urandom(INSTANCE_BYTES), counts=self._counts)
            )
        self._counts = Counter()
