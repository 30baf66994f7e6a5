"""Receipts of records: a text file that proves one record and shows no other (SPEC.md section 15).

A receipt has the record with its evidence, and the audit message's header and credential. It has the trust bundles that lead
from the root file to these, and the places of all of them in the log. It has proofs that the log extends the root file's
checkpoints, and the log's own checkpoint as C2SP `tlog-proof`.

A receipt is checked as a whole log is: each trust bundle vouches for the next, from the root file to the record, and the log
is the log of the root file's checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from sealbus.envelopes.errors import BundleRefused, Code, EnvelopeError, LogError, SealError
from sealbus.envelopes.export.entries import check_decision
from sealbus.envelopes.export.trust import TrustArchive, parse_bundle, pinned_bundles
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, verify_cose_receipt
from sealbus.envelopes.log.entries import verified_entry
from sealbus.envelopes.log.note import base64_text, parse_base64, parse_number
from sealbus.envelopes.log.receipt import Receipt, encode_receipt, parse_receipt
from sealbus.envelopes.log.tree_proofs import verify_consistency, verify_inclusion
from sealbus.envelopes.message.fields import check_proof
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import check_addressing
from sealbus.envelopes.records.archive import VerifiedAudit, VerifiedDecided
from sealbus.envelopes.records.body import AuditBody, parse_evidence
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.records.record import NOTARY_KINDS, Record, parse_record
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash, path, root_of_sides, sides_of
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_FIRST: Final = "sealbus-receipt@v1"
_BUNDLE: Final = "bundle"
_RECORD: Final = "record"
_PATH: Final = "path"
_EARLIER: Final = "earlier"

_HASH_BYTES: Final = 32
_LEFT: Final = "left"
_RIGHT: Final = "right"


@dataclass(frozen=True, slots=True)
class ShownBundle:
    """A notary's message with `bundle` records, and the path of its entry to the checkpoint's root."""

    message: ShownMessage
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EarlierCheckpoint:
    """Size and root of the log at an earlier time, and the path that proves that the receipt's checkpoint extends it."""

    size: int
    root: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """A well-formed receipt, unverified. `log` is the C2SP receipt of the entry of `message`."""

    bundles: tuple[ShownBundle, ...]
    message: ShownMessage
    log: Receipt = field(repr=False)
    earlier: tuple[EarlierCheckpoint, ...] = ()

    def encode(self) -> bytes:
        """Return the file; raise `LogError` (`bad_note`) if it is over 2 MiB."""
        lines = [_FIRST]
        for bundle in self.bundles:
            lines += [_BUNDLE, *bundle.message.lines(), " ".join([_PATH, *map(base64_text, bundle.path)])]
        lines += [_RECORD, *self.message.lines()]
        for earlier in self.earlier:
            lines.append(" ".join([_EARLIER, str(earlier.size), *map(base64_text, (earlier.root, *earlier.path))]))
        lines += ["", ""]
        data = "\n".join(lines).encode() + encode_receipt(self.log)
        if len(data) > DEFAULT_LIMITS.receipt_bytes:
            raise LogError(Code.BAD_NOTE, "receipt: too large")
        return data

    @classmethod
    def parse(cls, data: bytes) -> RecordReceipt:
        """Parse a receipt; raise `LogError` (`bad_note`) for malformed bytes."""
        if len(data) > DEFAULT_LIMITS.receipt_bytes:
            raise LogError(Code.BAD_NOTE, "receipt: too large")
        head, _, log = data.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise LogError(Code.BAD_NOTE, "receipt: not ASCII") from error
        if lines.pop(0) != _FIRST:
            raise LogError(Code.BAD_NOTE, "receipt: first line")
        bundles = []
        while lines and lines[0] == _BUNDLE:
            # Without a path, the message has no lines, and is refused.
            end = next((at for at, line in enumerate(lines) if line.split(" ")[0] == _PATH), 0)
            bundles.append(ShownBundle(ShownMessage.parse(lines[1:end]), _path(lines[end].split(" ")[1:])))
            del lines[: end + 1]
        if not lines or lines[0] != _RECORD:
            raise LogError(Code.BAD_NOTE, "receipt: no record")
        end = next((at for at, line in enumerate(lines) if line.split(" ")[0] == _EARLIER), len(lines))
        earlier = tuple(map(_earlier, lines[end:]))
        receipt = cls(tuple(bundles), ShownMessage.parse(lines[1:end]), parse_receipt(log), earlier)
        if receipt.log.index != receipt.message.index or receipt.log.extra:
            raise LogError(Code.BAD_NOTE, "receipt: the log's part is of another entry, or has extra data")
        return receipt


def _earlier(line: str) -> EarlierCheckpoint:
    name, *words = line.split(" ")
    if name != _EARLIER or len(words) < 2:
        raise LogError(Code.BAD_NOTE, "receipt: not an earlier checkpoint")
    return EarlierCheckpoint(parse_number(words[0], "size"), parse_base64(words[1], "root"), _path(words[2:]))


