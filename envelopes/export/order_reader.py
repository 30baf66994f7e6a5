"""The order of an export's entries, told entry by entry even after one was wrong (SPEC.md section 13, "Entries")."""

from __future__ import annotations

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.export.finding import Finding, of_file, of_sequence
from sealbus.envelopes.export.frames import Frame
from sealbus.envelopes.log.entries import Entry, EntryKind, gap_entry
from sealbus.envelopes.log.entry_order import EntryOrder

__all__ = ["OrderReader"]

_ANY_DIGEST = bytes(32)


class OrderReader:
    """Takes all frames of a log in order; `findings` are the places where another should stand."""

    def __init__(self) -> None:
        self._order: EntryOrder | None = EntryOrder()
        self.findings: list[Finding] = []

    def take(self, frame: Frame, index: int) -> None:
        """Take entry number `index`. What is no entry at all is for the second pass; order begins anew after it."""
        try:
            entry = _place(frame)
        except LogError:
            self._order = None
            return
        if self._order is None:
            # What came before is lost: nothing can be said of this one but that order begins with it.
            self._order = EntryOrder(index, max(entry.sequence - 1, 0)) if index else EntryOrder()
        try:
            self._order.take(entry)
        except LogError as error:
            self.findings.append(of_sequence(frame.sequence, error))
            self._order = EntryOrder(index + 1, entry.sequence + entry.count - 1) if entry.sequence else None

    def lose(self) -> None:
        """Begin anew with the next entry: some before it are missing, and the second pass says which."""
        self._order = None

    def end(self) -> None:
        """Say whether a checkpoint may lie after the last one."""
        if self._order is not None and not self._order.settled:
            self.findings.append(of_file("checkpoint", Code.BAD_ENTRY, "lies where no checkpoint may"))


def _place(frame: Frame) -> Entry:
    """Return an entry of this place; order does not depend on its digest, but a gap's depends on its count."""
    match frame.kind:
        case EntryKind.GAP:
            return gap_entry(frame.sequence, int.from_bytes(frame.data[:8], "big"), time=frame.stored)
        case EntryKind.CREATION | EntryKind.PREVIOUS:
            return Entry(frame.kind, frame.sequence, frame.stored, _ANY_DIGEST, 0)
        case _:
            return Entry(frame.kind, frame.sequence, frame.stored, _ANY_DIGEST)
