"""Guards values that may be used only once, such as proofs of possession, over all processes of an identity and restarts.

Uses are kept in a fixed number of values of STATE, `state.<own>.<name>.<slot>`. Each holds the uses whose digests fall into
its slot and whose time is not over, so the size depends only on the number of uses within that time. A value is written by
compare-and-set: if two processes see the same use at the same moment, one of them reads what the other wrote.

::

    [payload, signature, key, token]           of `signed_value`; the payload is [1, name, slot, at, uses], where a use is
                                               its digest and the time until which it counts (8 bytes, big-endian)

Other agents can have the broker store bytes in such a place (`key_value`), which must not make it forget a use. Values are
signed, and count only if they were stored when they were made. Any other value may have replaced earlier uses: a digest then
counts as unused only if it was made after that value was stored.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from sealbus.bus.ports import StoredValue
from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS

SLOTS: Final = 4_096
"""Values in all. At 1,000 uses a second that count for two minutes each, a value holds 30 uses."""
MOST: Final = 1_024
"""Uses in one value: 24 KiB."""
DIGEST_BYTES: Final = 16

_VERSION: Final = 1
_TYPE: Final = "application/vnd.sealbus.uses.v1"
"""The type of the signature."""
_TIME_BYTES: Final = 8
_BYTES: Final = 32_768
"""Most bytes of one part of a value."""
_TRIES: Final = 8
"""Tries to write a value while other processes are quicker."""
_PAUSE_SECONDS: Final = 0.02
"""Before a value is read again: a replica may be behind."""


@dataclass(slots=True)
class _Slot:
    """A value as this process knows it: its sequence (0 if there is none), and until when each use in it counts."""

    sequence: int = 0
    uses: dict[bytes, int] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ReplayGuard:
    """The uses under one `name`, a token of a subject, of the identity of `site`."""

    def __init__(self, name: str, site: Site) -> None:
        self._name: Final = name
        self._site: Final = site
        self._prefix: Final = f"state.{site.token}.{name}."
        self._keyed: Final = KeyValue(site.transport)
        self._slots: Final[dict[int, _Slot]] = {}

    async def use(self, digest: bytes, *, made: int, until: int) -> bool:
        """Remember the use of `digest`, 16 bytes of a hash, until `until`; return whether it is the first use.

        `made` is a time before which it cannot have been used. Both are microseconds since the Unix epoch.

        Raises `StateUnavailable`, `BusUnavailable` or `IdentityUnavailable` if earlier uses are not known, or this use could
        not be stored. It may have been stored nevertheless: then the next use is not the first.
        """
        if len(digest) != DIGEST_BYTES:
            raise ValueError("a digest has 16 bytes")
        number = int.from_bytes(digest[:2]) % SLOTS
        slot = self._slots.setdefault(number, _Slot())
        async with slot.lock:
            for attempt in range(_TRIES):
                if digest in slot.uses:
                    return False
                now = self._site.bus_clock()
                uses = {known: end for known, end in slot.uses.items() if end > now} | {digest: until}
                if len(uses) > MOST:
                    raise StateUnavailable("too many uses at a time")
                sequence = await self._write(number, slot.sequence, uses, now)
                if sequence is not None:
                    slot.sequence, slot.uses = sequence, uses
                    return True
                if attempt:
                    await asyncio.sleep(_PAUSE_SECONDS)
                await self._read(number, slot, made)
        raise StateUnavailable("other processes write in its place")

    async def used(self, digest: bytes, *, made: int) -> bool:
        """Return whether a use of `digest` is remembered, without remembering one. `made` is as in `use`.

        Raises `StateUnavailable` or `BusUnavailable` if that is not known.
        """
        number = int.from_bytes(digest[:2]) % SLOTS
        slot = self._slots.setdefault(number, _Slot())
        async with slot.lock:
            if digest not in slot.uses:
                await self._read(number, slot, made)
            return digest in slot.uses

    async def _write(self, slot: int, sequence: int, uses: dict[bytes, int], now: int) -> int | None:
        """Replace the value of `slot` with `sequence` by `uses`; return its new sequence, or `None` if it has changed.

        Raises `BusUnavailable` or `IdentityUnavailable`.
        """
        listed = b"".join(digest + until.to_bytes(_TIME_BYTES) for digest, until in uses.items())
        payload = encode([_VERSION, self._name, slot, now, listed], text_bytes=_BYTES)
        value = encode([*signed(payload, _TYPE, self._site.identity.sealer())], text_bytes=_BYTES)
        return await self._keyed.replace(f"{self._prefix}{slot}", value, last=sequence)

    async def _read(self, number: int, slot: _Slot, made: int) -> None:
        """Read what other processes wrote. Raises `StateUnavailable` if an earlier use may be missing."""
        value = await self._keyed.get(f"{self._prefix}{number}")
        if value is None:
            # The stream keeps a value for longer than any use counts.
            slot.sequence, slot.uses = 0, {}
            return
        uses = self._parsed(number, value)
        if uses is None:
            if made <= value.stored + DEFAULT_LIMITS.clock_skew:
                raise StateUnavailable("bytes of others have replaced uses")
            uses = {}
        slot.sequence, slot.uses = value.sequence, uses

    def _parsed(self, number: int, value: StoredValue) -> dict[bytes, int] | None:
        """Return the uses in a value that this identity signed for this place when it was stored; `None` for other values."""
        try:
            array = decode(value.payload, text_bytes=_BYTES, step=0)
            parts = [part for part in array if isinstance(part, bytes)] if isinstance(array, list) else []
            payload = decode(parts[0], text_bytes=_BYTES, step=0) if len(parts) == PARTS else None
        except EnvelopeError:
            return None
        match payload:
            case [int(version), str(name), int(slot), int(at), bytes(listed)]:
                # A bool is no integer here, and True is 1 to Python.
                numbers = not isinstance(version, bool) and not isinstance(slot, bool)
                ours = numbers and (version, name, slot) == (_VERSION, self._name, number)
            case _:
                return None
        limits, size = DEFAULT_LIMITS, DIGEST_BYTES + _TIME_BYTES
        if len(listed) % size:
            return None
        if not ours or not at - limits.clock_skew <= value.stored <= at + limits.stored_within:
            return None
        if not is_own(parts, _TYPE, own=self._site.own, at=at, trust=self._site.trust(), caches=self._site.caches):
            return None
        return {
            listed[start : start + DIGEST_BYTES]: int.from_bytes(listed[start + DIGEST_BYTES : start + size])
            for start in range(0, len(listed), size)
        }