def _path(words: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(parse_base64(word, "path") for word in words)


class ProvenRecord(NamedTuple):
    """A record that a receipt proves. `check_receipt` alone makes it."""

    record: Record
    recorder: SpiffeId
    sequence: int
    stored: int
    """Microseconds."""
    decided: VerifiedDecided | None
    """The decided message, if the record is a decision."""
    checkpoint: Checkpoint
    leaf: bytes
    """The hash of the entry of the recorder's message."""


def check_receipt(data: bytes, root: Root) -> ProvenRecord:
    """Return the record that the receipt `data` proves; raise `LogError` or `EnvelopeError` if it proves none.

    Every byte counts: each line has one spelling, and every value in it is used.
    """
    receipt = RecordReceipt.parse(data)
    checkpoint = root.open_checkpoint(receipt.log.note).checkpoint
    _check_earlier(receipt, checkpoint, root)
    caches, archive = Caches(), TrustArchive()
    if any(former.message.index >= latter.message.index for former, latter in pairwise(receipt.bundles)):
        raise LogError(Code.BAD_NOTE, "receipt: bundles are not in the order of the log")
    for bundle in receipt.bundles:
        _take_bundles(bundle, checkpoint, root, archive, caches)
    shown = receipt.message
    header = _open(shown, receipt.log.path, checkpoint, root, archive, caches)
    *evidence, item = shown.items
    record = parse_record(item.data)
    decided = None
    if record.kind in NOTARY_KINDS and header.iss not in root.notaries:
        raise LogError(Code.BAD_ENTRY, "a record that counts only from the notary, by another sender")
    if isinstance(record, DecisionRecord):
        audit = VerifiedAudit(
            header,
            AuditBody(
                evidence=parse_evidence(item.data for item in evidence),
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
            raise EnvelopeError(Code.WRONG_AUDIENCE, 4, "a decision not recorded by the message's recipient")
    elif evidence:
        raise LogError(Code.BAD_NOTE, "receipt: evidence for a record that needs none")
    return ProvenRecord(
        record=record,
        recorder=header.iss,
        sequence=shown.sequence,
        stored=shown.stored,
        decided=decided,
        checkpoint=checkpoint,
        leaf=verified_entry(shown.sequence, time=shown.stored, header_digest=header.digest).leaf,
    )


def check_cose_receipt(data: bytes, proven: ProvenRecord, root: Root) -> None:
    """Raise `LogError` unless the COSE receipt `data` is of the entry of `proven`, in the log at the same checkpoint.

    Its key is one of `root.keys`. No witness has cosigned it, so it adds nothing to what the receipt itself proves.
    """
    receipt = CoseReceipt.parse(data)
    checkpoint = verify_cose_receipt(receipt, proven.leaf, origin=root.origin, verifiers=root.keys)
    if checkpoint != proven.checkpoint:
        raise LogError(Code.BAD_PROOF, "a COSE receipt of another checkpoint")


def _check_earlier(receipt: RecordReceipt, checkpoint: Checkpoint, root: Root) -> None:
    """Raise `LogError` unless the log is consistent with each checkpoint in the root file (SPEC.md section 14)."""
    roots = {checkpoint.size: checkpoint.root}
    for earlier in receipt.earlier:
        if not 0 < earlier.size < checkpoint.size or earlier.size <= max(roots.keys() - {checkpoint.size}, default=0):
            raise LogError(Code.BAD_NOTE, "receipt: earlier checkpoints must be smaller and in ascending order")
        verify_consistency(earlier.size, earlier.root, checkpoint.size, checkpoint.root, earlier.path)
        roots[earlier.size] = earlier.root
    for held in root.held:
        size = held.checkpoint.size
        if size > checkpoint.size:
            raise LogError(
                Code.INCONSISTENT_LOG, "rolled back: the root file has a later checkpoint; make a new receipt"
            )
        if size and size not in roots:
            raise LogError(Code.INCONSISTENT_LOG, "does not extend a checkpoint of the root file; make a new receipt")
        if size and roots[size] != held.checkpoint.root:
            raise LogError(Code.INCONSISTENT_LOG, "the root file holds a checkpoint of another history")


def _take_bundles(
    bundle: ShownBundle, checkpoint: Checkpoint, root: Root, archive: TrustArchive, caches: Caches
) -> None:
    """Add the bundles of a notary's message to `archive`, if a bundle in `archive` or the root file vouches for it."""
    shown = bundle.message
    records = [parse_record(item.data) for item in shown.items]
    bundles = [record for record in records if isinstance(record, BundleRecord)]
    if len(bundles) != len(records):
        raise LogError(Code.BAD_NOTE, "receipt: not a bundle record")
    vouching = archive if _opens(bundle, checkpoint, root, archive, caches) else pinned_bundles(bundles, root)
    header = _open(shown, bundle.path, checkpoint, root, vouching, caches)
    if header.iss not in root.notaries:
        raise LogError(Code.BAD_ENTRY, "a bundle record not by the notary")
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
    """Return the header of a message that the log lists as opened; verify its credential by `archive`."""
    header = parse_header(shown.header)
    if header.kind is not Kind.RECORD:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not a record")
    check_addressing(header, header.to, root.names, {})
    entry = verified_entry(shown.sequence, time=shown.stored, header_digest=header.digest)
    verify_inclusion(entry.leaf, shown.index, checkpoint.size, path, checkpoint.root)
    verify_credential(
        shown.credential, header, reference=shown.stored, trust=Trust(bundles=archive.at(shown.stored)), caches=caches
    )
    verify_proof(shown.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    shown.check_items(header.dig)
    return header


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item of an audit body, and its path to `dig`: each node, and whether it is on the left.

    The number of items and the item's number are left out, because a receipt cannot prove them.
    """

    data: bytes = field(repr=False)
    path: tuple[tuple[bool, bytes], ...]

    @property
    def place(self) -> tuple[bool, ...]:
        """The way from the root to the item, True for each step to the right. Places sort as the items do in the body."""
        return tuple(left for left, _ in reversed(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMessage:
    """The part of an audit message that a receipt shows, unverified. `index` is the number of its entry in the log."""

    index: int
    sequence: int
    stored: int
    header: bytes = field(repr=False)
    proof: Proof = field(repr=False)
    credential: Credential
    items: tuple[ShownItem, ...]
    """In the order of the body: evidence, then the record; or bundle records."""

    def check_items(self, dig: bytes) -> None:
        """Raise `EnvelopeError` (`bad_signature`) unless `dig` covers every item at its place."""
        if any(root_of_sides(leaf_hash(item.data), item.path) != dig for item in self.items):
            raise EnvelopeError(Code.BAD_SIGNATURE, 8, "path leads to another root")

    def lines(self) -> list[str]:
        """Return the lines of a receipt for this message."""
        size, index, nodes, signature = self.proof
        return [
            f"entry {self.index} {self.sequence} {self.stored}",
            f"header {base64_text(self.header)}",
            " ".join([f"proof {size} {index} {base64_text(signature)}", *map(base64_text, nodes)]),
            f"credential {self.credential.kind} {base64_text(self.credential.token)}",
            *(" ".join([f"item {base64_text(item.data)}", *map(_side_text, item.path)]) for item in self.items),
        ]

    @classmethod
    def parse(cls, lines: Sequence[str]) -> ShownMessage:
        """Parse `lines`; raise `LogError` (`bad_note`) for malformed ones."""
        if len(lines) < 5:
            raise LogError(Code.BAD_NOTE, "receipt: lines are missing")
        entry, header, proof, credential = (
            _words(lines[0], "entry", 3, 3),
            _words(lines[1], "header", 1, 1),
            _words(lines[2], "proof", 3, 3 + DEFAULT_LIMITS.proof_nodes),
            _words(lines[3], "credential", 2, 2),
        )
        shown = cls(
            index=parse_number(entry[0], "entry"),
            sequence=parse_number(entry[1], "entry"),
            stored=parse_number(entry[2], "entry"),
            header=parse_base64(header[0], "header"),
            proof=Proof(
                parse_number(proof[0], "proof"),
                parse_number(proof[1], "proof"),
                _nodes(proof[3:]),
                parse_base64(proof[2], "proof"),
            ),
            credential=Credential(parse_number(credential[0], "credential"), parse_base64(credential[1], "credential")),
            items=tuple(_item(line) for line in lines[4:]),
        )
        if any(former.place >= latter.place for former, latter in pairwise(shown.items)):
            raise LogError(Code.BAD_NOTE, "receipt: items are not in the order of the body")
        try:
            check_proof("proof", shown.proof)
        except SealError as error:
            raise LogError(Code.BAD_NOTE, f"receipt: {error.detail}") from error
        return shown


def show_items(items: Sequence[bytes], shown: Iterable[int]) -> tuple[ShownItem, ...]:
    """Return the items of a body with the numbers in `shown`, which are in ascending order, each with its path."""
    leaves = [leaf_hash(item) for item in items]
    return tuple(
        ShownItem(items[index], tuple(zip(sides_of(len(items), index), path(leaves, index), strict=True)))
        for index in shown
    )


def _item(line: str) -> ShownItem:
    data, *path = _words(line, "item", 1, 1 + DEFAULT_LIMITS.proof_nodes)
    return ShownItem(parse_base64(data, "item"), tuple(map(_side, path)))


def _side(word: str) -> tuple[bool, bytes]:
    side, _, node = word.partition(":")
    if side not in (_LEFT, _RIGHT):
        raise LogError(Code.BAD_NOTE, "receipt: a node must be left or right")
    return side == _LEFT, _nodes([node])[0]


def _side_text(side: tuple[bool, bytes]) -> str:
    left, node = side
    return f"{_LEFT if left else _RIGHT}:{base64_text(node)}"


def _words(line: str, name: str, least: int, most: int) -> list[str]:
    first, *words = line.split(" ")
    if first != name or not least <= len(words) <= most:
        raise LogError(Code.BAD_NOTE, f"receipt: {name} is misplaced or missing")
    return words


def _nodes(words: Iterable[str]) -> tuple[bytes, ...]:
    nodes = tuple(parse_base64(word, "node") for word in words)
    if any(len(node) != _HASH_BYTES for node in nodes):
        raise LogError(Code.BAD_NOTE, "receipt: a node is 32 bytes")
    return nodes
