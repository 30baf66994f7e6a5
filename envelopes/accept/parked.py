"""A message that was parked: verified again as of when it was stored, before anybody is shown it or it is handled.

Steps are numbered as in SPEC.md section 7. Its own end may be long over, and nothing here says that it may be handled: that
takes a decision of its own.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from hashlib import sha256

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.lifetimes import FORMAT_LIFETIMES
from sealbus.envelopes.message.chain import verify_chain
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects, check_addressing
from sealbus.envelopes.message.user_context import verify_context
from sealbus.envelopes.message.wire import Ancestor, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId


def accept_parked(
    payload: bytes,
    digest: bytes,
    arrival: StreamArrival,
    profile: ResultProfile,
    *,
    own_subjects: OwnSubjects,
    minters: AbstractSet[SpiffeId],
    trust: Trust,
    caches: Caches,
) -> VerifiedMessage:
    """Verify the task with H(header) `digest` by steps 1 to 3 and 7 to 11, as of `arrival.stored`, and return it.

    `trust` holds the bundles that were current then; revocations apply. Contexts and chains may live as long as the format
    allows, because what was lawful when it was parked stays so. Raises `EnvelopeError` at the first step that fails.
    """
    # Step 1. Form.
    envelope = parse_envelope(payload, profile.formats)
    # Step 2. Header.
    header = parse_header(envelope.header)
    if header.digest != digest:
        raise EnvelopeError(Code.BAD_DIGEST, 2, "another message than was parked")
    # Step 3. Place.
    if header.kind is not Kind.TASK:
        raise EnvelopeError(Code.WRONG_KIND, 3, "only a task is parked")
    check_addressing(header, arrival.subject, profile.names, own_subjects)
    # Step 7. Credential.
    verify_credential(
        envelope.credential,
        iss=header.iss,
        key=header.key,
        crd=header.crd,
        reference=arrival.stored,
        trust=trust,
        caches=caches,
    )
    # Step 8. Proof.
    verify_proof(envelope.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    # Step 9. Body.
    if sha256(envelope.body).digest() != header.dig:
        raise EnvelopeError(Code.BAD_DIGEST, 9)
    # Step 10. Context.
    context = verify_context(
        envelope.context,
        header.ctx,
        trust_domain=profile.names.trust_domain,
        minters=minters,
        lifetimes=FORMAT_LIFETIMES,
        trust=trust,
        caches=caches,
    )
    # Step 11. Chain.
    parents = verify_chain(
        header,
        envelope.ancestors,
        context,
        reference=arrival.stored,
        lifetimes=FORMAT_LIFETIMES,
        trust=trust,
        caches=caches,
    )
    return VerifiedMessage(
        header,
        envelope.body,
        envelope.proof,
        envelope.credential,
        context,
        envelope.context,
        (*parents[::-1], header),
        arrival,
        (Ancestor(header.raw, envelope.proof, envelope.credential), *envelope.ancestors),
    )
