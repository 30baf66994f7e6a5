"""The limits of the envelope format: sizes, counts and ages, with their units and the sources of the numbers."""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000
"""Microseconds in a second; all times are unsigned microseconds since the Unix epoch (SPEC.md, "Words")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of format 1, as in SPEC.md. Change them only together with the format."""

    envelope_bytes: int = 1_048_576
    """Whole envelope: the default `max_payload` of nats-server."""
    header_bytes: int = 8_192
    body_bytes: int = 917_504
    """896 KiB: the rest of `max_payload` beside eight ancestors of the largest size (SPEC.md section 2)."""
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
    """Every language's double, and so JSON, holds it exactly."""
    clock_skew: int = 5 * SECOND
    """Largest difference between a host's clock and the broker's, either way, in microseconds (SPEC.md section 3)."""
    remembered_after: int = 12 * SECOND
    """How long a call is remembered beyond its `exp`: *now* may go back by two `clock_skew`, and by a round trip of 2 s."""
    stored_within: int = 60 * SECOND
    """Longest time from `iat` to the storing of a stream message (step 6): half of the least `duplicate_window`."""
    key_awaited: int = 60 * SECOND
    """Longest time that a stored message waits for an unknown key or trust domain (SPEC.md section 7)."""
    live_seconds: int = 86_400
    """Longest life of any message, context, chain or credential."""
    bundle_keys: int = 32
    bundle_bytes: int = 65_536
    """A JWT bundle as a JWK set, which a `bundle` record holds (SPEC.md section 8)."""
    jwt_nesting: int = 8
    input_document_bytes: int = 65_536
    refusal_sample_bytes: int = 1_024
    note_bytes: int = 131_072
    """A signed note. A checkpoint fits with the cosignatures of 32 witnesses, of ML-DSA-44 too (3.3 kB each)."""
    note_signatures: int = 64
    published_note_bytes: int = 8_192
    """A note without cosignatures that the notary publishes, which a `checkpoint` record holds (SPEC.md section 8)."""
    witness_policy_bytes: int = 262_144
    witness_policy_lines: int = 32
    """Logs, witnesses, and groups of a witness policy, each (C2SP tlog-policy recommends at least so many)."""
    log_name_bytes: int = 256
    """An origin, or a key's name."""
    receipt_bytes: int = 2_097_152
    """A receipt with the largest record and its evidence as base64."""


DEFAULT_LIMITS = Limits()
