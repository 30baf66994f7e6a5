"""The right to write the log: a lease in the stream STATE, acquired by compare-and-set, with a number that only grows.

::

    state.<own token>.notary-<first 16 bytes of H(origin)>       [payload, signature, key, token]   (signed_value.py)

The payload names the holder, its number, and the size and root of the checkpoint that it is about to sign. A successor signs
no checkpoint before its own tree has reached that size, and none at all if its tree has another root there. So two notaries
never sign two histories, even if a process is paused or a message is lost between a comparison and a write.

A holder that does not renew loses the lease after a time measured by its successor's own clock. If the successor uses the
same store, it need not wait: the store is locked, so the former holder is gone.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealbus.bus.ports import Clock, Identity
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError, StateUnavailable
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_uint
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches

LEASE_TYPE: Final = "application/vnd.sealbus.lease.v1"
"""The type of the signature; signatures of other types do not count."""

_ID_BYTES: Final = 16
_BYTES: Final = 16_384
_POLL: Final = 0.25
"""Seconds between two reads of a lease that another process holds."""


class LeaseLost(StateUnavailable):
    """Another notary has, or may have, acquired the lease: nothing more may be signed under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """The stored value: the holder's `number`, process and store, the checkpoint that it will sign, and its own time `at`."""

    number: int
    by: bytes
    place: bytes
    size: int
    root: bytes
    at: int

    def __post_init__(self) -> None:
        check_uint("number", self.number, least=1)
        check_uint("size", self.size)
        check_uint("at", self.at)
        check_bytes("by", self.by, least=_ID_BYTES, most=_ID_BYTES)
        check_bytes("place", self.place, least=_ID_BYTES, most=_ID_BYTES)
        check_bytes("root", self.root, least=DIGEST_BYTES, most=DIGEST_BYTES)

    def payload(self) -> bytes:
        """Return the encoded map."""
        return encode(
            {
                "v": 1,
                "number": self.number,
                "by": self.by,
                "place": self.place,
                "size": self.size,
                "root": self.root,
                "at": self.at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Leased:
        """Return the value in `payload`; raise `EnvelopeError` (`malformed`, step 0) for anything else."""
        keys = RecordMap(decode(payload, step=0))
        try:
            leased = cls(
                number=keys.uint("number"),
                by=keys.octets("by"),
                place=keys.octets("place"),
                size=keys.uint("size"),
                root=keys.octets("root"),
                at=keys.uint("at"),
            )
        except SealError as error:
            raise EnvelopeError(Code.MALFORMED, 0, "lease") from error
        keys.end()
        return leased


def lease_subject(token: str, origin: str) -> str:
    """Return the subject of the lease of the log `origin`, whose notary's SPIFFE ID has `token`."""
    return f"state.{token}.notary-{sha256(origin.encode()).hexdigest()[:32]}"


class Lease:
    """The lease as one process sees it. Every wait for the broker is bounded; failures raise `BusUnavailable`."""

    def __init__(
        self,
        keyed: KeyValue,
        subject: str,
        *,
        identity: Identity,
        seconds: float,
        clock: Clock,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up the lease; `seconds` is how long to wait for a silent holder, during which `waiting` is called."""
        self._keyed = keyed
        self._subject = subject
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._waiting = waiting
        self._by = secrets.token_bytes(_ID_BYTES)
        self._caches = Caches()
        self._last = 0
        self._place = b""
        self._announced = (0, sha256().digest())
        self._renewed = 0.0
        self.number = 0
        """The number under which this process holds the lease; 0 while it does not."""

    async def acquire(self, place: bytes, *, above: int) -> Leased | None:
        """Acquire the lease, and return the value of its last holder; `None` if there was none.

        `place` names our store, which is locked; our number will be over `above`, the highest that the store knows.
        """
        self.number, self._place = 0, place
        seen, since = -1, 0.0
        while True:
            now = asyncio.get_running_loop().time()
            value = await self._keyed.get(self._subject)
            sequence, stored = (value.sequence, value.payload) if value is not None else (0, b"")
            leased = self._read(stored)
            if sequence != seen:
                seen, since = sequence, now
            # An unreadable value was planted: the previous holder may still believe that it holds the lease.
            free = value is None or (leased is not None and leased.place == place) or now - since >= self._seconds
            if free and await self._take(max(above, leased.number if leased is not None else 0) + 1, leased, sequence):
                return leased
            self._waiting()
            await asyncio.sleep(min(_POLL, self._seconds / 4))

    async def renew(self, size: int, root: bytes) -> None:
        """Announce the checkpoint of `size` and `root` before it is signed, and again afterwards. Raises `LeaseLost`."""
        if not self.number:
            raise LeaseLost("the lease is not held")
        started = asyncio.get_running_loop().time()
        payload = self._signed(self.number, size, root)
        written = await self._keyed.replace(self._subject, payload, last=self._last)
        if written is None:
            self.number = 0
            raise LeaseLost("another notary has acquired the lease")
        self._last, self._renewed, self._announced = written, started, (size, root)

    async def keep(self) -> None:
        """Renew with the last announcement. Raises `LeaseLost`."""
        await self.renew(*self._announced)

    @property
    def due(self) -> float:
        """The time at which the lease must be renewed, by the event loop's clock."""
        return self._renewed + self._seconds / 3

    async def _take(self, number: int, before: Leased | None, last: int) -> bool:
        announced = (before.size, before.root) if before is not None else (0, sha256().digest())
        started = asyncio.get_running_loop().time()
        payload = self._signed(number, *announced)
        written = (
            await self._keyed.replace(self._subject, payload, last=last)
            if last
            else await self._keyed.create(self._subject, payload)
        )
        if written is None:
            return False
        self.number, self._last, self._renewed, self._announced = number, written, started, announced
        return True

    def _signed(self, number: int, size: int, root: bytes) -> bytes:
        leased = Leased(number=number, by=self._by, place=self._place, size=size, root=root, at=self._clock())
        return encode([*signed(leased.payload(), LEASE_TYPE, self._identity.sealer())], text_bytes=_BYTES)

    def _read(self, stored: bytes) -> Leased | None:
        """Return a value written by this identity, by any of its processes; `None` for anything else."""
        try:
            array = decode(stored, text_bytes=_BYTES, step=0) if 0 < len(stored) <= _BYTES else None
            parts = [part for part in array if isinstance(part, bytes)] if isinstance(array, list) else []
            if len(parts) != PARTS:
                return None
            leased = Leased.parse(parts[0])
        except EnvelopeError:
            return None
        trust = Trust(bundles=self._identity.bundles())
        own = self._identity.spiffe_id
        if not is_own(parts, LEASE_TYPE, own=own, at=leased.at, trust=trust, caches=self._caches):
            return None
        return leased
