"""Evidence in an audit message: credentials, contexts and ancestors, each found by the hash that a header holds.

A record names what it rests on by hashes only, so that what many records share is stored once (SPEC.md section 8).
Names are computed here from the bytes, never read from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from sealbus.envelopes.codec import Value, decode, pack
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.record_fields import parse_proof
from sealbus.envelopes.wire import Credential, Proof

__all__ = ["Evidence", "SignedBytes", "ancestor_item", "context_item", "credential_item", "parse_evidence"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignedBytes:
    """A context's payload or an ancestor's header, with its proof. Not verified."""

    data: bytes
    proof: Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All evidence of one audit message. Every key is the hash of what it leads to; nothing else is verified."""

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
    """Return what `items` hold, by name; raise `EnvelopeError` (`malformed`, step 0) for an item of no table.

    Two items of one sort with one name are refused: a reader that took the first and one that took the last would
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
