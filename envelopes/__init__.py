r"""The sealed envelope: who sent a message, for whom, through which hops, and that nothing in it changed (SPEC.md).

Pure: bytes, values, times, trust bundles and bounded caches go in; values or an error of `errors` come out. No clock,
no randomness, no I/O. Names are loaded when first used. The function `seal` is imported from the module of its name.

    >>> import json
    >>> from base64 import urlsafe_b64encode
    >>> from cryptography.hazmat.primitives.asymmetric import ec
    >>> from sealbus.envelopes import (
    ...     Caches, Credential, Draft, JwtBundle, Kind, LiveProfile, Names, ReplayMemory, Replays, Sealer, SigningKey,
    ...     SpiffeId, StreamArrival, Trust, TrustBundles, TrustDomain, accept_live)
    >>> from sealbus.envelopes.message.seal import seal

A stand-in for SPIRE vouches for a key that the planner has just made, and publishes its bundle:

    >>> issuer, key = (SigningKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
    >>> domain, now = TrustDomain("example.org"), 1_764_000_000_000_000
    >>> b64 = lambda data: urlsafe_b64encode(data).rstrip(b"=").decode()
    >>> claims = {"sub": "spiffe://example.org/agent/planner", "aud": key.public.thumbprint,
    ...           "iat": now // 1_000_000, "exp": now // 1_000_000 + 300}
    >>> signed = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "ES256", "kid": "1"}, claims))
    >>> token = f"{signed}.{b64(issuer.sign(signed.encode()))}".encode()
    >>> x, y = b64(issuer.public.raw[:32]), b64(issuer.public.raw[32:])
    >>> jwks = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]}).encode()

The planner seals an event, and the inventory opens what it received from the stream:

    >>> planner = Sealer(iss=SpiffeId("spiffe://example.org/agent/planner"), key=key,
    ...                  credential=Credential(1, token), expires=now + 300_000_000)
    >>> draft = Draft(kind=Kind.EVENT, id=bytes.fromhex("019ab5e3d80070008000000000000001"), to="event.planner.done",
    ...               iat=now, exp=now + 60_000_000, body=b"{}", typ="application/json")
    >>> [sealed] = seal([draft], planner)
    >>> message = accept_live(
    ...     sealed.wire,
    ...     StreamArrival(subject="event.planner.done", stream="EVENTS", sequence=1, stored=now, created=0, delivery=1,
    ...                   header_block=b"NATS/1.0\r\nNats-Msg-Id: 019ab5e3d80070008000000000000001\r\n\r\n"),
    ...     LiveProfile(own=SpiffeId("spiffe://example.org/agent/inventory"), names=Names(domain),
    ...                 kinds=frozenset({Kind.EVENT})),
    ...     action="planner.done", trust=Trust(bundles=TrustBundles([JwtBundle.parse(domain, jwks)])),
    ...     caches=Caches(), replays=Replays(ReplayMemory(1)), now=now)
    >>> str(message.header.iss), message.body
    ('spiffe://example.org/agent/planner', b'{}')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sealbus.envelopes.accept.live import (
        CoreArrival,
        LiveProfile,
        Replays,
        StreamArrival,
        VerifiedMessage,
        accept_live,
    )
    from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
    from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_reply, accept_status
    from sealbus.envelopes.errors import Code, EnvelopeError, SealbusError, SealError
    from sealbus.envelopes.lifetimes import Lifetimes
    from sealbus.envelopes.limits import DEFAULT_LIMITS, Limits
    from sealbus.envelopes.message.header import Header
    from sealbus.envelopes.message.kinds import Kind
    from sealbus.envelopes.message.seal import Draft, Sealed, Sealer
    from sealbus.envelopes.message.subjects import OwnSubject
    from sealbus.envelopes.message.user_context import ContextDraft, UserContext, mint_context
    from sealbus.envelopes.message.wire import Ancestor, Statement
    from sealbus.envelopes.records.archive import (
        ArchiveProfile,
        VerifiedAudit,
        VerifiedDecided,
        accept_decided,
        accept_record,
    )
    from sealbus.envelopes.records.batch import AuditBatch
    from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
    from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord, PolicyRecord
    from sealbus.envelopes.records.record import Record, guard_id, parse_record
    from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
    from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
    from sealbus.envelopes.trust.caches import Caches, ReplayMemory
    from sealbus.envelopes.trust.keys import PublicKey, SigningKey
    from sealbus.envelopes.trust.names import Names
    from sealbus.envelopes.trust.proof import Credential, Proof
    from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_HOMES: Final = {
    "accept.live": "CoreArrival LiveProfile Replays StreamArrival VerifiedMessage accept_live",
    "accept.open_request": "OpenRequest PendingRequest",
    "accept.result": "ResultProfile VerifiedResult accept_reply accept_status",
    "errors": "Code EnvelopeError SealError SealbusError",
    "lifetimes": "Lifetimes",
    "limits": "DEFAULT_LIMITS Limits",
    "message.header": "Header",
    "message.kinds": "Kind",
    "message.seal": "Draft Sealed Sealer",
    "message.subjects": "OwnSubject",
    "message.user_context": "ContextDraft UserContext mint_context",
    "message.wire": "Ancestor Statement",
    "trust.proof": "Credential Proof",
    "records.archive": "ArchiveProfile VerifiedAudit VerifiedDecided accept_decided accept_record",
    "records.batch": "AuditBatch",
    "records.decision": "CorePlace DecisionRecord StreamPlace",
    "records.notary": "BundleRecord CheckpointRecord PolicyRecord",
    "records.record": "Record guard_id parse_record",
    "records.work": "DenialsRecord OutcomeRecord",
    "trust.bundles": "JwtBundle Trust TrustBundles",
    "trust.caches": "Caches ReplayMemory",
    "trust.keys": "PublicKey SigningKey",
    "trust.names": "Names",
    "trust.spiffe_id": "SpiffeId TrustDomain",
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "DEFAULT_LIMITS",
    "Ancestor",
    "ArchiveProfile",
    "AuditBatch",
    "BundleRecord",
    "Caches",
    "CheckpointRecord",
    "Code",
    "ContextDraft",
    "CoreArrival",
    "CorePlace",
    "Credential",
    "DecisionRecord",
    "DenialsRecord",
    "Draft",
    "EnvelopeError",
    "Header",
    "JwtBundle",
    "Kind",
    "Lifetimes",
    "Limits",
    "LiveProfile",
    "Names",
    "OpenRequest",
    "OutcomeRecord",
    "OwnSubject",
    "PendingRequest",
    "PolicyRecord",
    "Proof",
    "PublicKey",
    "Record",
    "ReplayMemory",
    "Replays",
    "ResultProfile",
    "SealError",
    "SealbusError",
    "Sealed",
    "Sealer",
    "SigningKey",
    "SpiffeId",
    "Statement",
    "StreamArrival",
    "StreamPlace",
    "Trust",
    "TrustBundles",
    "TrustDomain",
    "UserContext",
    "VerifiedAudit",
    "VerifiedDecided",
    "VerifiedMessage",
    "VerifiedResult",
    "accept_decided",
    "accept_live",
    "accept_record",
    "accept_reply",
    "accept_status",
    "guard_id",
    "mint_context",
    "parse_record",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use, so that the error tree loads without the cryptography."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
