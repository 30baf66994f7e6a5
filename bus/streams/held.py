"""Values that outlive a day, in the stream HELD: every version of each, of which the newest genuine one counts.

::

    [payload, signature, key, token, extra]    an encoded array; `payload` is signed, and names `extra` by its hash

Others can make the broker store their bytes under anybody's subject. So nothing here is erased by what comes after it, and
a value says whose it is, where it stands, and which version it is: bytes of others count for nothing, nor does an older
version that somebody stored again. A write names the last sequence of its subject, so that of two processes that write at
the same moment one fails; of two versions with one number, which only a broken broker could have let in, the first counts.
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
from sealbus.envelopes.errors import BusUnavailable, EnvelopeError, SealError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import RecordMap
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "PAYLOAD_BYTES",
    "PAYLOAD_ITEMS",
    "VALUE_BYTES",
    "VERSIONS",
    "Held",
    "HeldValue",
    "PastTrust",
    "current_only",
]

PAYLOAD_BYTES: Final = 524_288
"""Most bytes of a payload: a key book's; others are smaller."""
PAYLOAD_ITEMS: Final = 2_048
"""Most items of an array in a payload, which bounds what the codec allocates for one that is made up (16 MB)."""
VALUE_BYTES: Final = 917_504
"""Most bytes of a stored value: less than a NATS message holds."""
VERSIONS: Final = 4_096
"""Most messages that are read under one subject, genuine or not: five an hour for 32 days."""

_OWNER: Final = 1
"""The place of the owner's token in a subject."""
_AT_ONCE: Final = 64
"""Messages after which others get their turn: each may cost two verifications."""


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
    had it (for what was written here: when it was sent), `last` the sequence of the last message of its subject, genuine or
    not, which a write names.
    """

    subject: str
    own: SpiffeId
    keys: RecordMap = field(repr=False)
    extra: bytes = field(repr=False)
    number: int
    at: int
    stored: int
    last: int


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A value as it claims to be: everything is checked but who signed it."""

    value: HeldValue
    parts: tuple[bytes, ...]


@dataclass(slots=True)
class _Subject:
    """What was read under one subject: how many messages, the last one's sequence, and what counts."""

    messages: int = 0
    last: int = 0
    value: HeldValue | None = None


