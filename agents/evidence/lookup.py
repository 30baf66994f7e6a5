"""Finds what an export holds about one message or record: decisions, outcomes, and the bundles that vouch for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from sealbus.agents.evidence.files import ExportFiles
from sealbus.envelopes.audit_body import parse_audit_body
from sealbus.envelopes.codec import decode
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
from sealbus.envelopes.export.frames import Frame, messages_path, read_frames
from sealbus.envelopes.export.layout import CHECKPOINT
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.strict_note import open_strictly
from sealbus.envelopes.export.tile_reader import tasks_of
from sealbus.envelopes.export.trust_reader import TrustReader
from sealbus.envelopes.header import parse_header
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import SignedCheckpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.merkle import leaf_hash
from sealbus.envelopes.notary_records import BundleRecord
from sealbus.envelopes.records import Record, parse_record
from sealbus.envelopes.wire import parse_envelope
from sealbus.envelopes.work_records import OutcomeRecord

__all__ = ["FoundRecord", "LoggedBundle", "Lookup", "identifier", "items_of", "look_up"]

_ID_BYTES = 16
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record and where it stands: entry `index` of the log, item number `item` of its audit message. Not verified."""

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
    """A bundle record that counts, and where it stands."""

    index: int
    frame: Frame
    items: tuple[bytes, ...]
    item: int
    record: BundleRecord


@dataclass(slots=True)
class Lookup:
    """What was found, in the order of the log, and what the log says about trust."""

    checkpoint: SignedCheckpoint
    trust: TrustReader
    found: list[FoundRecord] = field(default_factory=list)
    bundles: list[LoggedBundle] = field(default_factory=list)


def identifier(text: str) -> bytes:
    """Return the bytes of an id: 32 hex digits of a message's, or 64 of a record's leaf or a header's hash.

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

    Raises `LogError` for a checkpoint that the root does not lead to, and for a file that is cut; nothing else in the
    export is verified here.
    """
    note = files.read(CHECKPOINT, DEFAULT_LIMITS.published_note_bytes)
    if note is None:
        raise ConfigurationError("the export has no checkpoint")
    lookup = Lookup(open_strictly(note, root.origin, root.keys), TrustReader(root))
    needles = {wanted}
    for index, frame in _frames(files, lookup.checkpoint.checkpoint.size):
        known = len(lookup.trust.archive)
        lookup.trust.take(frame, index)
        brought = len(lookup.trust.archive) > known
        # By its bytes, unless it is a leaf: that stands nowhere.
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
        # Whoever verifies the export says what is wrong with it.
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
    # Its form is known by now; what was parsed does not say which item each record was.
    _, evidence, records = cast("tuple[int, list[bytes], list[bytes]]", decode(body, items=DEFAULT_LIMITS.batch_leaves))
    return (*evidence, *records), len(evidence)
