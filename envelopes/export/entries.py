"""The second pass over an export: opens each message, verifies decided messages again, and checks the entries' order.

The place of every entry is checked, even after a wrong entry (SPEC.md section 13, "Entries").
"""

from __future__ import annotations

from dataclasses import dataclass

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.approvals import ApprovalFact, approval_facts_of
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence
from sealbus.envelopes.export.format import Frame, entry_of
from sealbus.envelopes.export.standing import GrantFact, standing_facts_of
from sealbus.envelopes.export.tally import NAME_BYTES, Span, Tally
from sealbus.envelopes.export.trust import TrustArchive
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.entries import ENTRY_BYTES, Entry, EntryKind, EntryOrder, gap_entry
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.log.restoration import Restoration, open_restoration, parse_restoration
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import VerifiedAudit, VerifiedDecided, accept_decided, accept_record
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import NOTARY_KINDS
from sealbus.envelopes.trust.caches import Caches

_NO_ENTRY = bytes(32)
"""Stands in the tree for a frame without an entry, so that the root differs."""

_ANY_DIGEST = bytes(32)
_RANGES = 100
"""Most ranges of lost sequences that are listed. All lost messages are counted."""


def open_frame(frame: Frame, root: Root, archive: TrustArchive, caches: Caches) -> VerifiedAudit:
    """Return the audit message in a frame, accepted as of its entry; raise `EnvelopeError` if it does not open."""
    to = parse_header(parse_envelope(frame.data).header).to
    bundles = archive.at(frame.stored)
    return accept_record(frame.data, to, root.profile, time=frame.stored, bundles=bundles, caches=caches)


def check_decision(
    record: DecisionRecord, audit: VerifiedAudit, root: Root, archive: TrustArchive, caches: Caches
) -> VerifiedDecided:
    """Verify a decided message again and return it; raise `EnvelopeError` if that fails (SPEC.md section 7, archive)."""
    return accept_decided(record, audit, root.profile, bundles=archive.at(record.place.time), caches=caches)


