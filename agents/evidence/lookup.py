"""Looks up one message or record in an export: who sent it for whom, the decision and the outcome; verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from sealbus.agents.evidence.files import ExportFiles
from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.export.entries import check_decision, open_frame
from sealbus.envelopes.export.format import CHECKPOINT, Frame, messages_path, read_frames
from sealbus.envelopes.export.tiles import tasks_of
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_strictly
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

__all__ = [
    "FoundRecord",
    "LoggedBundle",
    "Lookup",
    "Told",
    "ToldDecision",
    "ToldOutcome",
    "identifier",
    "items_of",
    "look_up",
    "tell",
]

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
    """A bundle record that counts, and its place."""

    index: int
    frame: Frame
    items: tuple[bytes, ...]
    item: int
    record: BundleRecord


@dataclass(slots=True)
class Lookup:
    """The records found, in the order of the log, and what the log says about trust."""

    checkpoint: SignedCheckpoint
    trust: TrustReader
    found: list[FoundRecord] = field(default_factory=list)
    bundles: list[LoggedBundle] = field(default_factory=list)


def identifier(text: str) -> bytes:
    """Return the bytes of an id: 32 hex digits of a message, or 64 of a record's leaf or a header's hash.

    Raises `ConfigurationError` for any other text.
    """
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) not in (_ID_BYTES, _DIGEST_BYTES) or found.hex() != text.lower():
        raise ConfigurationError("an id is 32 hex digits of a message, or 64 of a record or a header's hash")
    return found


def look_up(files: ExportFiles, root: Root, wanted: bytes) -> Lookup:
    """Return the decisions about the message `wanted`, or the record of that leaf, and the outcomes of all of them.

    Raises `LogError` for a checkpoint that the root does not lead to, and for a truncated file; nothing else in the export is
    verified here.
    """
    note = files.read(CHECKPOINT, DEFAULT_LIMITS.published_note_bytes)
    if note is None:
        raise ConfigurationError("the export has no checkpoint")
    lookup = Lookup(open_strictly(note, root.origin, root.keys), TrustReader(root))
    needles = {wanted}
    for index, frame in _frames(files, lookup.checkpoint.checkpoint.size):
        known = len(lookup.trust.archive)
        lookup.trust.take_frame(frame, index)
        brought = len(lookup.trust.archive) > known
        # Searched for by its bytes, unless it is a leaf, whose hash is not stored.
        if frame.kind is EntryKind.VERIFIED and (brought or len(wanted) == _DIGEST_BYTES or _holds(frame, needles)):
            _take(lookup, index, frame, wanted, needles, brought=brought)
    return lookup


def _frames(files: ExportFiles, size: int) -> Iterator[tuple[int, Frame]]:
    for task in tasks_of(size, ()):
        opened = files.open(messages_path(task.index))
        if opened is None:
            raise ConfigurationError(f"the export has no {messages_path(task.index)}")
        with opened as file:
            yield from enumerate(read_frames(file.read), task.index * 256)


def _holds(frame: Frame, needles: set[bytes]) -> bool:
    return any(needle in frame.data for needle in needles)


def _take(lookup: Lookup, index: int, frame: Frame, wanted: bytes, needles: set[bytes], *, brought: bool) -> None:
    try:
        items, first = items_of(frame)
        records = [(number, parse_record(items[number])) for number in range(first, len(items))]
    except EnvelopeError:
        # Verification of the export reports what is wrong with it.
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
        if about and all(one.leaf != leaf for one in lookup.found):
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
    # Its form has been checked; the parsed body does not say which item each record was.
    _, evidence, records = cast("tuple[int, list[bytes], list[bytes]]", decode(body, items=DEFAULT_LIMITS.batch_leaves))
    return (*evidence, *records), len(evidence)


@dataclass(frozen=True, slots=True)
class ToldOutcome:
    """The outcome of a decision."""

    found: FoundRecord
    record: OutcomeRecord


@dataclass(slots=True)
class ToldDecision:
    """A decision, the message that it is about, proved again, and its outcomes."""

    found: FoundRecord
    record: DecisionRecord
    recorder: SpiffeId
    decided: VerifiedDecided
    outcomes: list[ToldOutcome] = field(default_factory=list)


@dataclass(slots=True)
class Told:
    """Everything found that verifies; and where and why the rest does not verify."""

    decisions: list[ToldDecision] = field(default_factory=list)
    others: list[FoundRecord] = field(default_factory=list)
    """Records that belong to no decision found here."""
    refused: list[tuple[FoundRecord, EnvelopeError]] = field(default_factory=list)


def tell(lookup: Lookup, root: Root) -> Told:
    """Return what was looked up, each record opened and each decided message proved again."""
    told, caches, archive = Told(), Caches(), lookup.trust.archive
    for found in lookup.found:
        record = found.record
        try:
            audit = open_frame(found.frame, root, archive, caches)
            if isinstance(record, DecisionRecord):
                decided = check_decision(record, audit, root, archive, caches)
                told.decisions.append(ToldDecision(found, record, audit.header.iss, decided))
                continue
        except EnvelopeError as error:
            told.refused.append((found, error))
            continue
        decision = _decision_of(told.decisions, found)
        if decision is not None and isinstance(record, OutcomeRecord):
            decision.outcomes.append(ToldOutcome(found, record))
        else:
            told.others.append(found)
    return told


def _decision_of(decisions: Sequence[ToldDecision], found: FoundRecord) -> ToldDecision | None:
    if not isinstance(found.record, OutcomeRecord):
        return None
    return next((one for one in decisions if one.found.leaf == found.record.decision), None)
