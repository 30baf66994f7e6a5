"""The second pass over an export, entry by entry: what opened does open, what was decided can be proved again, in order.

Whether an entry is in its place is told of each, also after one was wrong (SPEC.md section 13, "Entries").
"""

from __future__ import annotations

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence
from sealbus.envelopes.export.format import Frame, entry_of
from sealbus.envelopes.export.tally import NAME_BYTES, Span, Tally
from sealbus.envelopes.export.trust import TrustArchive
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import Entry, EntryKind, EntryOrder, gap_entry
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import VerifiedAudit, VerifiedDecided, accept_decided, accept_record
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import NOTARY_KINDS, Record
from sealbus.envelopes.trust.caches import Caches

__all__ = ["EntryReader", "OrderReader", "check_decision", "open_frame"]

_NO_ENTRY = bytes(32)
"""Stands in the tree for what is no entry, which then has another root."""

_ANY_DIGEST = bytes(32)


def open_frame(frame: Frame, root: Root, archive: TrustArchive, caches: Caches) -> VerifiedAudit:
    """Return the audit message of a frame, opened as of its entry; raise `EnvelopeError` if it does not open."""
    to = parse_header(parse_envelope(frame.data).header).to
    bundles = archive.at(frame.stored)
    return accept_record(frame.data, to, root.profile, time=frame.stored, bundles=bundles, caches=caches)


def check_decision(
    record: DecisionRecord, audit: VerifiedAudit, root: Root, archive: TrustArchive, caches: Caches
) -> VerifiedDecided:
    """Return the decided message, proved again; raise `EnvelopeError` if it cannot be (SPEC.md section 7, archive)."""
    return accept_decided(record, audit, root.profile, bundles=archive.at(record.place.time), caches=caches)


class EntryReader:
    """Reads entries in any order; `findings` and `tally` are what they came to. `span` is what is counted by row."""

    def __init__(self, root: Root, archive: TrustArchive, *, span: Span | None = None) -> None:
        self._root = root
        self._archive = archive
        self._span = span if span is not None else Span()
        self._caches = Caches()
        self.begin()

    def begin(self, only: frozenset[bytes] | None = None) -> None:
        """Begin anew with empty `findings`, `tally`, `names` and `opening`, and count the records named in `only` alone."""
        self._only = only
        self.findings: list[Finding] = []
        self.tally = Tally()
        self.names: dict[bytes, None] = {}
        """What names the records that were counted (`RepeatedRecords`)."""
        self.opening: list[tuple[int, bytes]] = []
        """Sequence and H(header) of messages that are said to prove nothing, and open all the same."""

    def read(self, frame: Frame) -> bytes:
        """Return the 32 bytes of the entry that `frame` gives, and note what is wrong with it."""
        try:
            entry = entry_of(frame).hash
        except (EnvelopeError, LogError) as error:
            self.findings.append(of_sequence(frame.sequence, error))
            return _NO_ENTRY
        self.tally.entries[frame.kind.name.lower()] += 1
        if frame.kind is EntryKind.UNVERIFIED:
            self._look_into(frame)
        if frame.kind is EntryKind.VERIFIED:
            try:
                audit = open_frame(frame, self._root, self._archive, self._caches)
            except EnvelopeError as error:
                self.findings.append(of_sequence(frame.sequence, error))
                return entry
            self._read_records(frame, audit)
        return entry

    def _look_into(self, frame: Frame) -> None:
        """Note a message of kind 0x00 that opens with the bundles that the notary had when it came."""
        try:
            header = parse_header(parse_envelope(frame.data).header)
            bundles = self._archive.current(frame.stored)
            accept_record(
                frame.data, header.to, self._root.profile, time=frame.stored, bundles=bundles, caches=self._caches
            )
        except EnvelopeError:
            return
        self.opening.append((frame.sequence, header.digest))

    def _read_records(self, frame: Frame, audit: VerifiedAudit) -> None:
        recorder, counted = audit.header.iss, self._span.holds(frame.stored)
        for leaf, record in audit.body.records.items():
            if isinstance(record, DecisionRecord):
                self._check_decision(frame, audit, record)
            elif record.kind in NOTARY_KINDS and recorder not in self._root.notaries:
                self._found(frame, FindingCode.NOT_THE_NOTARY, _by_another(record))
            name = leaf[:NAME_BYTES]
            if name not in self.names and (self._only is None or name in self._only):
                self.names[name] = None
                self.tally.take(record, recorder, counted=counted)

    def _check_decision(self, frame: Frame, audit: VerifiedAudit, record: DecisionRecord) -> None:
        try:
            decided = check_decision(record, audit, self._root, self._archive, self._caches)
        except EnvelopeError as error:
            self.findings.append(of_sequence(frame.sequence, error))
            return
        aud = decided.header.aud
        if aud is not None and aud != audit.header.iss:
            self._found(frame, FindingCode.WRONG_AUDIENCE, "a decision recorded by another than the message was for")

    def _found(self, frame: Frame, code: FindingCode, detail: str) -> None:
        self.findings.append(Finding("", frame.sequence, code, detail))


def _by_another(record: Record) -> str:
    return f"a {record.kind} record by another"


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