class EntryReader:
    """Reads entries in any order; `findings`, `tally`, `approvals` and `grants` are the results.

    Decisions and outcomes in `span` are counted by row.
    """

    def __init__(self, root: Root, archive: TrustArchive, *, span: Span | None = None) -> None:
        self._root = root
        self._archive = archive
        self._span = span if span is not None else Span()
        self._caches = Caches()
        self.begin()

    def begin(self, only: frozenset[bytes] | None = None) -> None:
        """Start over without results. If `only` is not None, count only the records that it names."""
        self._only = only
        self.findings: list[Finding] = []
        self.tally = Tally()
        self.names: dict[bytes, None] = {}
        """The names of the counted records (`RepeatedRecords`)."""
        self.opening: list[tuple[int, bytes]] = []
        """Sequence and H(header) of messages that open although the log says that they do not."""
        self.approvals: list[ApprovalFact] = []
        """The facts about approvals in verified decisions, in the order of the log."""
        self.grants: list[GrantFact] = []
        """The facts about standing grants in verified decisions, in the order of the log."""

    def read(self, frame: Frame) -> bytes:
        """Return the 32 bytes of the entry that follows from `frame`, and add its findings."""
        if frame.kind is EntryKind.LOST:
            return self._lost(frame)
        try:
            entry = entry_of(frame).hash
            if frame.kind is EntryKind.RESTORED:
                open_restoration(frame.data, origin=self._root.origin, verifiers=self._root.keys)
        except (EnvelopeError, LogError) as error:
            self.findings.append(of_sequence(frame.sequence, error))
            return _NO_ENTRY
        self.tally.entries[frame.kind.name.lower()] += 1
        if frame.kind is EntryKind.UNVERIFIED:
            self._check_unverified(frame)
        if frame.kind is EntryKind.VERIFIED:
            try:
                audit = open_frame(frame, self._root, self._archive, self._caches)
            except EnvelopeError as error:
                self.findings.append(of_sequence(frame.sequence, error))
                return entry
            self._read_records(frame, audit)
        return entry

    def _lost(self, frame: Frame) -> bytes:
        """Return the entry that replaces its message. `OrderReader` checks whether the message may be lost."""
        if frame.stored or len(frame.data) != ENTRY_BYTES:
            self._add_finding(frame, Code.BAD_ENTRY, "a lost message's frame has no time, and holds an entry")
            return _NO_ENTRY
        self.tally.entries["lost"] += 1
        return frame.data

    def _check_unverified(self, frame: Frame) -> None:
        """Record a message of kind 0x00 that opens with the bundles that the notary had when the message was stored."""
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
                self._check_decision(frame, audit, leaf, record)
            elif record.kind in NOTARY_KINDS and recorder not in self._root.notaries:
                self._add_finding(frame, FindingCode.NOT_THE_NOTARY, f"a {record.kind} record by another")
            name = leaf[:NAME_BYTES]
            if name not in self.names and (self._only is None or name in self._only):
                self.names[name] = None
                self.tally.take_record(record, recorder, counted=counted, time=frame.stored)

    def _check_decision(self, frame: Frame, audit: VerifiedAudit, leaf: bytes, record: DecisionRecord) -> None:
        try:
            decided = check_decision(record, audit, self._root, self._archive, self._caches)
        except EnvelopeError as error:
            self.findings.append(of_sequence(frame.sequence, error))
            return
        aud = decided.header.aud
        if aud is not None and aud != audit.header.iss:
            self._add_finding(frame, FindingCode.WRONG_AUDIENCE, "a decision not recorded by the message's recipient")
            return
        self.approvals += approval_facts_of(
            leaf,
            record,
            decided,
            recorder=audit.header.iss,
            names=self._root.names,
            sequence=frame.sequence,
            stored=frame.stored,
        )
        self.grants += standing_facts_of(
            record,
            decided,
            recorder=audit.header.iss,
            names=self._root.names,
            sequence=frame.sequence,
            stored=frame.stored,
        )

    def _add_finding(self, frame: Frame, code: Code | FindingCode, detail: str) -> None:
        self.findings.append(Finding("", frame.sequence, code, detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRestoration:
    """A restoration in the log. The log had reached the sequence `logged`, and `lost` of its messages are gone.

    `ranges` are the first ranges of lost sequences, each with its first and last sequence.
    """

    restoration: Restoration
    logged: int
    lost: int
    ranges: tuple[tuple[int, int], ...]


class OrderReader:
    """Checks the order of a log's entries, frame by frame; `findings` are the places with a wrong entry.

    `restorations` are the restorations of the stream. Messages that the stream lost by a restoration are a finding, and
    messages that it lost without a restoration are another.
    """

    def __init__(self) -> None:
        self._order: EntryOrder | None = EntryOrder()
        self._created: int | None = None
        self._lost = 0
        self._ranges: list[tuple[int, int]] = []
        self._least = 0
        """The least lost sequence that no restoration explains yet, 0 for none."""
        self.findings: list[Finding] = []
        self.restorations: list[ShownRestoration] = []

    def take_frame(self, frame: Frame, index: int) -> None:
        """Take entry number `index`. A frame without an entry starts the order over; `EntryReader` reports it."""
        if frame.kind is EntryKind.LOST:
            self._take_lost(frame, index)
            return
        try:
            entry = _place(frame)
            restored = parse_restoration(parse_note(frame.data).text) if frame.kind is EntryKind.RESTORED else None
        except LogError:
            self._order = None
            return
        before = entry.sequence if restored is not None else entry.sequence - 1
        if self._order is None:
            # Earlier frames could not be read: the order starts over with this entry.
            self._order = EntryOrder(index, max(before, 0)) if index else EntryOrder()
        if entry.kind is EntryKind.CREATION:
            self._created = entry.time
        if restored is not None:
            self._take_restored(restored, self._order.next - 1)
        try:
            self._order.take_entry(entry)
        except LogError as error:
            self.findings.append(of_sequence(frame.sequence, error))
            self._order = EntryOrder(index + 1, before + entry.count) if entry.sequence else None

    def _take_lost(self, frame: Frame, index: int) -> None:
        sequence = frame.sequence
        if self._order is None:
            self._order = EntryOrder(index, max(sequence - 1, 0)) if index else EntryOrder()
        try:
            self._order.take_lost(sequence)
        except LogError as error:
            self.findings.append(of_sequence(sequence, error))
            self._order = None
        self._lost += 1
        self._least = min(self._least or sequence, sequence)
        if self._ranges and self._ranges[-1][1] + 1 == sequence:
            self._ranges[-1] = (self._ranges[-1][0], sequence)
        elif len(self._ranges) < _RANGES:
            self._ranges.append((sequence, sequence))

    def _take_restored(self, restored: Restoration, logged: int) -> None:
        if self._created is not None and restored.before != self._created:
            error = LogError(Code.BAD_ENTRY, "a restoration of a stream that was created at another time")
            self.findings.append(of_sequence(restored.last, error))
        self._created = restored.created
        if self._least and self._least <= restored.last:
            self.findings.append(_unexplained(self._least))
        elif self._lost:
            detail = f"{self._lost} messages up to {logged} were logged, but are not in the restored backup"
            self.findings.append(Finding("", self._least, FindingCode.LOST_RECORDS, detail))
        shown = ShownRestoration(restoration=restored, logged=logged, lost=self._lost, ranges=tuple(self._ranges))
        self.restorations.append(shown)
        self._lost, self._least = 0, 0
        self._ranges.clear()

    def lose(self) -> None:
        """Start over with the next entry, because entries before it are missing; the second pass reports which."""
        self._order = None

    def end(self) -> None:
        """Check that a checkpoint may follow the last entry, and that a restoration explains every lost message."""
        if self._least:
            self.findings.append(_unexplained(self._least))
        if self._order is not None and not self._order.settled:
            self.findings.append(of_file("checkpoint", Code.BAD_ENTRY, "not at a place where a checkpoint may be"))


def _unexplained(sequence: int) -> Finding:
    return of_sequence(sequence, LogError(Code.BAD_ENTRY, "lost, and no restoration of the stream explains it"))


def _place(frame: Frame) -> Entry:
    """Return an entry for the place of `frame`. Order does not depend on the digest, except that a gap's has its count."""
    match frame.kind:
        case EntryKind.GAP:
            return gap_entry(frame.sequence, int.from_bytes(frame.data[:8], "big"), time=frame.stored)
        case EntryKind.CREATION | EntryKind.PREVIOUS | EntryKind.RESTORED:
            return Entry(frame.kind, frame.sequence, frame.stored, _ANY_DIGEST, 0)
        case _:
            return Entry(frame.kind, frame.sequence, frame.stored, _ANY_DIGEST)
