"""Targets: envelopes, headers, user contexts and credentials, unsigned and signed as by their senders."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Final

from fuzz.targets import Target, check_refusal
from support.envelopes import NAMES, TRUST_DOMAIN, agent, task_draft
from support.vectors import load, run
from vectors.issuing import EDGE, NOW, PLANNER, SECOND, base64url, party, signed_by

from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.agents.sdk.token_exchange import context_token as encode_context_token
from sealbus.agents.sdk.token_exchange import parse_context_token
from sealbus.envelopes.accept.live import LiveProfile, Replays, accept_live
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.parked import accept_parked
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.encoding.jws import decode_base64url, split_compact
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import BundleRefused, ConfigurationError, EnvelopeError, SealError
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header, make_header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, Sealer, seal
from sealbus.envelopes.message.subjects import own_subjects
from sealbus.envelopes.message.user_context import ContextDraft, mint_context, parse_payload
from sealbus.envelopes.message.wire import Statement, encode_envelope, parse_envelope
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.credential import ClaimedKey, verify_credential
from sealbus.envelopes.trust.keys import read_public_key, read_signing_key
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, sign_batch
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

SPLIT: Final = b"\n\n"
"""Between the two texts of an input that has two."""
_EDGE: Final = SpiffeId(EDGE)


@cache
def trust() -> Trust:
    """Return the trust in the issuers of all credentials."""
    jwks = load("world.json")["bundles"]["default"]
    return Trust(bundles=TrustBundles(JwtBundle.parse(TrustDomain(name), text.encode()) for name, text in jwks.items()))


@cache
def sealer(iss: str) -> Sealer:
    """Return a sender, whose key and credential are the same in every run: headers and contexts name both."""
    own = party(iss)
    return Sealer(iss=SpiffeId(iss), key=own.key, credential=own.credential, expires=NOW + 3_600 * SECOND)


def planner() -> Sealer:
    """Return the sender of messages."""
    return sealer(PLANNER)


@cache
def context() -> Statement:
    """Return the context of a user, minted by the edge."""
    draft = ContextDraft(
        txn=bytes(16), aud=TRUST_DOMAIN, iat=NOW, exp=NOW + 600_000_000, end=NOW + 3_600_000_000, sub="alice",
        idp="https://idp.example", sid="session-1", cid="shop-web", scp=("stock",), clm={"region": "eu"},
    )  # fmt: skip
    return mint_context(draft, sealer(EDGE))


@cache
def message() -> Sealed:
    """Return a task of a chain of two, for a user."""
    root = seal([task_draft(1, aud="planner", verb="plan")._replace(context=context())], sealer(EDGE))[0]
    return seal([task_draft(2)._replace(context=context(), ancestors=(root.ancestor,))], planner())[0]


def _accept(payload: bytes, subject: str) -> None:
    profile = LiveProfile(
        own=agent("inventory"),
        names=NAMES,
        kinds=frozenset({Kind.TASK, Kind.EVENT}),
        own_subjects=own_subjects(),
        minters=frozenset({_EDGE}),
        lifetimes=Lifetimes(),
    )
    identifier = parse_header(parse_envelope(payload).header).id.hex().encode()
    arrival = StreamArrival(
        subject=subject,
        header_block=b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % identifier,
        stream="TASKS",
        sequence=1,
        stored=NOW,
        created=0,
        delivery=2,
    )
    replays, caches = Replays(ReplayMemory(64), []), Caches()
    accept_live(
        payload, arrival, profile, action="inventory.update", trust=trust(), caches=caches, replays=replays, now=NOW
    )
    digest = sha256(parse_envelope(payload).header).digest()
    if parse_header(parse_envelope(payload).header).kind is Kind.TASK:
        accept_parked(
            payload, digest, arrival, ResultProfile(own=profile.own, names=NAMES), own_subjects={},
            minters=profile.minters, trust=trust(), caches=caches,
        )  # fmt: skip


def envelope(data: bytes) -> None:
    """Step 1."""
    try:
        parsed = parse_envelope(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert encode_envelope(parsed) == data


def _made_again(header: Header) -> Header:
    entries = decode(header.raw, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes, negative=True)
    assert isinstance(entries, dict)
    return make_header({name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()})


def header(data: bytes) -> None:
    """Step 2."""
    try:
        parsed = parse_header(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert _made_again(parsed) == parsed


def user_context(data: bytes) -> None:
    """The payload of a user context."""
    if len(data) > DEFAULT_LIMITS.context_bytes:
        return
    try:
        parsed = parse_payload(data)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert parse_payload(data) == parsed
    assert encode(decode(data, text_bytes=2_048, negative=True), text_bytes=2_048) == data


def value(data: bytes) -> None:
    """Any value of the codec."""
    try:
        decoded = decode(data, negative=True, nil=True)
    except EnvelopeError as error:
        check_refusal(error)
        return
    assert encode(decoded) == data


def live(data: bytes) -> None:
    """All acceptance steps, of whole messages, on a stream and on a subject without one."""
    world = load("world.json")["defaults"]["live"]
    for given in (
        {},
        {
            "stream": None,
            "core": {"memory": 4, "seen": [], "subject": "call.pricing.quote", "started": 0, "audit_created": 0},
        },
    ):
        try:
            run({"profile": "live", "payload": data.hex(), "given": {**given, "own": world["own"]}})
        except EnvelopeError as error:
            check_refusal(error)


def signed_header(data: bytes) -> None:
    """All steps, of a message whose header is signed by its sender."""
    sealed = parse_envelope(message().wire)
    if len(data) > DEFAULT_LIMITS.header_bytes:
        return
    [proof] = sign_batch([leaf_hash(data)], MESSAGE_TYPE, planner().key)
    try:
        parsed = parse_header(data)
        wire = encode_envelope(sealed._replace(header=data, proof=proof))
        _accept(wire, parsed.to)
    except EnvelopeError as error:
        check_refusal(error)


def signed_context(data: bytes) -> None:
    """All steps, of a message with a user context that is signed by its edge."""
    if not 0 < len(data) <= DEFAULT_LIMITS.context_bytes:
        return
    edge = sealer(EDGE)
    [proof] = sign_batch([leaf_hash(data)], CONTEXT_TYPE, edge.key)
    draft = task_draft(2)._replace(context=Statement(data, proof, edge.credential))
    try:
        sealed = seal([draft], planner())[0]
        _accept(sealed.wire, sealed.header.to)
    except EnvelopeError as error:
        check_refusal(error)


def signed_ancestor(data: bytes) -> None:
    """All steps, of a message with these bytes as its ancestor's header, signed by its sender."""
    if not 0 < len(data) <= DEFAULT_LIMITS.header_bytes:
        return
    edge = sealer(EDGE)
    [proof] = sign_batch([leaf_hash(data)], MESSAGE_TYPE, edge.key)
    ancestor = parse_envelope(message().wire).ancestors[0]._replace(header=data, proof=proof)
    sealed = seal([task_draft(2)._replace(context=context(), ancestors=(ancestor,))], planner())[0]
    try:
        _accept(sealed.wire, sealed.header.to)
    except EnvelopeError as error:
        check_refusal(error)


