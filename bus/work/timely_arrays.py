"""Arrays about a hash, stored in STATE for all processes of an agent, signed and timely (SPEC.md section 7).

Counts of attempts are such arrays, and how far a durable consumer was acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sealbus.bus.ports import Transport
from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.signed_value import PARTS, is_own, signed
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS

WITHIN: Final = 5.0
"""Seconds for one read or write of STATE."""

_VERSION: Final = 1
BYTES: Final = 16_384
"""Longest stored array of a few fields: a token of a credential is most of it."""


class StoredArray(NamedTuple):
    """The value at the place of a hash: its `fields`, or `None` if it is no array of this agent, and its `sequence`."""

    fields: Sequence[object] | None
    sequence: int


class TimelyArrays:
    """The arrays `name` of one agent, each about one hash.

    An array stands at `state.<token>.<name>.<hex of the hash>`, and is of the type `application/vnd.sealbus.<name>.v1`. It
    has at most `most` elements, and what is stored has at most `size` bytes with its signature.
    """

    def __init__(self, name: str, site: Site, *, most: int = DEFAULT_LIMITS.text_items, size: int = BYTES) -> None:
        self._prefix = f"state.{site.token}.{name}."
        self._type = f"application/vnd.sealbus.{name}.v1"
        self._site = site
        self._most = most
        self._size = size
        self._keyed = KeyValue(site.transport)

    async def read(self, digest: bytes, transport: Transport | None = None) -> StoredArray | None:
        """Return the value at the place of `digest`, or `None` if there is none. Raises `BusUnavailable`.

        With `transport` the one of its cell alone.
        """
        keyed = self._keyed if transport is None else KeyValue(transport)
        value = await keyed.get(self._prefix + digest.hex(), within=WITHIN)
        if value is None:
            return None
        return StoredArray(self._parsed(digest, value.payload, value.stored), value.sequence)

    async def write(self, digest: bytes, fields: Sequence[int | str], last: int) -> int | None:
        """Replace the value with the sequence `last`; return the new sequence, or `None` if `last` is not current any more.

        Raises `BusUnavailable` or `IdentityUnavailable`; the value may be stored nevertheless.
        """
        payload = encode([_VERSION, digest, *fields, self._site.bus_clock()])
        value = encode([*signed(payload, self._type, self._site.identity.sealer())], text_bytes=self._size)
        return await self._keyed.replace(self._prefix + digest.hex(), value, last=last, within=WITHIN)

    def _parsed(self, digest: bytes, stored_bytes: bytes, stored: int) -> Sequence[object] | None:
        try:
            array = decode(stored_bytes, text_bytes=self._size, step=0)
            parts = [part for part in array if isinstance(part, bytes)] if isinstance(array, list) else []
            payload = decode(parts[0], items=self._most, step=0) if len(parts) == PARTS else None
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
