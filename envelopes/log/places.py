"""Places: the stream's message for each entry, in rows parallel to the entries (SPEC.md section 13, "Places").

Entries are hashes and do not show their place. A reader that has the message computes the entry from its place and compares.
A wrong place leads to another entry, so that places need no trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.entries import Entry, EntryKind

PLACE_BYTES: Final = 17
_KINDS: Final = {kind.value: kind for kind in EntryKind if kind is not EntryKind.LOST}
_MAX: Final = DEFAULT_LIMITS.max_integer


class Place(NamedTuple):
    """The place of an entry in the stream, as a row of `kind || u64(sequence) || u64(time)`."""

    kind: EntryKind
    sequence: int
    time: int


def place_of(entry: Entry) -> Place:
    """Return the place of `entry`."""
    return Place(entry.kind, entry.sequence, entry.time)


def encode_places(places: Sequence[Place]) -> bytes:
    """Encode `places` as rows."""
    return b"".join(
        bytes((place.kind,)) + place.sequence.to_bytes(8, "big") + place.time.to_bytes(8, "big") for place in places
    )


def parse_places(data: bytes, width: int) -> tuple[Place, ...]:
    """Parse `width` places; raise `LogError` (`bad_tile`) for any other bytes."""
    if len(data) != width * PLACE_BYTES:
        raise LogError(Code.BAD_TILE, "places: length")
    return tuple(_place(data[start : start + PLACE_BYTES]) for start in range(0, len(data), PLACE_BYTES))


def _place(row: bytes) -> Place:
    kind = _KINDS.get(row[0])
    sequence, time = int.from_bytes(row[1:9], "big"), int.from_bytes(row[9:], "big")
    if kind is None or sequence > _MAX or time > _MAX:
        raise LogError(Code.BAD_TILE, "places: row")
    return Place(kind, sequence, time)