def credential(data: bytes) -> None:
    """Step 7, of a token."""
    claim = ClaimedKey(planner().iss, planner().key.public, sha256(data).digest())
    try:
        verify_credential(Credential(1, data), claim, reference=NOW, trust=trust(), caches=Caches())
    except EnvelopeError as error:
        check_refusal(error)


def signed_credential(data: bytes) -> None:
    """Step 7, of a token with these header and claims, signed by the issuer."""
    jose, _, claims = data.partition(SPLIT)
    signed = f"{base64url(jose)}.{base64url(claims)}".encode()
    credential(signed + b"." + base64url(signed_by("es256", "ES256", signed)).encode())


def result(data: bytes) -> None:
    """The acceptance of replies and statuses."""
    case = load("accept_result.json")[0]
    for given in (case["given"], {**case["given"], "stored": NOW, "subject": "status.planner." + "0" * 32}):
        try:
            run({"profile": "result", "payload": data.hex(), "given": given})
        except EnvelopeError as error:
            check_refusal(error)


def jwks(data: bytes) -> None:
    """A JWT bundle."""
    try:
        bundle = JwtBundle.parse(TRUST_DOMAIN, data)
    except BundleRefused as error:
        check_refusal(error)
        return
    assert len(bundle.keys) <= DEFAULT_LIMITS.bundle_keys


def jws(data: bytes) -> None:
    """The compact form of a JWS, whose signature nobody looks at."""
    with suppress(ValueError):
        parts = split_compact(data)
        assert parts.signed == data[: len(parts.signed)]
    with suppress(ValueError):
        decode_base64url(data)


def strict_json(data: bytes) -> None:
    """JSON by the strict rules."""
    with suppress(ValueError):
        parse_object(data, depth=8)


def handle(data: bytes) -> None:
    """The handle of an open request, which a person may keep, also with its action, and as text."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (PendingRequest.from_text, parse_handle):
        for shown in (text, urlsafe_b64encode(data).rstrip(b"=").decode()):
            try:
                read(shown)
            except EnvelopeError as error:
                check_refusal(error)
    try:
        parsed = PendingRequest.parse(data)
    except (EnvelopeError, SealError) as error:
        check_refusal(error)
        return
    assert parsed.encode() == data
    assert PendingRequest.from_text(parsed.to_text()) == parsed


def context_token(data: bytes) -> None:
    """A user context as the token service answers it."""
    for text in (data.decode("utf-8", "surrogateescape"), urlsafe_b64encode(data).rstrip(b"=").decode()):
        try:
            statement = parse_context_token(text)
        except EnvelopeError as error:
            check_refusal(error)
        else:
            assert encode_context_token(statement) == text


def pem(data: bytes) -> None:
    """Keys that people keep."""
    for read in (read_public_key, read_signing_key):
        try:
            read(data, name="a key")
        except ConfigurationError as error:
            check_refusal(error)


TARGETS: Mapping[str, Target] = {
    "envelope": envelope,
    "header": header,
    "context": user_context,
    "value": value,
    "live": live,
    "signed_header": signed_header,
    "signed_context": signed_context,
    "signed_ancestor": signed_ancestor,
    "credential": credential,
    "signed_credential": signed_credential,
    "result": result,
    "jwks": jwks,
    "jws": jws,
    "strict_json": strict_json,
    "handle": handle,
    "context_token": context_token,
    "pem": pem,
}
