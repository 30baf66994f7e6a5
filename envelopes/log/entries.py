"""Entries of the audit log: 32 bytes for each message of the stream, each gap, and each event of the stream.

An entry is a hash of a place, a time and a message (SPEC.md section 13, "Entries"). To verify it, compute it again from the
stream or from an export. Entries are in the order of the stream, every sequence once, from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.merkle import leaf_hash

ENTRY_BYTES: Final = 32
_PREFIX: Final = b"sealbus.entry.v1"
_MAX: Final = DEFAULT_LIMITS.max_integer


class EntryKind(IntEnum):
    """The kind of an entry; the number is the byte that is hashed."""

    UNVERIFIED = 0x00
    """A message that does not open under the archive profile. It proves nothing, and never changes."""
    VERIFIED = 0x01
    GAP = 0x02
    """Sequences that the stream does not hold."""
    CREATION = 0x03
    """The stream's creation: the first entry of every log."""
    PREVIOUS = 0x04
    """The last checkpoint of the previous period's log: the second entry, if there is such a log."""
    RESTORED = 0x05
    """The stream was restored from a backup (`restoration.py`). The sequence after this entry's comes next, perhaps again."""
    LOST = 0x06
    """In exports only: stands for a message that the restored stream no longer has. No entry has this kind."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. Raises `LogError` (`bad_entry`) for values that no entry can have.

    `sequence` is that of the message, the first of a gap, the last restored one, or 0 for `CREATION` and `PREVIOUS`. `time`,
    in microseconds, is the time at which the broker stored the message. A gap has the time of the message after it, a
    restoration the time of its note, and the first two entries have the creation time of the stream. `count` is the number of
    sequences that the entry covers.
    """

    kind: EntryKind
    sequence: int
    time: int
    digest: bytes
    count: int = 1

    def __post_init__(self) -> None:
        if type(self.digest) is not bytes or len(self.digest) != 32:
            raise LogError(Code.BAD_ENTRY, "digest")
        if not 0 <= self.time <= _MAX:
            raise LogError(Code.BAD_ENTRY, "time")
        begins = self.kind in (EntryKind.CREATION, EntryKind.PREVIOUS)
        restored = self.kind is EntryKind.RESTORED
        if not (self.sequence == 0 if begins else (0 if restored else 1) <= self.sequence <= _MAX):
            raise LogError(Code.BAD_ENTRY, "sequence")
        if self.kind is EntryKind.LOST:
            raise LogError(Code.BAD_ENTRY, "kind")
        if self.kind is EntryKind.GAP:
            fits = 1 <= self.count <= _MAX and self.digest == _count_digest(self.count)
        else:
            fits = self.count == (0 if begins or restored else 1)
        if not fits:
            raise LogError(Code.BAD_ENTRY, "count")

    @property
    def hash(self) -> bytes:
        """The 32 bytes that the log holds."""
        place = self.sequence.to_bytes(8, "big") + self.time.to_bytes(8, "big")
        return sha256(_PREFIX + bytes((self.kind,)) + place + self.digest).digest()

    @property
    def leaf(self) -> bytes:
        """The hash of the entry as a leaf of the tree."""
        return leaf_hash(self.hash)


def verified_entry(sequence: int, *, time: int, header_digest: bytes) -> Entry:
    """Return the entry of a message that opened under the archive profile; `header_digest` is `H(header)`."""
    return Entry(EntryKind.VERIFIED, sequence, time, header_digest)


def unverified_entry(sequence: int, *, time: int, payload: bytes) -> Entry:
    """Return the entry of a message that did not open. It covers the whole payload."""
    return Entry(EntryKind.UNVERIFIED, sequence, time, sha256(payload).digest())


def gap_entry(first: int, count: int, *, time: int) -> Entry:
    """Return the entry of `count` missing sequences from `first` on; `time` is the stored time of the next message."""
    if not 1 <= count <= _MAX:
        raise LogError(Code.BAD_ENTRY, "count")
    return Entry(EntryKind.GAP, first, time, _count_digest(count), count)


def creation_entry(stream: str, *, created: int) -> Entry:
    """Return the first entry of the log of `stream`, which was created at `created` by the broker's clock."""
    return Entry(EntryKind.CREATION, 0, created, sha256(stream.encode()).digest(), 0)


def previous_entry(note: bytes, *, created: int) -> Entry:
    """Return the second entry of a log whose stream follows another stream: `note` is that log's last checkpoint."""
    return Entry(EntryKind.PREVIOUS, 0, created, sha256(note).digest(), 0)


def _count_digest(count: int) -> bytes:
    return sha256(count.to_bytes(8, "big")).digest()


class EntryOrder:
    """Checks the order of a log's entries one by one, from the first or from any place where a checkpoint may be.

    The digests of entries are not checked. Nor is the order of stored times: a broker whose clock is set back, or whose
    leader changes, stores earlier times after later times.
    """

    __slots__ = ("_gap", "_last", "size")

    def __init__(self, size: int = 0, last: int = 0) -> None:
        """Start after `size` entries; the last covered sequence is `last`, 0 for none."""
        if size < 0 or last < 0 or (last > 0 and size == 0):
            raise LogError(Code.BAD_ENTRY, "no log can have this size and sequence")
        self.size = size
        self._last = last
        self._gap: Entry | None = None

    @property
    def next(self) -> int:
        """The sequence that comes next."""
        return self._last + 1

    @property
    def settled(self) -> bool:
        """Whether a checkpoint may be here: not before the first entry, and not between a gap and the next entry."""
        return self.size > 0 and self._gap is None

    def take_entry(self, entry: Entry) -> None:
        """Take the next entry; raise `LogError` (`bad_entry`) if `entry` may not come next."""
        kind = entry.kind
        if (kind is EntryKind.CREATION) != (self.size == 0):
            raise LogError(Code.BAD_ENTRY, "a log begins with its stream's creation, and nothing else does")
        if kind is EntryKind.PREVIOUS and self.size != 1:
            raise LogError(Code.BAD_ENTRY, "the previous log's checkpoint comes second")
        if kind is EntryKind.GAP and self._gap is not None:
            raise LogError(Code.BAD_ENTRY, "two gaps in a row")
        if kind is EntryKind.RESTORED:
            self._restore(entry.sequence)
            return
        if entry.sequence and entry.sequence != self.next:
            raise LogError(Code.BAD_ENTRY, "another sequence comes next")
        if self._gap is not None and entry.time != self._gap.time:
            raise LogError(Code.BAD_ENTRY, "a gap has the stored time of the entry after it")
        self._gap = entry if kind is EntryKind.GAP else None
        self._last += entry.count
        self.size += 1

    def take_lost(self, sequence: int) -> None:
        """Take the next entry, of a message of which only the sequence is known; raise as `take_entry` does."""
        time = self._gap.time if self._gap is not None else 0
        self.take_entry(Entry(EntryKind.UNVERIFIED, sequence, time, bytes(ENTRY_BYTES)))

    def _restore(self, last: int) -> None:
        if self._gap is not None:
            raise LogError(Code.BAD_ENTRY, "a restoration between a gap and the entry after it")
        if last > self._last:
            raise LogError(Code.BAD_ENTRY, "a stream that was restored beyond the logged entries")
        self._last = last
        self.size += 1
