"""What failed verification, as the processes that refused it have counted it: unsigned, and about what proves nothing."""

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
"""Over each number: a minute, in seconds, that a date can be made of."""
_ENVELOPE: Final = b"\x97\x01"
_LENGTHS: Final = {0xC4: 1, 0xC5: 2}
"""Bytes of the length of a msgpack byte string, by its first byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedMessages:
    """Messages that one process refused in one minute, under one code and on one subject.

    `by` is the token of who refused, `claimed` whom the first of them says that it is from, which nobody has verified; for a
    connection, the workload that the callout has verified. `minute` is in microseconds.
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
        """Return the count in `payload`, None if it is none: an agent can publish anything under its own subject."""
        try:
            told = parse_object(payload, depth=_DEPTH)
            code, about, detail = (str(told[name])[:256] for name in ("code", "subject", "detail"))
            minute, count, step = (int(str(told[name])) for name in ("minute", "count", "step"))
            sample = bytes.fromhex(str(told["sample"]))
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
    """Yield what is counted in the stream since a time in microseconds, the oldest first."""
    async with aclosing(transport.read(REFUSALS, [SUBJECTS[REFUSALS]], since=since)) as batches:
        async for batch in batches:
            for one in batch:
                found = RefusedMessages.parse(one.subject, one.payload)
                if found is not None:
                    yield found


def summed(found: Iterable[RefusedMessages]) -> list[RefusedMessages]:
    """Return the sums over all minutes, the largest first; each has the newest minute and its detail."""
    sums: dict[tuple[str, ...], RefusedMessages] = {}
    for one in found:
        key = (one.code, one.subject, one.by, one.claimed)
        before = sums.get(key)
        sums[key] = one if before is None else replace(one, count=one.count + before.count)
    return sorted(sums.values(), key=lambda one: -one.count)


def _claimed(sample: bytes) -> str:
    """Return whom the header in the beginning of an envelope names as its sender, empty if there is none to be read."""
    try:
        if sample.startswith(b"{"):
            return str(json.loads(sample).get("spiffe_id", ""))[:256]
        width = _LENGTHS.get(sample[2], 0) if sample.startswith(_ENVELOPE) and len(sample) > 2 else 0
        start = 3 + width
        return parse_header(sample[start : start + int.from_bytes(sample[3:start])]).iss.value if width else ""
    except (EnvelopeError, ValueError, RecursionError):
        return ""
