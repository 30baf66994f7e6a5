"""Counts decisions instead of recording each: a sender's denials beyond its budget, and repeated reads (SPEC.md section 8).

A denied sender can send as fast as it likes. A record of each denial would fill the audit stream, and a full audit stream
stops all handling. So each issuer has a budget of recorded denials per minute. Denials beyond the budget are decided and
answered as usual, and counted in one signed `denials` record for that issuer and minute.

A permitted reader can read an answer as often as it likes, at no cost. So a decision about an answer that has a record
(`bus.gate.reply_policy`) is counted in the same way when it is made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, DenialsRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger = logging.getLogger(__name__)

KEPT = 8_192
"""Records that wait to be stored while the audit stream is unavailable; more are dropped, counted and logged."""


@dataclass(slots=True)
class _Issuer:
    recorded: int = 0
    denied: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> list[dict[str, int]]:
        """The counts of denials and of repeated reads, each of which becomes a record."""
        return [counts for counts in (self.denied, self.again) if counts]


class Denials:
    """The budgets of one recorder. `store` takes the records; await `store_minutes` to have them stored.

    `budget` is how many denials of one issuer are recorded in a minute, `issuers` how many issuers are tracked in a minute.
    Denials of further issuers are all recorded singly: evidence must not be lost for lack of memory, and an attacker cannot
    make up issuers cheaply, because each SPIFFE ID was proved.
    """

    def __init__(
        self,
        *,
        store: Callable[[DenialsRecord], Awaitable[None]],
        counters: Counters,
        budget: int,
        issuers: int,
        clock: BusClock = UNMEASURED_CLOCK,
    ) -> None:
        self._store = store
        self._counters = counters
        counters.add("sealbus_denials_counted_total", 0, code=Code.DENIED.value)
        counters.add("sealbus_denials_lost_total", 0)
        counters.add("sealbus_reads_counted_total", 0)
        self._budget = budget
        self._most = issuers
        self._clock = clock
        self._minute = 0
        self._issuers: dict[SpiffeId, _Issuer] = {}
        self._ended: deque[DenialsRecord] = deque()
        """Records of past minutes that are not stored yet, at most `KEPT`."""

    def only_counted(self, issuer: SpiffeId, code: Code) -> bool:
        """Note a denial by `code` now; return whether it was only counted, and must not be recorded."""
        entry = self._tracked(issuer)
        if entry is None:
            return False
        if entry.recorded < self._budget:
            entry.recorded += 1
            return False
        entry.denied[code] = entry.denied.get(code, 0) + 1
        self._counters.add("sealbus_denials_counted_total", 1, code=str(code))
        return True

    def counted_again(self, issuer: SpiffeId, code: str | None) -> bool:
        """Count a repeated decision about an answer of `issuer`; return whether it was counted, and so needs no record.

        `code` is the denial's, or `None` if the read was allowed.
        """
        entry = self._tracked(issuer)
        if entry is None:
            return False
        counts = entry.again if code is None else entry.denied
        name = READ_AGAIN if code is None else code
        counts[name] = counts.get(name, 0) + 1
        self._counters.add("sealbus_reads_counted_total")
        return True

    def _tracked(self, issuer: SpiffeId) -> _Issuer | None:
        """Return the counts of `issuer` in this minute; `None` if too many issuers are tracked already."""
        self._turn()
        entry = self._issuers.get(issuer)
        if entry is None and len(self._issuers) < self._most:
            entry = self._issuers[issuer] = _Issuer()
        return entry

    async def store_minutes(self) -> None:
        """Store the counts of each minute once it has ended, until cancelled."""
        while True:
            left = MINUTE - self._clock() % MINUTE
            await asyncio.sleep(left / SECOND)
            await self.flush()

    async def flush(self, *, closing: bool = False) -> None:
        """Store the records of the minutes that have ended; when `closing`, also those of the current one."""
        self._turn()
        if closing:
            self._end_minute()
        while self._ended:
            await self._store(self._ended[0])
            self._ended.popleft()

    def _turn(self) -> None:
        minute = self._clock() // MINUTE * MINUTE
        if minute != self._minute:
            self._end_minute()
            self._minute = minute

    def _end_minute(self) -> None:
        records = [
            DenialsRecord(iss=issuer, minute=self._minute, counts=counts)
            for issuer, entry in self._issuers.items()
            for counts in entry.counts
        ]
        self._issuers.clear()
        lost = records[max(0, KEPT - len(self._ended)) :]
        self._ended.extend(records[: len(records) - len(lost)])
        if lost:
            self._counters.add("sealbus_denials_lost_total", sum(sum(record.counts.values()) for record in lost))
            _logger.error("%d counts of one minute were not recorded: the stream stores nothing", len(lost))
