"""Acceptance of a parked task: verified again as of when it was stored, before a person sees it or an agent handles it.

Steps are numbered as in SPEC.md section 7. The task's own end may be long over. Acceptance here does not say that the task
may be handled: that takes a decision of its own.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage, verify_sealed
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.lifetimes import FORMAT_LIFETIMES
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects, check_addressing
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
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

    `trust` holds the bundles of that time; revocations apply. Contexts and chains may live as long as the format allows: the
    task stays valid after the reader's settings change. Raises `EnvelopeError` at the first step that fails.
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
    # Steps 7 to 11.
    live = LiveProfile(
        own=profile.own,
        names=profile.names,
        kinds=frozenset({Kind.TASK}),
        minters=minters,
        lifetimes=FORMAT_LIFETIMES,
    )
    return verify_sealed(envelope, header, arrival, live, reference=arrival.stored, trust=trust, caches=caches)
