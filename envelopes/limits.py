"""Every size, count and age that the envelope format bounds, with its unit and the source of the number."""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000
"""Microseconds in a second; all times are unsigned microseconds since the Unix epoch (SPEC.md, "Words")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of format 1. All are those of SPEC.md; change them only together with the format."""

    envelope_bytes: int = 1_048_576
    """Whole envelope: the default `max_payload` of nats-server."""
    header_bytes: int = 8_192
    body_bytes: int = 917_504
    """896 KiB: what is left of `max_payload` with eight ancestors of the largest size (SPEC.md section 2)."""
    token_bytes: int = 4_096
    context_bytes: int = 8_192
    ancestors: int = 8
    batch_leaves: int = 4_096
    proof_nodes: int = 12
    """log2 of `batch_leaves`."""
    nesting: int = 5
    text_bytes: int = 256
    text_items: int = 32
    ext_items: int = 16
    spiffe_id_bytes: int = 2_048
    """SPIFFE-ID.md section 2.3."""
    subject_bytes: int = 255
    max_integer: int = 2**53 - 1
    """Exact in JSON and in every language's double."""
    clock_skew: int = 5 * SECOND
    """How far a host's clock may be from the broker's, either way (SPEC.md section 3)."""
    stored_within: int = 60 * SECOND
    """Stream messages are stored at most this long after `iat` (step 6); half of the least `duplicate_window`."""
    key_awaited: int = 60 * SECOND
    """How long after it was stored a message waits for an unknown key or trust domain (SPEC.md section 7)."""
    live_seconds: int = 86_400
    """Longest life of any message, context, chain or credential."""
    bundle_keys: int = 32
    bundle_bytes: int = 65_536
    """A JWT bundle as a JWK set: what a `bundle` record holds (SPEC.md section 8)."""
    jwt_nesting: int = 8
    input_document_bytes: int = 65_536
    refusal_sample_bytes: int = 1_024
    note_bytes: int = 131_072
    """A signed note: 16 signatures, which every verifier must accept (C2SP signed-note), of 5 kB each, and some more."""
    note_signatures: int = 64
    published_note_bytes: int = 8_192
    """A note that the notary publishes: what a `checkpoint` record holds (SPEC.md section 8)."""
    log_name_bytes: int = 256
    """An origin, or a key's name."""
    receipt_bytes: int = 2_097_152
    """A receipt with the largest record and its evidence as base64."""


DEFAULT_LIMITS = Limits()
