"""Checks a receipt against the root: that this record was made by whom it says, when, and is in the log.

It judges as a verifier of the whole log does: the trust bundles lead from the root file to the record, one vouching for
the next, and the log is the one of which the root file holds checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from sealbus.envelopes.archive import VerifiedAudit, VerifiedDecided
from sealbus.envelopes.audit_body import AuditBody
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.credential import verify_credential
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import BundleRefused, Code, EnvelopeError, LogError
from sealbus.envelopes.evidence import parse_evidence
from sealbus.envelopes.export.entry_reader import check_decision
from sealbus.envelopes.export.record_receipt import RecordReceipt, ShownBundle
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.shown_message import ShownMessage
from sealbus.envelopes.export.strict_note import open_strictly
from sealbus.envelopes.export.trust_archive import TrustArchive
from sealbus.envelopes.export.trust_reader import parse_bundle, pinned_bundles
from sealbus.envelopes.header import Header, parse_header
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.entries import verified_entry
from sealbus.envelopes.log.proofs import verify_consistency, verify_inclusion
from sealbus.envelopes.merkle import leaf_hash
from sealbus.envelopes.notary_records import BundleRecord
from sealbus.envelopes.records import NOTARY_KINDS, Record, parse_record
from sealbus.envelopes.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import check_addressing
from sealbus.envelopes.trust import Trust

__all__ = ["ProvenRecord", "check_receipt"]


class ProvenRecord(NamedTuple):
    """What a receipt proves. Made by `check_receipt` only."""

    record: Record
    recorder: SpiffeId
    sequence: int
    stored: int
    """Microseconds."""
    decided: VerifiedDecided | None
    """The message that a decision is about."""
    checkpoint: Checkpoint


def check_receipt(data: bytes, root: Root) -> ProvenRecord:
    """Return what the receipt `data` proves; raise `LogError` or `EnvelopeError` if it proves nothing.

    Every byte counts: each line has one spelling, and what it says is used.
    """
    receipt = RecordReceipt.parse(data)
    checkpoint = open_strictly(receipt.log.note, root.origin, root.keys).checkpoint
    _check_earlier(receipt, checkpoint, root)
    caches, archive = Caches(), TrustArchive()
    if any(one.message.index >= other.message.index for one, other in pairwise(receipt.bundles)):
        raise LogError(Code.BAD_NOTE, "receipt: bundles in another order than in the log")
    for bundle in receipt.bundles:
        _take_bundles(bundle, checkpoint, root, archive, caches)
    shown = receipt.message
    header = _open(shown, receipt.log.path, checkpoint, root, archive, caches)
    *evidence, item = shown.items
    record = parse_record(item.data)
    decided = None
    if record.kind in NOTARY_KINDS and header.iss not in root.notaries:
        raise LogError(Code.BAD_ENTRY, "a record that counts only from the notary, by another")
    if isinstance(record, DecisionRecord):
        audit = VerifiedAudit(
            header,
            AuditBody(
                evidence=parse_evidence(one.data for one in evidence),
                records={leaf_hash(item.data): record},
                leaves=(),
                root=header.dig,
            ),
            shown.proof,
            shown.credential,
            shown.stored,
        )
        decided = check_decision(record, audit, root, archive, caches)
        if decided.header.aud not in (None, header.iss):
            raise EnvelopeError(Code.WRONG_AUDIENCE, 4, "a decision recorded by another than the message was for")
    elif evidence:
        raise LogError(Code.BAD_NOTE, "receipt: evidence for a record that rests on none")
    return ProvenRecord(record, header.iss, shown.sequence, shown.stored, decided, checkpoint)


def _check_earlier(receipt: RecordReceipt, checkpoint: Checkpoint, root: Root) -> None:
    """Raise `LogError` unless the log is one with each checkpoint that the root file holds (SPEC.md section 14)."""
    roots = {checkpoint.size: checkpoint.root}
    for one in receipt.earlier:
        if not 0 < one.size < checkpoint.size or one.size <= max(roots.keys() - {checkpoint.size}, default=0):
            raise LogError(Code.BAD_NOTE, "receipt: earlier checkpoints are smaller, in ascending order")
        verify_consistency(one.size, one.root, checkpoint.size, checkpoint.root, one.path)
        roots[one.size] = one.root
    for held in root.held:
        size = held.checkpoint.size
        if size > checkpoint.size:
            raise LogError(Code.INCONSISTENT_LOG, "rolled back: the root file holds a later checkpoint; make it anew")
        if size and size not in roots:
            raise LogError(Code.INCONSISTENT_LOG, "not shown to go on from a checkpoint of the root file; make it anew")
        if size and roots[size] != held.checkpoint.root:
            raise LogError(Code.INCONSISTENT_LOG, "the root file holds a checkpoint of another history")


def _take_bundles(
    bundle: ShownBundle, checkpoint: Checkpoint, root: Root, archive: TrustArchive, caches: Caches
) -> None:
    """Add to `archive` what a notary's message shows, if a bundle in it or the root file vouches for the message."""
    shown = bundle.message
    records = [parse_record(item.data) for item in shown.items]
    bundles = [record for record in records if isinstance(record, BundleRecord)]
    if len(bundles) != len(records):
        raise LogError(Code.BAD_NOTE, "receipt: not a bundle record")
    vouching = archive if _opens(bundle, checkpoint, root, archive, caches) else pinned_bundles(bundles, root)
    header = _open(shown, bundle.path, checkpoint, root, vouching, caches)
    if header.iss not in root.notaries:
        raise LogError(Code.BAD_ENTRY, "a bundle record by another than the notary")
    for record in bundles:
        try:
            archive.add(parse_bundle(record))
        except BundleRefused as error:
            raise LogError(Code.BAD_ENTRY, f"receipt: {error.detail}") from error


def _opens(bundle: ShownBundle, checkpoint: Checkpoint, root: Root, archive: TrustArchive, caches: Caches) -> bool:
    try:
        _open(bundle.message, bundle.path, checkpoint, root, archive, caches)
    except EnvelopeError:
        return False
    return True


def _open(
    shown: ShownMessage,
    path: Sequence[bytes],
    checkpoint: Checkpoint,
    root: Root,
    archive: TrustArchive,
    caches: Caches,
) -> Header:
    """Return the header of a message that is in the log as one that opened, its credential verified by `archive`."""
    header = parse_header(shown.header)
    if header.kind is not Kind.RECORD:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not a record")
    check_addressing(header, header.to, root.names, {})
    entry = verified_entry(shown.sequence, time=shown.stored, header_digest=header.digest)
    verify_inclusion(entry.leaf, shown.index, checkpoint.size, path, checkpoint.root)
    verify_credential(
        shown.credential,
        iss=header.iss,
        key=header.key,
        crd=header.crd,
        reference=shown.stored,
        trust=Trust(bundles=archive.at(shown.stored)),
        caches=caches,
    )
    verify_proof(shown.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    shown.check_items(header.dig)
    return header
