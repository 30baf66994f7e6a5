"""Checks a receipt against the root: that this record was made by whom it says, when, and is in the log.

It rests on the log's key: an entry of kind 0x01 says that the notary found the message authentic when it came. All that
can be checked again without the rest of the log is checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from sealbus.envelopes.archive import VerifiedAudit, VerifiedDecided
from sealbus.envelopes.audit_body import AuditBody
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.credential import verify_credential
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.evidence import parse_evidence
from sealbus.envelopes.export.entry_reader import check_decision
from sealbus.envelopes.export.record_receipt import RecordReceipt, ShownBundle
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.shown_message import ShownMessage
from sealbus.envelopes.export.strict_note import open_strictly
from sealbus.envelopes.export.trust_archive import TrustArchive
from sealbus.envelopes.export.trust_reader import parse_bundle
from sealbus.envelopes.header import Header, parse_header
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.entries import verified_entry
from sealbus.envelopes.log.proofs import verify_inclusion
from sealbus.envelopes.merkle import leaf_hash
from sealbus.envelopes.notary_records import BundleRecord
from sealbus.envelopes.records import NOTARY_KINDS, Record, parse_record
from sealbus.envelopes.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.subjects import check_addressing
from sealbus.envelopes.trust import Trust
from sealbus.envelopes.wire import JWT_SVID

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
    caches, archive = Caches(), TrustArchive()
    for bundle in receipt.bundles:
        archive.add(parse_bundle(_open_bundle(bundle, checkpoint, root, caches)))
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


def _open_bundle(bundle: ShownBundle, checkpoint: Checkpoint, root: Root, caches: Caches) -> BundleRecord:
    """Return the bundle record that the notary's message shows. What vouches for it is that the log says it opened."""
    shown = bundle.message
    if len(shown.items) != 1:
        raise LogError(Code.BAD_NOTE, "receipt: a bundle's message shows that alone")
    record = parse_record(shown.items[0].data)
    if not isinstance(record, BundleRecord):
        raise LogError(Code.BAD_NOTE, "receipt: not a bundle record")
    header = _open(shown, bundle.path, checkpoint, root, None, caches)
    if header.iss not in root.notaries:
        raise LogError(Code.BAD_ENTRY, "a bundle record by another than the notary")
    return record


def _open(
    shown: ShownMessage,
    path: Sequence[bytes],
    checkpoint: Checkpoint,
    root: Root,
    archive: TrustArchive | None,
    caches: Caches,
) -> Header:
    """Return the header of a message that is in the log as one that opened; with `archive`, its credential again."""
    header = parse_header(shown.header)
    if header.kind is not Kind.RECORD:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not a record")
    check_addressing(header, header.to, root.names, {})
    entry = verified_entry(shown.sequence, time=shown.stored, header_digest=header.digest)
    verify_inclusion(entry.leaf, shown.index, checkpoint.size, path, checkpoint.root)
    if archive is not None:
        verify_credential(
            shown.credential,
            iss=header.iss,
            key=header.key,
            crd=header.crd,
            reference=shown.stored,
            trust=Trust(bundles=archive.at(shown.stored)),
            caches=caches,
        )
    elif sha256(shown.credential.token).digest() != header.crd or shown.credential.kind != JWT_SVID:
        raise EnvelopeError(Code.BAD_CREDENTIAL, 7, "crd")
    verify_proof(shown.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    shown.check_items(header.dig)
    return header
