"""What is only counted: denials of one sender beyond its budget, and answers that are read again (SPEC.md section 8).

A sender that policy denies can send as fast as it likes, and a record of each denial would fill the audit stream, which
stops all handling once it is full. So each issuer has a budget of recorded denials per minute. Denials beyond it are
decided and answered as usual, and are counted in one signed `denials` record for that issuer and minute.

Whoever may read an answer can do so as often as they like, at no cost of their own. So a decision about an answer that has a
record (`recorded_reads`) is counted in the same way when it is made again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, DenialsRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Denials"]

_log = logging.getLogger(__name__)

KEPT = 8_192
"""Records that wait to be stored while the audit stream is unavailable; more are dropped, counted and logged."""


@dataclass(slots=True)
class _Issuer:
    recorded: int = 0
    denied: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> list[dict[str, int]]:
        """What is counted of it, each of which becomes a record: denials, and what was read again."""
        return [counts for counts in (self.denied, self.again) if counts]


class Denials:
    """The budgets of one recorder. `store` takes the records; await `run` to have them stored minute by minute.

    `budget` is how many denials of one issuer are recorded in a minute; `issuers` is how many issuers are tracked within
    a minute. Denials of any further issuer are all recorded singly: its ID was proved, so they are not cheap to make up,
    and evidence must not be lost for lack of memory.
    """

    def __init__(
        self,
        *,
        store: Callable[[DenialsRecord], Awaitable[None]],
        counters: Counters,
        budget: int,
        issuers: int,
        clock: Clock = wall_clock,
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
        """Note a denial by `code` now; return whether it was counted here, and so is not to be recorded."""
        found = self._found(issuer)
        if found is None:
            return False
        if found.recorded < self._budget:
            found.recorded += 1
            return False
        found.denied[code] = found.denied.get(code, 0) + 1
        self._counters.add("sealbus_denials_counted_total", 1, code=str(code))
        return True

    def counted_again(self, issuer: SpiffeId, code: str | None) -> bool:
        """Count a decision about an answer of `issuer` that has a record; return whether it was counted, and so needs none.

        `code` is that of a denial, `None` for what was allowed.
        """
        found = self._found(issuer)
        if found is None:
            return False
        counts = found.again if code is None else found.denied
        name = READ_AGAIN if code is None else code
        counts[name] = counts.get(name, 0) + 1
        self._counters.add("sealbus_reads_counted_total")
        return True

    def _found(self, issuer: SpiffeId) -> _Issuer | None:
        """Return what is tracked of `issuer` in this minute; `None` if that is one too many."""
        self._turn()
        found = self._issuers.get(issuer)
        if found is None and len(self._issuers) < self._most:
            found = self._issuers[issuer] = _Issuer()
        return found

    async def run(self) -> None:
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
            for issuer, found in self._issuers.items()
            for counts in found.counts
        ]
        self._issuers.clear()
        lost = records[max(0, KEPT - len(self._ended)) :]
        self._ended.extend(records[: len(records) - len(lost)])
        if lost:
            self._counters.add("sealbus_denials_lost_total", sum(sum(one.counts.values()) for one in lost))
            _log.error("%d counts of one minute were not recorded: the stream stores nothing", len(lost))
