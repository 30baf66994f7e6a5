"""The archive profile: acceptance of audit messages as of their log entry's time, and of the decided messages in them.

Steps are numbered as in SPEC.md section 7. No log is read here. The caller passes, and vouches for, the time at which the
message was stored and the bundles of that time.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.lifetimes import FORMAT_LIFETIMES
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.chain import parsed_ancestor, verify_chain
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import check_addressing
from sealbus.envelopes.message.user_context import UserContext, parsed_context, verify_context
from sealbus.envelopes.message.wire import FORMATS, Ancestor, Statement, parse_envelope
from sealbus.envelopes.records.body import AuditBody, Evidence, parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_RECORDS: Final = frozenset({Kind.RECORD})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveProfile:
    """The settings of a reader of the archive.

    `names` are the names of the deployment, with its trust domain. `minters` are the workloads that may mint user contexts.
    `formats` are the formats that the reader is configured to accept.
    """

    names: Names
    minters: AbstractSet[SpiffeId] = frozenset()
    formats: AbstractSet[int] = FORMATS


class VerifiedAudit(NamedTuple):
    """An audit message that was accepted as of `time`. Made by `accept_record`; a receipt makes it from its own parts.

    It proves that the signer stated the records at that time, not that they are true. `accept_decided` verifies decided
    messages again. The reader compares the sender of records that only the notary may make with the notary's SPIFFE IDs.
    """

    header: Header
    body: AuditBody
    proof: Proof
    credential: Credential
    time: int
    """The log entry's time, at which the broker stored the message, in microseconds."""

    def __repr__(self) -> str:
        return f"VerifiedAudit(header={self.header!r}, ...)"


class VerifiedDecided(NamedTuple):
    """The message of a decision record, verified again from evidence. `accept_decided` alone makes it."""

    header: Header
    context: UserContext | None
    chain: tuple[Header, ...]
    """The headers from the root to this message's own."""


def accept_record(
    payload: bytes, subject: str, profile: ArchiveProfile, *, time: int, bundles: TrustBundles, caches: Caches
) -> VerifiedAudit:
    """Verify an audit message and return it; raise `EnvelopeError` at the first step that it fails.

    `time` is the time of its log entry (microseconds), `bundles` are the bundles of that time, and `subject` is the subject
    on which it was stored. Revocations do not apply: they do not undo records.
    """
    # Step 1. Form.
    envelope = parse_envelope(payload, profile.formats)
    # Step 2. Header.
    header = parse_header(envelope.header)
    # Step 3. Place.
    if header.kind not in _RECORDS:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not a record")
    check_addressing(header, subject, profile.names, {})
    # Steps 4 to 6 do not apply: a record has no audience, and counts as of its entry's time.
    # Step 7. Credential.
    verify_credential(envelope.credential, header, reference=time, trust=Trust(bundles=bundles), caches=caches)
    # Step 8. Proof.
    verify_proof(envelope.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    # Step 9. Body.
    body = parse_audit_body(envelope.body)
    if body.root != header.dig:
        raise EnvelopeError(Code.BAD_DIGEST, 9)
    # Step 10. Context: a record has none.
    if envelope.context is not None:
        raise EnvelopeError(Code.BAD_CONTEXT, 10, "present without ctx")
    # Step 11. Chain: nor ancestors.
    if envelope.ancestors:
        raise EnvelopeError(Code.BAD_CHAIN, 11, "present without par")
    return VerifiedAudit(header, body, envelope.proof, envelope.credential, time)


def accept_decided(
    decision: DecisionRecord,
    audit: VerifiedAudit,
    profile: ArchiveProfile,
    *,
    bundles: TrustBundles,
    caches: Caches,
    body: bytes | None = None,
) -> VerifiedDecided:
    """Verify again the message of `decision`, a record in `audit`; raise `EnvelopeError` if that fails.

    `bundles` are the bundles at `decision.place.time`, which is the reference time. Credentials, context and ancestors come
    from the evidence of `audit`; missing evidence fails as if the message had lacked it. `body`, if it was kept, and the
    record's body, if it has one, are compared with `dig`; otherwise the body is not checked. Contexts and chains may live as
    long as the format allows, because the reader's settings are not known. The decision itself is not judged.
    """
    reference, trust, evidence = decision.place.time, Trust(bundles=bundles), audit.body.evidence
    # Step 2. Header.
    header = parse_header(decision.header)
    # Step 5, as far as it applies to a record: the decided message cannot be in the future.
    if reference > audit.time + DEFAULT_LIMITS.clock_skew:
        raise EnvelopeError(Code.NOT_YET_VALID, 5, "decided after it was recorded")
    # Step 7. Credential.
    verify_credential(_credential(evidence, header.crd, 7), header, reference=reference, trust=trust, caches=caches)
    # Step 8. Proof.
    verify_proof(decision.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    # Step 9. Body.
    for known_body in (decision.body, body):
        if known_body is not None and sha256(known_body).digest() != header.dig:
            raise EnvelopeError(Code.BAD_DIGEST, 9)
    # Step 10. Context.
    context = verify_context(
        _statement(evidence, header.ctx, caches),
        header.ctx,
        trust_domain=profile.names.trust_domain,
        minters=profile.minters,
        lifetimes=FORMAT_LIFETIMES,
        trust=trust,
        caches=caches,
    )
    # Step 11. Chain.
    ancestors = _ancestors(evidence, header, caches)
    parents = verify_chain(
        header,
        ancestors,
        context,
        reference=reference,
        lifetimes=FORMAT_LIFETIMES,
        trust=trust,
        caches=caches,
    )
    return VerifiedDecided(header, context, (*reversed(parents), header))


def _credential(evidence: Evidence, crd: bytes, step: int) -> Credential:
    credential = evidence.credentials.get(crd)
    if credential is None:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "no evidence of it")
    return credential


def _statement(evidence: Evidence, ctx: bytes | None, caches: Caches) -> Statement | None:
    """Return the statement with the hash `ctx`, or None if there is none; `verify_context` judges that."""
    if ctx is None:
        return None
    signed = evidence.contexts.get(ctx)
    if signed is None:
        return None
    return Statement(signed.data, signed.proof, _credential(evidence, parsed_context(signed.data, ctx, caches).crd, 10))


def _ancestors(evidence: Evidence, header: Header, caches: Caches) -> tuple[Ancestor, ...]:
    """Return the ancestors of `header`, the parent first. Hashes name them, so no chain is circular."""
    ancestors: list[Ancestor] = []
    # One ancestor too many is enough: `verify_chain` then refuses the length.
    while header.par is not None and len(ancestors) <= DEFAULT_LIMITS.ancestors:
        signed = evidence.ancestors.get(header.par)
        if signed is None:
            raise EnvelopeError(Code.BAD_CHAIN, 11, "no evidence of an ancestor")
        try:
            header = parsed_ancestor(signed.data, header.par, caches)
        except EnvelopeError as error:
            raise error.at_step(11) from error
        ancestors.append(Ancestor(signed.data, signed.proof, _credential(evidence, header.crd, 11)))
    return tuple(ancestors)
