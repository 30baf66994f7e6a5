"""Counts of the failed attempts at a message, stored in STATE for all processes of an agent.

The broker counts deliveries, and many deliveries are no attempts: a process put the message off because an engine was
away, or because its version lacks the verb. A retry policy goes by failed attempts, so each is counted when it has failed.
A task that succeeds costs nothing (SPEC.md section 7, "Failed attempts").
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.timely_arrays import WITHIN, StoredArray, TimelyArrays
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.trust.caches import BoundedMap

_logger = logging.getLogger(__name__)

FAILED: Final = "failed"
"""The name of the counts of `FailedAttempts`."""

UNCOUNTED: Final = 8_192
"""Messages with a failed attempt that STATE did not store, as many as a process remembers."""

_TRIES: Final = 4
"""Tries to write one count while other processes write it."""


class FailedAttempts:
    """Counts the failed attempts at a message in all processes, in the `counts` of the name `FAILED`."""

    def __init__(self, counts: TimelyArrays) -> None:
        self._counts = counts
        self._uncounted: BoundedMap[bytes, int] = BoundedMap(UNCOUNTED)
        """The number of each message's last failed attempt here that STATE did not store."""
        self._operator_log = OperatorLog(_logger)

    async def count(self, work: Work) -> int:
        """Count the attempt of `work`, which has failed, and return its number, from 1. Raises nothing.

        If STATE does not answer, or another agent has written to the place, it is the broker's number of the delivery, which
        is never lower.
        """
        digest = work.header.digest
        try:
            async with asyncio.timeout(WITHIN):
                for again in range(_TRIES):
                    # At a first delivery there is no value as a rule, and the write shows whether that is so.
                    count = await self._counts.read(digest) if again or work.tried.number > 1 else None
                    number = self._following(work, count)
                    last = count.sequence if count is not None else 0
                    if await self._counts.write(digest, [number], last) is not None:
                        return number
        except (SealbusError, TimeoutError) as error:
            self._operator_log.warning("a failed attempt is not counted, deliveries are: %r", error)
        self._uncounted.put(digest, work.tried.number)
        return work.tried.number

    def _following(self, work: Work, count: StoredArray | None) -> int:
        uncounted = self._uncounted.get(work.header.digest) or 0
        if count is None:
            return uncounted + 1
        match count.fields:
            case [int(failed)] if not isinstance(failed, bool) and failed > 0:
                return max(failed, uncounted) + 1
            case _:
                return work.tried.number
