"""In which order entries may stand: every sequence of the stream once, from 1 on (SPEC.md section 13, "Entries")."""

from __future__ import annotations

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import Entry, EntryKind

__all__ = ["EntryOrder"]


class EntryOrder:
    """Takes the entries of one log one by one, from its first or from any place where a checkpoint may lie.

    Nothing is said about whether an entry is true, nor about stored times: a broker whose clock is set back, or whose
    leader changes, stores earlier times after later ones.
    """

    __slots__ = ("_gap", "_last", "size")

    def __init__(self, size: int = 0, last: int = 0) -> None:
        """Begin after `size` entries, of which the last was for sequence `last` (0: for none)."""
        if size < 0 or last < 0 or (last > 0 and size == 0):
            raise LogError(Code.BAD_ENTRY, "no log has come so far")
        self.size = size
        self._last = last
        self._gap: Entry | None = None

    @property
    def next(self) -> int:
        """The sequence that comes next."""
        return self._last + 1

    @property
    def settled(self) -> bool:
        """Whether a checkpoint may lie here: not before the first entry, and not between a gap and what ends it."""
        return self.size > 0 and self._gap is None

    def take(self, entry: Entry) -> None:
        """Raise `LogError` (`bad_entry`) unless `entry` may come next; it has come then."""
        kind = entry.kind
        if (kind is EntryKind.CREATION) != (self.size == 0):
            raise LogError(Code.BAD_ENTRY, "a log begins with its stream's creation, and nothing else does")
        if kind is EntryKind.PREVIOUS and self.size != 1:
            raise LogError(Code.BAD_ENTRY, "the previous log's checkpoint comes second")
        if kind is EntryKind.GAP and self._gap is not None:
            raise LogError(Code.BAD_ENTRY, "two gaps in a row")
        if entry.sequence and entry.sequence != self.next:
            raise LogError(Code.BAD_ENTRY, "another sequence comes next")
        if self._gap is not None and entry.time != self._gap.time:
            raise LogError(Code.BAD_ENTRY, "a gap has the stored time of what comes after it")
        self._gap = entry if kind is EntryKind.GAP else None
        self._last += entry.count
        self.size += 1
