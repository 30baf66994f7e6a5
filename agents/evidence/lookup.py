"""Looks up one message or record in an export, verified: its sender and user, the decision and the outcome."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from sealbus.agents.evidence.files import ExportFiles, frames_of
from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.export.entries import check_decision, open_frame
from sealbus.envelopes.export.format import CHECKPOINT, Frame, messages_path
from sealbus.envelopes.export.tiles import tasks_of
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.archive import VerifiedDecided
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.records.record import Record, parse_record
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_ID_BYTES = 16
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record and its place: entry `index` of the log, item number `item` of its audit message. Not verified."""

    index: int
    frame: Frame
    items: tuple[bytes, ...]
    evidence: int
    """How many of the items are evidence; the records follow."""
    item: int
    record: Record

    @property
    def leaf(self) -> bytes:
        """The hash that names the record."""
        return leaf_hash(self.items[self.item])


@dataclass(frozen=True, slots=True)
class LoggedBundle:
    """A bundle record that the trust archive took, and its place."""

    index: int
    frame: Frame
    items: tuple[bytes, ...]
    item: int
    record: BundleRecord


@dataclass(slots=True)
class Lookup:
    """The records found, in the order of the log, and the trust bundles that the log leads to."""

    checkpoint: SignedCheckpoint
    trust: TrustReader
    found: list[FoundRecord] = field(default_factory=list)
    bundles: list[LoggedBundle] = field(default_factory=list)


def identifier(text: str) -> bytes:
    """Return the bytes of an id: 32 hex digits of a message, or 64 of a record's leaf or a header's hash.

    Raises `ConfigurationError` for any other text.
    """
    try:
        decoded = bytes.fromhex(text)
    except ValueError:
        decoded = b""
    if len(decoded) not in (_ID_BYTES, _DIGEST_BYTES) or decoded.hex() != text.lower():
        raise ConfigurationError("an id is 32 hex digits of a message, or 64 of a record or a header's hash")
    return decoded


def look_up(files: ExportFiles, root: Root, wanted: bytes) -> Lookup:
    """Return the decisions about the message `wanted`, or the record of that leaf, and the outcomes of all of them.

    Raises `LogError` for a checkpoint that the root does not lead to, and for a truncated file; nothing else in the export is
    verified here.
    """
    note = files.read(CHECKPOINT, root.note_bytes)
    if note is None:
        raise ConfigurationError("the export has no checkpoint")
    lookup = Lookup(root.open_checkpoint(note), TrustReader(root))
    needles = {wanted}
    for index, frame in _frames(files, lookup.checkpoint.checkpoint.size):
        known = len(lookup.trust.archive)
        lookup.trust.take_frame(frame, index)
        brought = len(lookup.trust.archive) > known
        # A message is searched for by its bytes; a leaf is not, because its hash is not stored.
        if frame.kind is EntryKind.VERIFIED and (
            brought or len(wanted) == _DIGEST_BYTES or any(needle in frame.data for needle in needles)
        ):
            _take(lookup, index, frame, wanted, needles, brought=brought)
    return lookup


def _frames(files: ExportFiles, size: int) -> Iterator[tuple[int, Frame]]:
    for task in tasks_of(size, ()):
        if files.read(messages_path(task.index), 0) is None:
            raise ConfigurationError(f"the export has no {messages_path(task.index)}")
        yield from enumerate(frames_of(files, task.index), task.index * 256)


def _take(lookup: Lookup, index: int, frame: Frame, wanted: bytes, needles: set[bytes], *, brought: bool) -> None:
    try:
        items, first = items_of(frame)
        records = [(number, parse_record(items[number])) for number in range(first, len(items))]
    except EnvelopeError:
        # Verification of the export reports the fault.
        return
    for number, record in records:
        if brought and isinstance(record, BundleRecord):
            lookup.bundles.append(LoggedBundle(index, frame, items, number, record))
        leaf = leaf_hash(items[number])
        if isinstance(record, DecisionRecord):
            about = leaf == wanted or _is_about(record, wanted)
            if about:
                needles.add(leaf)
        elif isinstance(record, OutcomeRecord):
            about = leaf == wanted or record.decision in needles
        else:
            about = leaf == wanted
        if about and all(known.leaf != leaf for known in lookup.found):
            lookup.found.append(FoundRecord(index, frame, items, first, number, record))


def _is_about(record: DecisionRecord, wanted: bytes) -> bool:
    try:
        header = parse_header(record.header)
    except EnvelopeError:
        return False
    return wanted in (header.id, header.digest)


def items_of(frame: Frame) -> tuple[tuple[bytes, ...], int]:
    """Return the items of a frame's audit body, and the number of its first record."""
    body = parse_envelope(frame.data).body
    parse_audit_body(body)
    # The form is checked above. The parsed body does not name the item of each record.
    _, evidence, records = cast("tuple[int, list[bytes], list[bytes]]", decode(body, items=DEFAULT_LIMITS.batch_leaves))
    return (*evidence, *records), len(evidence)


@dataclass(frozen=True, slots=True)
class VerifiedOutcome:
    """The outcome of a decision."""

    found: FoundRecord
    record: OutcomeRecord


@dataclass(slots=True)
class VerifiedDecision:
    """A decision, the message that it is about, proved again, and its outcomes."""

    found: FoundRecord
    record: DecisionRecord
    recorder: SpiffeId
    decided: VerifiedDecided
    outcomes: list[VerifiedOutcome] = field(default_factory=list)


@dataclass(slots=True)
class VerifiedRecords:
    """The found records that verify, and the others with the reasons why they do not."""

    decisions: list[VerifiedDecision] = field(default_factory=list)
    others: list[FoundRecord] = field(default_factory=list)
    """Records that belong to none of the decisions."""
    refused: list[tuple[FoundRecord, EnvelopeError]] = field(default_factory=list)


def verify_lookup(lookup: Lookup, root: Root) -> VerifiedRecords:
    """Return the records of `lookup`, each opened, and each decided message proved again."""
    verified, caches, archive = VerifiedRecords(), Caches(), lookup.trust.archive
    for place in lookup.found:
        record = place.record
        try:
            audit = open_frame(place.frame, root, archive, caches)
            if isinstance(record, DecisionRecord):
                decided = check_decision(record, audit, root, archive, caches)
                verified.decisions.append(VerifiedDecision(place, record, audit.header.iss, decided))
                continue
        except EnvelopeError as error:
            verified.refused.append((place, error))
            continue
        about = record.decision if isinstance(record, OutcomeRecord) else b""
        decision = next((known for known in verified.decisions if known.found.leaf == about), None)
        if decision is not None and isinstance(record, OutcomeRecord):
            decision.outcomes.append(VerifiedOutcome(place, record))
        else:
            verified.others.append(place)
    return verified
