"""The result profile: acceptance of replies and chunks of our calls, and of statuses of our tasks (SPEC.md section 7).

Steps are numbered as in SPEC.md. Step 6 is skipped: an answer is fresh because it answers an open request of ours. A
refused answer changes no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.message.freshness import check_times
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import check_addressing
from sealbus.envelopes.message.wire import FORMATS, Envelope, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_REPLIES: Final = frozenset({Kind.REPLY, Kind.CHUNK})
_STATUSES: Final = frozenset({Kind.STATUS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultProfile:
    """The requester: its SPIFFE ID, the names of the deployment, and the formats that it accepts."""

    own: SpiffeId
    names: Names
    formats: AbstractSet[int] = FORMATS


class VerifiedResult(NamedTuple):
    """An accepted answer to our request. `accept_reply` and `accept_status` alone make it.

    `body` is as it was signed, not decoded. The policy decides whether the answer may be used.
    """

    header: Header
    body: bytes
    proof: Proof
    credential: Credential
    request: PendingRequest

    @property
    def final(self) -> bool:
        """Whether this is the last answer."""
        return self.header.kind is Kind.REPLY or self.header.fin

    def __repr__(self) -> str:
        return f"VerifiedResult(header={self.header!r}, ...)"


def accept_reply(
    payload: bytes,
    subject: str,
    profile: ResultProfile,
    requests: Mapping[bytes, OpenRequest],
    *,
    trust: Trust,
    caches: Caches,
    now: int,
) -> VerifiedResult:
    """Verify a reply or chunk, record it in its request and return it; raise `EnvelopeError` if it fails a step.

    `requests` are our calls, by H(header). `now` (microseconds) is the reference time.
    """
    envelope, header, request = _open(payload, subject, profile, requests, _REPLIES)
    request.check(header, reference=now)
    # Step 5. Time.
    check_times(header, reference=now, now=now)
    return _verify(envelope, header, request, reference=now, trust=trust, caches=caches)


def accept_status(
    payload: bytes,
    subject: str,
    profile: ResultProfile,
    requests: Mapping[bytes, OpenRequest],
    *,
    stored: int,
    trust: Trust,
    caches: Caches,
) -> VerifiedResult | None:
    """Verify a status, record it in its request and return it; return None if it was counted before.

    `requests` are our tasks, by H(header). `stored` is the broker's stored time (microseconds), which is the reference
    time; `trust` holds the bundles of that time. The reader of the body checks that terminal statuses, and no others, have
    `fin`. Raises `EnvelopeError` if the status fails a step.
    """
    envelope, header, request = _open(payload, subject, profile, requests, _STATUSES)
    if request.counted(header):
        return None
    request.check(header, reference=stored)
    # Step 5. Time; now < exp is not required.
    check_times(header, reference=stored, now=None)
    return _verify(envelope, header, request, reference=stored, trust=trust, caches=caches)


def _open(
    payload: bytes,
    subject: str,
    profile: ResultProfile,
    requests: Mapping[bytes, OpenRequest],
    kinds: AbstractSet[Kind],
) -> tuple[Envelope, Header, OpenRequest]:
    """Apply steps 1 to 4, except the check that this answer may come next."""
    # Step 1. Form.
    envelope = parse_envelope(payload, profile.formats)
    # Step 2. Header.
    header = parse_header(envelope.header)
    # Step 3. Place.
    if header.kind not in kinds:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not handled by this subscription")
    check_addressing(header, subject, profile.names, {})
    # Step 4. Audience, and a request of ours.
    if header.aud != profile.own:
        raise EnvelopeError(Code.WRONG_AUDIENCE, 4)
    request = requests.get(header.re) if header.re is not None else None
    if request is None:
        raise EnvelopeError(Code.UNEXPECTED_REPLY, 4, "answers nothing of ours")
    request.check_sender(header)
    if header.to != request.pending.answers_to(profile.own, profile.names):
        raise EnvelopeError(Code.UNEXPECTED_REPLY, 4, "not on the subject that the request named")
    return envelope, header, request


def _verify(
    envelope: Envelope, header: Header, request: OpenRequest, *, reference: int, trust: Trust, caches: Caches
) -> VerifiedResult:
    """Apply steps 7 to 11, then record the answer."""
    # Step 7. Credential.
    verify_credential(envelope.credential, header, reference=reference, trust=trust, caches=caches)
    # Step 8. Proof.
    verify_proof(envelope.proof, leaf_hash(header.raw), MESSAGE_TYPE, header.key, caches.roots)
    # Step 9. Body.
    if sha256(envelope.body).digest() != header.dig:
        raise EnvelopeError(Code.BAD_DIGEST, 9)
    # Step 10. Context: these kinds have none.
    if envelope.context is not None:
        raise EnvelopeError(Code.BAD_CONTEXT, 10, "present without ctx")
    # Step 11. Chain: nor ancestors.
    if envelope.ancestors:
        raise EnvelopeError(Code.BAD_CHAIN, 11, "present without par")
    request.take(header)
    return VerifiedResult(header, envelope.body, envelope.proof, envelope.credential, request.pending)
