"""Messages that failed verification, as counted by the processes that refused them. The counts are unsigned."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, Self

from sealbus.bus.ports import Transport
from sealbus.bus.stream_names import REFUSALS, SUBJECTS
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header

_DEPTH: Final = 4
_MOST: Final = 1 << 37
"""Above each accepted number, so that each minute (in seconds) can become a date."""
_ENVELOPE: Final = b"\x97\x01"
_LENGTHS: Final = {0xC4: 1, 0xC5: 2}
"""Width in bytes of the length of a msgpack byte string, by its first byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedMessages:
    """Messages that one process refused in one minute, under one code and on one subject.

    `by` is the token of the agent that refused them. `claimed` is the sender that the first of them names, unverified; for a
    connection it is the workload that the callout verified. `minute` is in microseconds.
    """

    by: str
    code: str
    subject: str
    minute: int
    count: int
    step: int
    detail: str
    claimed: str

    @classmethod
    def parse(cls, subject: str, payload: bytes) -> Self | None:
        """Return the count in `payload`, or None for other contents: an agent can publish anything under its own subject."""
        try:
            content = parse_object(payload, depth=_DEPTH)
            code, about, detail = (str(content[name])[:256] for name in ("code", "subject", "detail"))
            minute, count, step = (int(str(content[name])) for name in ("minute", "count", "step"))
            sample = bytes.fromhex(str(content["sample"]))
        except (KeyError, ValueError):
            return None
        if min(minute, count, step) < 0 or max(minute, count, step) >= _MOST:
            return None
        return cls(
            by=subject.partition(".")[2],
            code=code,
            subject=about,
            minute=minute * SECOND,
            count=count,
            step=step,
            detail=detail,
            claimed=_claimed(sample),
        )


async def refused_messages(transport: Transport, *, since: int = 0) -> AsyncGenerator[RefusedMessages, None]:
    """Yield the counts in the stream from the time `since` on (microseconds), the oldest first."""
    async with aclosing(transport.read(REFUSALS, [SUBJECTS[REFUSALS]], since=since)) as batches:
        async for batch in batches:
            for delivery in batch:
                counted = RefusedMessages.parse(delivery.subject, delivery.payload)
                if counted is not None:
                    yield counted


def summed(counts: Iterable[RefusedMessages]) -> list[RefusedMessages]:
    """Return the sums over all minutes, the largest first; each has the newest minute and its detail."""
    sums: dict[tuple[str, ...], RefusedMessages] = {}
    for count in counts:
        key = (count.code, count.subject, count.by, count.claimed)
        before = sums.get(key)
        sums[key] = count if before is None else replace(count, count=count.count + before.count)
    return sorted(sums.values(), key=lambda count: -count.count)


def _claimed(sample: bytes) -> str:
    """Return the sender that the header at the beginning of an envelope names; empty if that cannot be read."""
    try:
        if sample.startswith(b"{"):
            return str(json.loads(sample).get("spiffe_id", ""))[:256]
        width = _LENGTHS.get(sample[2], 0) if sample.startswith(_ENVELOPE) and len(sample) > 2 else 0
        start = 3 + width
        return parse_header(sample[start : start + int.from_bytes(sample[3:start])]).iss.value if width else ""
    except (EnvelopeError, ValueError, RecursionError):
        return ""