class Held:
    """The values in HELD as one process reads and writes them.

    `trust` is the current one, `past` that of earlier times. A value's owner is the workload whose token is the second
    in its subject. `clock` has to agree with the broker's: what is stored over a minute after it was made never counts.
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

    async def newest(
        self, pattern: str, payload_type: str, *, since: int = 0, within: float = 10.0, flooded: bool = True
    ) -> dict[str, HeldValue]:
        """Return what counts under each subject that matches `pattern`, by subject; subjects without are left out.

        With `since` (microseconds) only versions stored from then on are looked at. Raises `BusUnavailable` if HELD cannot be
        read within `within` seconds, `ConfigurationError` if there is no such stream, and `StateUnavailable` where a key is
        unknown and the past is not known now, or where a subject has over `VERSIONS` messages. Without `flooded` such a
        subject is left out, which is only for who lists what several owners hold, and misses nothing of the others.
        """
        found = await self._read(pattern, payload_type, since, within, flooded=flooded)
        return {subject: replace(one.value, last=one.last) for subject, one in found.items() if one.value is not None}

    async def standing(
        self, subject: str, payload_type: str, *, since: int = 0, within: float = 10.0
    ) -> tuple[HeldValue | None, int]:
        """Return what counts under `subject`, and the last sequence there, 0 if nothing was stored there since `since`.

        With both a write can follow bytes of others where nothing that counts stands. Raises as `newest` does.
        """
        one = (await self._read(subject, payload_type, since, within)).get(subject, _Subject())
        return (replace(one.value, last=one.last) if one.value is not None else None), one.last

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
    ) -> HeldValue | None:
        """Store the version that follows `before`, or the first; return it, or `None` if another was stored.

        `last` is the last sequence of the subject where nothing genuine stands (`standing`). Raises `SealError` for what no
        reader would take: too large a value, another's subject or sealer, keys beyond the codec's bounds; `BusUnavailable` as
        `KeyValue.create` does.
        """
        if before is not None and before.subject != subject:
            raise SealError(f"{subject}: the version before it is another's")
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
        # A version that nobody can read would stand in the way of the next one.
        claimed = self._claimed(subject, raw, self._clock())
        if sealer.iss != own or claimed is None:
            raise SealError(f"{subject}: not what its owner can hold there")
        follows = before.last if before is not None else last
        sequence = await self._keyed.replace(subject, raw, last=follows, within=within)
        return replace(claimed.value, last=sequence) if sequence is not None else None

    async def _read(
        self, pattern: str, payload_type: str, since: int, within: float, *, flooded: bool = True
    ) -> dict[str, _Subject]:
        found: dict[str, _Subject] = {}
        looked = 0
        try:
            async with (
                asyncio.timeout(within),
                aclosing(self._transport.values(HELD, pattern, since=since)) as batches,
            ):
                async for batch in batches:
                    for subject, stored in batch:
                        # Whoever runs the broker may deliver more than was asked for.
                        if not matches(pattern, subject):
                            continue
                        one = found.setdefault(subject, _Subject())
                        one.messages, one.last = one.messages + 1, stored.sequence
                        looked += 1
                        if looked % _AT_ONCE == 0:
                            await asyncio.sleep(0)
                        if one.messages > VERSIONS:
                            if flooded:
                                raise StateUnavailable(f"{subject}: over {VERSIONS} versions")
                            one.value = None
                            continue
                        claimed = self._claimed(subject, stored.payload, stored.stored)
                        if (
                            claimed is not None
                            and (one.value is None or claimed.value.number > one.value.number)
                            and await self._is_genuine(claimed, payload_type)
                        ):
                            one.value = claimed.value
        except TimeoutError as error:
            raise BusUnavailable(f"{HELD} was not read within {within:g} s") from error
        return found

    def _claimed(self, subject: str, raw: bytes, stored: int) -> _Claimed | None:
        """Return what `raw` claims to be, or `None` for what cannot be a value of `subject` that was stored then."""
        if len(raw) > VALUE_BYTES:
            return None
        try:
            array = decode(raw, items=PARTS + 1, step=0)
            parts = tuple(one for one in array if isinstance(one, bytes)) if isinstance(array, list) else ()
            if len(parts) != PARTS + 1:
                return None
            if len(parts[0]) > PAYLOAD_BYTES:
                return None
            keys = RecordMap(decode(parts[0], items=PAYLOAD_ITEMS, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, step=0))
            own, place = SpiffeId.parse(keys.text("own")), keys.text("sub")
            number, at, extra = keys.uint("n"), keys.uint("at"), keys.octets("ext")
        except EnvelopeError:
            return None
        tokens = subject.split(".")
        if len(tokens) <= _OWNER or self._names.token(own) != tokens[_OWNER] or place != subject or number < 1:
            return None
        if sha256(parts[PARTS]).digest() != extra:
            return None
        # What was made long before it was stored would bring back a key that has been rotated away since.
        if not at - DEFAULT_LIMITS.clock_skew <= stored <= at + DEFAULT_LIMITS.stored_within:
            return None
        value = HeldValue(
            subject=subject, own=own, keys=keys, extra=parts[PARTS], number=number, at=at, stored=stored, last=0
        )
        return _Claimed(value, parts[:PARTS])

    async def _is_genuine(self, claimed: _Claimed, payload_type: str) -> bool:
        own, at = claimed.value.own, claimed.value.at
        if is_own(claimed.parts, payload_type, own=own, at=at, trust=self._trust(), caches=self._caches):
            return True
        return any(
            is_own(claimed.parts, payload_type, own=own, at=at, trust=past, caches=self._caches)
            for past in await self._past.at(at)
        )
