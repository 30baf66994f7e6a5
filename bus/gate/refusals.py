"""Counts of messages that failed verification, with samples, in a stream that never blocks handling (SPEC.md section 8).

A refusal proves nothing and nothing waits for it: garbage is cheap to send, so it must be cheap to refuse. Counts are kept by
code, subject and minute in bounded memory, and published unsigned. Counts that cannot be published are counted and dropped.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.ports import Delivery, Outgoing, PubAck, Transport
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.errors import Code, EnvelopeError, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

_logger = logging.getLogger(__name__)

MAX_KEYS = 512
"""Distinct (code, subject) pairs per minute; further ones are counted under the subject `other`."""

_MINUTE = 60 * SECOND


@dataclass(slots=True)
class _Count:
    count: int
    step: int
    detail: str
    sample: bytes


class Refusals:
    """Collects refusals and publishes them to `subject`, `every` seconds after the first, while `run` is awaited."""

    def __init__(
        self,
        *,
        transport: Transport,
        subject: str,
        counters: Counters,
        clock: BusClock | None = None,
        every: float = 1.0,
    ) -> None:
        self._transport = transport
        self._subject = subject
        self._counters = counters
        self._clock = clock or UNMEASURED_CLOCK
        self._every = every
        self._counts: dict[tuple[str, str, int], _Count] = {}
        self._counted = asyncio.Event()
        """Set while there are counts."""
        self._operator_log = OperatorLog(_logger)
        counters.add("sealbus_refused_total", 0, code=Code.MALFORMED.value)

    def count(self, error: SealbusError, delivery: Delivery) -> None:
        """Count a refused delivery. Of the first with its code, subject and minute, keep at most 1,024 bytes of payload."""
        self._counters.add("sealbus_refused_total", 1, code=str(error.code))
        minute = self._clock() // _MINUTE
        key = (str(error.code), delivery.subject, minute)
        if key not in self._counts and len(self._counts) >= MAX_KEYS:
            key = (str(error.code), "other", minute)
        count = self._counts.get(key)
        if count is not None:
            count.count += 1
            return
        step = error.step if isinstance(error, EnvelopeError) else 0
        self._operator_log.refused(delivery.subject, code=error.code, step=step)
        self._counts[key] = _Count(
            count=1,
            step=step,
            detail=error.detail[:256],
            sample=delivery.payload[: DEFAULT_LIMITS.refusal_sample_bytes],
        )
        self._counted.set()

    async def run(self) -> None:
        """Publish the counts periodically until cancelled, then once more."""
        try:
            while True:
                await self._counted.wait()
                await asyncio.sleep(self._every)
                await self.flush()
        finally:
            with suppress(asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.flush()

    async def flush(self) -> None:
        """Publish the counts so far; never raises if the broker does not answer."""
        counts, self._counts = self._counts, {}
        self._counted.clear()
        if not counts:
            return
        messages = [Outgoing(subject=self._subject, payload=_encode(key, count)) for key, count in counts.items()]
        try:
            answers = await self._transport.publish(messages, deadline=1.0)
        except SealbusError as error:
            _logger.warning("refusals not published: %s", error)
            answers = [error] * len(messages)
        lost = sum(not isinstance(answer, PubAck) for answer in answers)
        if lost:
            self._counters.add("sealbus_refusals_lost_total", lost)


def _encode(key: tuple[str, str, int], count: _Count) -> bytes:
    code, subject, minute = key
    document: Mapping[str, object] = {
        "code": code,
        "subject": subject,
        "minute": minute * 60,
        "count": count.count,
        "step": count.step,
        "detail": count.detail,
        "sample": count.sample.hex(),
    }
    return json.dumps(document, separators=(",", ":")).encode()
