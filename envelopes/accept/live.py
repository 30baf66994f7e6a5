"""The live profile: the checks on a task, a call or an event before the policy is asked (SPEC.md section 7).

Steps are numbered as in SPEC.md. Cheap steps come before expensive ones, and the first failure ends acceptance. Hostile
bytes raise nothing but `EnvelopeError`. The gate does the steps after 13: model, resource, policy and record.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.chain import check_grants, verify_chain
from sealbus.envelopes.message.freshness import (
    CoreArrival,
    StreamArrival,
    check_core,
    check_header_block,
    check_stored,
    check_times,
)
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.restored import RestoredStream, first_created
from sealbus.envelopes.message.subjects import OwnSubjects, check_addressing
from sealbus.envelopes.message.user_context import UserContext, verify_context
from sealbus.envelopes.message.wire import FORMATS, Ancestor, Envelope, Statement, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_STREAM_KINDS: Final = frozenset({Kind.TASK, Kind.EVENT})
_CORE_KINDS: Final = frozenset({Kind.CALL})
_new: Final = tuple.__new__


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProfile:
    """The settings of one subscription of one agent. Raises `ConfigurationError` for a kind that is not live.

    `own` is the agent's SPIFFE ID. `minters` are the workloads that may mint user contexts. `lifetimes` bound user contexts
    and chains. `formats` are the formats that the reader is configured to accept.
    """

    own: SpiffeId
    names: Names
    kinds: frozenset[Kind]
    own_subjects: OwnSubjects = field(default_factory=lambda: MappingProxyType({}))
    minters: AbstractSet[SpiffeId] = frozenset()
    lifetimes: Lifetimes = DEFAULT_LIFETIMES
    formats: AbstractSet[int] = FORMATS

    def __post_init__(self) -> None:
        if not self.kinds or not self.kinds <= _STREAM_KINDS | _CORE_KINDS:
            raise ConfigurationError("a live subscription takes tasks, calls or events")


class VerifiedMessage(NamedTuple):
    """A message that `accept_live` or `accept_parked` accepted. They alone make it, so that having it proves acceptance.

    A live message is genuine, addressed to us, valid now and not seen before. The policy decides whether it may be handled.
    `body` is as it was signed, not decoded.
    """

    header: Header
    body: bytes
    proof: Proof
    credential: Credential
    context: UserContext | None
    statement: Statement | None
    """The signed user context, which child messages carry unmodified."""
    chain: tuple[Header, ...]
    """The headers from the root to this message's own."""
    arrival: StreamArrival | CoreArrival
    ancestors: tuple[Ancestor, ...]
    """The ancestors that a child message carries: this message first, the root last."""

    def __repr__(self) -> str:
        return f"VerifiedMessage(header={self.header!r}, ...)"


def credential_issued(message: VerifiedMessage, *, trust: Trust, caches: Caches) -> int:
    """Return the issue time, in microseconds, of the credential that `message` was sealed with.

    Revocations are compared with this time. Raises `EnvelopeError` as step 7 does: the credential may have been revoked
    since the message passed that step.
    """
    header, arrival = message.header, message.arrival
    return verify_credential(
        message.credential,
        header,
        reference=arrival.stored if isinstance(arrival, StreamArrival) else header.iat,
        trust=trust,
        caches=caches,
    ).iat


class Replays(NamedTuple):
    """The knowledge of step 6: the accepted calls, and the restorations of streams that a notary has signed."""

    memory: ReplayMemory
    restored: Sequence[RestoredStream] = ()


def accept_live(
    payload: bytes,
    arrival: StreamArrival | CoreArrival,
    profile: LiveProfile,
    *,
    action: str,
    trust: Trust,
    caches: Caches,
    replays: Replays,
    now: int,
) -> VerifiedMessage:
    """Verify `payload` by steps 1 to 13 and return its message; raise `EnvelopeError` at the first step that it fails.

    `action` is the action that the subscription is about to do. `now` is microseconds since the Unix epoch, by the clock of
    the bus. Only `caches` and, for a call, the memory of `replays` change. Neither remembers a refused message as accepted.
    """
    # Step 1. Form.
    envelope = parse_envelope(payload, profile.formats)
    # Step 2. Header.
    header = parse_header(envelope.header)
    # Step 3. Place.
    stream = isinstance(arrival, StreamArrival)
    if header.kind not in profile.kinds:
        raise EnvelopeError(Code.WRONG_KIND, 3, "not handled by this subscription")
    if header.kind not in (_STREAM_KINDS if stream else _CORE_KINDS):
        raise EnvelopeError(Code.WRONG_KIND, 3, "does not travel this way")
    check_addressing(header, arrival.subject, profile.names, profile.own_subjects)
    # Step 4. Audience.
    if header.aud is not profile.own and header.aud is not None and header.aud != profile.own:
        raise EnvelopeError(Code.WRONG_AUDIENCE, 4)
    # Step 5. Time.
    reference = arrival.stored if isinstance(arrival, StreamArrival) else now
    check_times(header, reference=reference, now=now)
    # Step 6. Replay.
    if isinstance(arrival, StreamArrival):
        check_header_block(arrival.header_block, header.id)
        # Skipped unless restorations are known: the call would slow down every message.
        created = first_created(arrival, replays.restored) if replays.restored else arrival.created
        check_stored(header, stored=arrival.stored, created=created)
    else:
        check_core(header, arrival=arrival, replay=replays.memory, now=now)
    message = verify_sealed(envelope, header, arrival, profile, reference=reference, trust=trust, caches=caches)
    # Step 12. Grants.
    check_grants(message.chain[:-1], action)
    # Step 13. Remember.
    if not stream:
        until = header.exp + DEFAULT_LIMITS.remembered_after
        replays.memory.remember((header.iss, header.id), until, now=now)
    return message


def verify_sealed(
    envelope: Envelope,
    header: Header,
    arrival: StreamArrival | CoreArrival,
    profile: LiveProfile,
    *,
    reference: int,
    trust: Trust,
    caches: Caches,
) -> VerifiedMessage:
    """Verify a message by steps 7 to 11, which prove what was signed, at the time `reference` (microseconds).

    `header` is the envelope's, parsed. Raises `EnvelopeError` at the first step that the message fails.
    """
    # Step 7. Credential.
    verify_credential(envelope.credential, header, reference=reference, trust=trust, caches=caches)
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
        minters=profile.minters,
        lifetimes=profile.lifetimes,
        trust=trust,
        caches=caches,
    )
    # Step 11. Chain.
    parents = verify_chain(
        header,
        envelope.ancestors,
        context,
        reference=reference,
        lifetimes=profile.lifetimes,
        trust=trust,
        caches=caches,
    )
    _, raw, body, proof, credential, statement, ancestors = envelope
    chain = (*parents[::-1], header)
    itself = _new(Ancestor, (raw, proof, credential))
    parts = (header, body, proof, credential, context, statement, chain, arrival, (itself, *ancestors))
    return _new(VerifiedMessage, parts)
