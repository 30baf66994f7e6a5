"""Values that outlive a day, in the stream HELD: every version of each, of which the newest genuine one counts.

::

    [payload, signature, key, token, extra]    an encoded array; `payload` is signed, and names `extra` by its hash

Others can make the broker store their bytes under anybody's subject. So nothing here is erased by what comes after it, and
a value says whose it is, where it stands, and which version it is: bytes of others count for nothing, nor does an older
version that somebody stored again. A write names the last sequence of its subject, so that of two processes that write at
the same moment one fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, Protocol

from sealbus.bus.ports import Clock, Transport, wall_clock
from sealbus.bus.stream_names import HELD
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["PAYLOAD_BYTES", "VALUE_BYTES", "Held", "HeldValue", "PastTrust", "current_only"]

PAYLOAD_BYTES: Final = 524_288
"""Most bytes of a payload: a key book's; others are smaller."""
VALUE_BYTES: Final = 917_504
"""Most bytes of a stored value: less than a NATS message holds."""

_OWNER: Final = 1
"""The place of the owner's token in a subject."""


class PastTrust(Protocol):
    """The bundles that were current in the past, for values whose keys may be gone by now."""

    async def at(self, time: int) -> Sequence[Trust]:
        """Return the trust to try for what was signed at `time` (microseconds), besides the current one.

        Raises `StateUnavailable` if that is not known now, but may be known later.
        """


class _CurrentOnly:
    async def at(self, time: int) -> Sequence[Trust]:
        del time
        return ()


current_only: Final[PastTrust] = _CurrentOnly()
"""For who knows no notary: only keys that are still in their bundles count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValue:
    """The genuine version of a value that counts. `keys` are those of its payload beside what is here.

    `own` is whose it is, `number` counts versions from 1, `at` is when it was made (microseconds), `stored` when the broker
    had it, `last` the sequence of the last message of its subject, genuine or not, which a write names.
    """

    subject: str
    own: SpiffeId
    keys: RecordMap = field(repr=False)
    extra: bytes = field(repr=False)
    number: int
    at: int
    stored: int
    last: int


class Held:
    """The values in HELD as one process reads and writes them.

    `trust` is the current one, `past` that of earlier times. A value's owner is the workload whose token is the second
    in its subject.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        trust: Callable[[], Trust],
        past: PastTrust = current_only,
        names: Names,
        caches: Caches,
        clock: Clock = wall_clock,
    ) -> None:
        self._transport = transport
        self._keyed = KeyValue(transport)
        self._trust = trust
        self._past = past
        self._names = names
        self._caches = caches
        self._clock = clock

    async def newest(self, pattern: str, payload_type: str, *, within: float = 10.0) -> dict[str, HeldValue]:
        """Return what counts under each subject that matches `pattern`, by subject; subjects without are left out.

        Raises `BusUnavailable` if HELD cannot be read within `within` seconds, `StateUnavailable` where a key is unknown and
        the past is not known now.
        """
        found: dict[str, HeldValue] = {}
        last: dict[str, int] = {}
        try:
            async with asyncio.timeout(within), aclosing(self._transport.read(HELD, [pattern])) as batches:
                async for batch in batches:
                    for one in batch:
                        if one.arrival is None:
                            continue
                        last[one.subject] = one.arrival.sequence
                        known = found.get(one.subject)
                        value = await self._genuine(one.subject, one.payload, payload_type, one.arrival.stored)
                        if value is not None and (known is None or value.number > known.number):
                            found[one.subject] = value
        except TimeoutError as error:
            raise BusUnavailable(f"{HELD} was not read within {within:g} s") from error
        return {subject: replace(value, last=last[subject]) for subject, value in found.items()}

    async def write(
        self,
        subject: str,
        keys: Mapping[str, Value],
        payload_type: str,
        sealer: Sealer,
        *,
        own: SpiffeId,
        before: HeldValue | None = None,
        last: int = 0,
        extra: bytes = b"",
        within: float = 5.0,
    ) -> int | None:
        """Store the version that follows `before`, or the first; return its sequence, or `None` if another was stored.

        `last` is the last sequence of the subject where nothing genuine stands. Raises `SealError` for a value that is too
        large, `BusUnavailable` as `KeyValue.create` does.
        """
        payload = encode(
            {
                **keys,
                "v": 1,
                "own": own.value,
                "sub": subject,
                "n": before.number + 1 if before is not None else 1,
                "at": self._clock(),
                "ext": sha256(extra).digest(),
            },
            text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
        )
        raw = encode([*signed(payload, payload_type, sealer), extra])
        if len(payload) > PAYLOAD_BYTES or len(raw) > VALUE_BYTES:
            raise SealError(f"{subject}: too large to be held")
        return await self._keyed.replace(subject, raw, last=before.last if before is not None else last, within=within)

    async def _genuine(self, subject: str, raw: bytes, payload_type: str, stored: int) -> HeldValue | None:
        if len(raw) > VALUE_BYTES:
            return None
        try:
            array = decode(raw, step=0)
            if not isinstance(array, list) or len(array) != PARTS + 1:
                return None
            parts = [one for one in array if isinstance(one, bytes)]
            if len(parts) != PARTS + 1 or len(parts[0]) > PAYLOAD_BYTES:
                return None
            keys = RecordMap(decode(parts[0], text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
            own, place = SpiffeId.parse(keys.text("own")), keys.text("sub")
            number, at, extra = keys.uint("n"), keys.uint("at"), keys.octets("ext")
        except EnvelopeError:
            return None
        owner = subject.split(".")[_OWNER]
        if self._names.token(own) != owner or place != subject or number < 1 or sha256(parts[PARTS]).digest() != extra:
            return None
        # What was made long before it was stored would bring back a key that has been rotated away since.
        if not at - DEFAULT_LIMITS.clock_skew <= stored <= at + DEFAULT_LIMITS.stored_within:
            return None
        if not await self._signed_by(own, parts[:PARTS], payload_type, at):
            return None
        return HeldValue(
            subject=subject, own=own, keys=keys, extra=parts[PARTS], number=number, at=at, stored=stored, last=0
        )

    async def _signed_by(self, own: SpiffeId, parts: Sequence[bytes], payload_type: str, at: int) -> bool:
        if is_own(parts, payload_type, own=own, at=at, trust=self._trust(), caches=self._caches):
            return True
        return any(
            is_own(parts, payload_type, own=own, at=at, trust=past, caches=self._caches)
            for past in await self._past.at(at)
        )
