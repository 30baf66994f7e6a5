"""The body of an audit message: evidence and records under one Merkle root, which its header signs (SPEC.md section 8).

The leaf of a record, H(0x00 || item), names it. One signature covers all items, and one item with its path can be shown
without the others.

Evidence is credentials, contexts and ancestors. A record refers to its evidence only by hashes, so that evidence that many
records share is stored once. Hashes are computed here from the bytes, never read from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Final, TypeVar

from sealbus.envelopes.encoding.codec import Value, decode, pack
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import parse_proof
from sealbus.envelopes.records.record import Record, parse_record
from sealbus.envelopes.trust.merkle import leaf_hash, root
from sealbus.envelopes.trust.proof import Credential, Proof

AUDIT_MEDIA_TYPE: Final = "application/vnd.sealbus.audit.v1"
"""`typ` of the record messages that this code seals; readers do not judge by it."""

_VERSION: Final = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditBody:
    """An audit body with well-formed items. At step 9, `archive` checks that the header signs its root."""

    evidence: Evidence
    records: Mapping[bytes, Record]
    """By leaf, in the order of the body; a repeated record is listed once."""
    leaves: tuple[bytes, ...]
    """Of all evidence items, then of all records, repeats included: `root` covers these."""
    root: bytes


def encode_audit_body(evidence: Sequence[bytes], records: Sequence[bytes]) -> bytes:
    """Return the body `[1, evidence, records]`; the items are encoded already and are not checked.

    Raises `SealError` for no items, for over 4,096 items, and for a body over 917,504 bytes.
    """
    if not 1 <= len(evidence) + len(records) <= DEFAULT_LIMITS.batch_leaves:
        raise SealError("an audit body has 1 to 4,096 items")
    body = pack((_VERSION, evidence, records))
    if len(body) > DEFAULT_LIMITS.body_bytes:
        raise SealError("audit body over its limit")
    return body


def parse_audit_body(body: bytes) -> AuditBody:
    """Parse an audit body; raise `EnvelopeError` (`bad_digest`, step 9) for one that does not follow section 8.

    Every item is parsed, so that an invalid record cannot hide among good ones.
    """
    try:
        evidence, records = _halves(decode(body, items=DEFAULT_LIMITS.batch_leaves, step=9))
        leaves = tuple(leaf_hash(item) for half in (evidence, records) for item in half)
        by_leaf: dict[bytes, Record] = {}
        for leaf, item in zip(leaves[len(evidence) :], records, strict=True):
            if leaf not in by_leaf:
                by_leaf[leaf] = parse_record(item)
        return AuditBody(
            evidence=parse_evidence(evidence),
            records=MappingProxyType(by_leaf),
            leaves=leaves,
            root=root(leaves),
        )
    except EnvelopeError as error:
        raise EnvelopeError(Code.BAD_DIGEST, 9, error.detail) from error


def _halves(value: Value) -> tuple[list[bytes], list[bytes]]:
    # The exact type, because True equals 1.
    if not isinstance(value, list) or len(value) != 3 or type(value[0]) is not int or value[0] != _VERSION:
        raise _refused("form")
    halves = [_items(half) for half in value[1:]]
    if not 1 <= len(halves[0]) + len(halves[1]) <= DEFAULT_LIMITS.batch_leaves:
        raise _refused("number of items")
    return halves[0], halves[1]


def _items(value: Value) -> list[bytes]:
    if not isinstance(value, list):
        raise _refused("array")
    items: list[bytes] = []
    for item in value:
        if not isinstance(item, bytes):
            raise _refused("item")
        items.append(item)
    return items


def _refused(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.BAD_DIGEST, 9, f"audit body: {detail}")


@dataclass(frozen=True, slots=True)
class SignedBytes:
    """A context's payload or an ancestor's header, with its proof, unverified."""

    data: bytes
    proof: Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All evidence of one audit message. Every key is the hash of its value; nothing else is verified."""

    credentials: Mapping[bytes, Credential]
    """By `crd`: H(token)."""
    contexts: Mapping[bytes, SignedBytes]
    """By `ctx`: H(payload)."""
    ancestors: Mapping[bytes, SignedBytes]
    """By `par`: H(header)."""


def credential_item(credential: Credential) -> bytes:
    """Return the evidence item of a credential, named H(token)."""
    return pack(("credential", credential.kind, credential.token))


def context_item(payload: bytes, proof: Proof) -> bytes:
    """Return the evidence item of a user context, named H(payload); its credential is an item of its own."""
    return pack(("context", payload, proof))


def ancestor_item(header: bytes, proof: Proof) -> bytes:
    """Return the evidence item of an ancestor, named H(header); its credential is an item of its own."""
    return pack(("ancestor", header, proof))


def parse_evidence(items: Iterable[bytes]) -> Evidence:
    """Parse evidence, by name; raise `EnvelopeError` (`malformed`, step 0) for an invalid item.

    Two items of one sort with the same hash are refused: a reader that took the first and a reader that took the last would
    verify different proofs.
    """
    credentials: dict[bytes, Credential] = {}
    contexts: dict[bytes, SignedBytes] = {}
    ancestors: dict[bytes, SignedBytes] = {}
    for item in items:
        match decode(item, step=0):
            case ["credential", int(kind), bytes(token)] if not isinstance(kind, bool):
                _put(credentials, _limited(token, DEFAULT_LIMITS.token_bytes), Credential(kind, token))
            case ["context", bytes(payload), proof]:
                _put(contexts, _limited(payload, DEFAULT_LIMITS.context_bytes), _signed(payload, proof))
            case ["ancestor", bytes(header), proof]:
                _put(ancestors, _limited(header, DEFAULT_LIMITS.header_bytes), _signed(header, proof))
            case _:
                raise _malformed("item")
    return Evidence(credentials=credentials, contexts=contexts, ancestors=ancestors)


def _put(sort: dict[bytes, T], data: bytes, value: T) -> None:
    name = sha256(data).digest()
    if name in sort:
        raise _malformed("repeated")
    sort[name] = value


def _limited(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise _malformed("too large")
    return data


def _signed(data: bytes, proof: Value) -> SignedBytes:
    return SignedBytes(data, parse_proof("evidence", proof))


def _malformed(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.MALFORMED, 0, f"evidence: {detail}")
