"""Counts of the attempts at a message, stored in STATE for all processes of an agent: `StoredCounts`, `FailedAttempts`.

The broker counts deliveries, and many deliveries are no attempts: a process put the message off because an engine was
away, or because its version lacks the verb. A retry policy goes by failed attempts, so each is counted when it has failed.
A task that succeeds costs nothing (SPEC.md section 7, "Failed attempts").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import EnvelopeError, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.caches import BoundedMap

_logger = logging.getLogger(__name__)

FAILED: Final = "failed"
"""The name of the counts of `FailedAttempts`."""

WITHIN: Final = 5.0
"""Seconds for one read or write of STATE, and for counting a failed attempt in all."""

UNCOUNTED: Final = 8_192
"""Messages with a failed attempt that STATE did not store, as many as a process remembers."""

_TRIES: Final = 4
"""Tries to write one count while other processes write it."""

_VERSION: Final = 1
_BYTES: Final = 16_384
"""Longest stored count: a token of a credential is most of it."""


class StoredCount(NamedTuple):
    """The value at the place of a count: its `fields`, or `None` if it is no count of this agent, and its `sequence`."""

    fields: Sequence[object] | None
    sequence: int


class StoredCounts:
    """The counts `name` of one agent: one signed and timely array for each message.

    It stands at `state.<token>.<name>.<hex H(header)>`, of the type `application/vnd.sealbus.<name>.v1`.
    """

    def __init__(self, name: str, site: Site) -> None:
        self._prefix = f"state.{site.token}.{name}."
        self._type = f"application/vnd.sealbus.{name}.v1"
        self._site = site
        self._keyed = KeyValue(site.transport)

    async def read(self, digest: bytes) -> StoredCount | None:
        """Return the value at the place of the message, or `None` if there is none. Raises `BusUnavailable`."""
        value = await self._keyed.get(self._prefix + digest.hex(), within=WITHIN)
        if value is None:
            return None
        return StoredCount(self._parsed(digest, value.payload, value.stored), value.sequence)

    async def write(self, digest: bytes, fields: Sequence[int], last: int) -> int | None:
        """Replace the value with the sequence `last`; return the new sequence, or `None` if `last` is not current any more.

        Raises `BusUnavailable` or `IdentityUnavailable`; the value may be stored nevertheless.
        """
        payload = encode([_VERSION, digest, *fields, self._site.host_clock()])
        value = encode([*signed(payload, self._type, self._site.identity.sealer())], text_bytes=_BYTES)
        return await self._keyed.replace(self._prefix + digest.hex(), value, last=last, within=WITHIN)

    def _parsed(self, digest: bytes, stored_bytes: bytes, stored: int) -> Sequence[object] | None:
        try:
            array = decode(stored_bytes, text_bytes=_BYTES, step=0)
            parts = [part for part in array if isinstance(part, bytes)] if isinstance(array, list) else []
            payload = decode(parts[0], step=0) if len(parts) == PARTS else None
        except EnvelopeError:
            return None
        match payload:
            case [int(version), bytes(named), *fields, int(at)]:
                # A bool is no integer here, and True is 1 to Python.
                ours = not isinstance(version, bool) and (version, named) == (_VERSION, digest)
            case _:
                return None
        if not ours or isinstance(at, bool):
            return None
        if not at - DEFAULT_LIMITS.clock_skew <= stored <= at + DEFAULT_LIMITS.stored_within:
            return None
        own = self._site.identity.spiffe_id
        return (
            fields
            if is_own(parts, self._type, own=own, at=at, trust=self._site.trust(), caches=self._site.caches)
            else None
        )


class FailedAttempts:
    """Counts the failed attempts at a message in all processes, in the `counts` of the name `FAILED`."""

    def __init__(self, counts: StoredCounts) -> None:
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

    def _following(self, work: Work, count: StoredCount | None) -> int:
        uncounted = self._uncounted.get(work.header.digest) or 0
        if count is None:
            return uncounted + 1
        match count.fields:
            case [int(failed)] if not isinstance(failed, bool) and failed > 0:
                return max(failed, uncounted) + 1
            case _:
                return work.tried.number
