"""The user context: the edge's signed statement about the user behind a chain of messages (SPEC.md section 6; step 10)."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.lifetimes import Lifetimes
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, sign_batch, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ClaimValue: TypeAlias = "str | int | bool | tuple[str, ...]"
"""Values of `clm`; integers within +-(2^53-1)."""
STANDING: Final = "standing-"
"""The beginning of the session in contexts of a schedule that acts for an absent user. No other session begins with it."""
_SESSION_BYTES: Final = 16

_MUST: Final = frozenset(
    {"v", "txn", "iss", "aud", "iat", "exp", "end", "key", "crd", "sub", "idp", "sid", "cid", "scp", "clm"}
)
_MAY: Final = frozenset({"ten", "wkl", "acr", "amr", "aut", "req", "typ", "dom"})
_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND


class SubjectType(StrEnum):
    """The type of a context's subject that is not a user."""

    CLIENT = "client"
    """An OAuth client that acts for itself."""
    WORKLOAD = "workload"
    """A workload of a cloud or of CI, outside our trust domain, that an identity provider vouches for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserContext:
    """A user context with a well-formed payload. `parse_payload` alone makes it.

    Times are microseconds since the Unix epoch, `iat < exp <= end <= iat + 24 h`. `verify_context` verifies the signer; this
    class does not. Absent entries are None. Without `typ`, the subject is a user. Without `dom`, it is of our own domain;
    with `dom`, `sub` ends with `@` and that domain. The `repr` shows no user.

    Contexts are compared by identity, because Python takes 1 and `true` for equal and a policy does not.
    """

    txn: bytes
    iss: SpiffeId
    aud: TrustDomain
    iat: int
    exp: int
    end: int
    key: PublicKey
    crd: bytes
    sub: str
    idp: str
    sid: str
    cid: str
    scp: tuple[str, ...]
    clm: Mapping[str, ClaimValue]
    ten: str | None
    wkl: SpiffeId | None
    acr: str | None
    amr: tuple[str, ...] | None
    aut: int | None
    req: Mapping[str, str] | None
    typ: SubjectType | None
    dom: TrustDomain | None

    def __repr__(self) -> str:
        return f"UserContext(iss={self.iss.value!r}, iat={self.iat!r}, ...)"


def parse_payload(payload: bytes, *, step: int = 10) -> UserContext:
    """Parse a context; raise `EnvelopeError` (`bad_context`, `step`) for any other bytes.

    Step 1 checks the size of `payload`.
    """
    try:
        return _parsed(payload)
    except EnvelopeError as error:
        raise EnvelopeError(Code.BAD_CONTEXT, step, error.detail) from error


@lru_cache(maxsize=256)
def _parsed(payload: bytes) -> UserContext:
    """Return the context in `payload`. Cached: an edge parses each to mint it, to send it and to decide on the answer."""
    fields = decode(
        payload,
        entries=DEFAULT_LIMITS.context_bytes,
        text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
        negative=True,
    )
    if type(fields) is not dict:
        raise _misshapen("not a map")
    return _typed(fields)


def _typed(fields: dict[str, Value]) -> UserContext:
    if not _MUST <= fields.keys() <= _MUST | _MAY:
        raise _misshapen("keys")
    version = fields["v"]
    if type(version) is not int or version != 1:
        raise _misshapen("v")
    iat, exp, end = _time(fields["iat"]), _time(fields["exp"]), _time(fields["end"])
    if not iat < exp:
        raise _misshapen("exp is not after iat")
    if not exp <= end:
        raise _misshapen("end is before exp")
    if end > iat + _LONGEST:
        raise _misshapen("end is over 24 h after iat")
    present = fields.keys()
    dom = TrustDomain(_text(fields["dom"])) if "dom" in present else None
    return UserContext(
        txn=_bytes(fields["txn"], 16),
        iss=SpiffeId.parse(_text(fields["iss"], DEFAULT_LIMITS.spiffe_id_bytes)),
        aud=TrustDomain(_text(fields["aud"])),
        iat=iat,
        exp=exp,
        end=end,
        key=PublicKey.parse(_bytes(fields["key"], 64)),
        crd=_bytes(fields["crd"], 32),
        sub=_subject(fields["sub"], dom),
        idp=_text(fields["idp"]),
        sid=_text(fields["sid"]),
        cid=_text(fields["cid"]),
        scp=_texts(fields["scp"]),
        clm=MappingProxyType({name: _claim(item) for name, item in _map(fields["clm"]).items()}),
        ten=_text(fields["ten"]) if "ten" in present else None,
        wkl=SpiffeId.parse(_text(fields["wkl"], DEFAULT_LIMITS.spiffe_id_bytes)) if "wkl" in present else None,
        acr=_text(fields["acr"]) if "acr" in present else None,
        amr=_texts(fields["amr"]) if "amr" in present else None,
        aut=_time(fields["aut"]) if "aut" in present else None,
        req=MappingProxyType({name: _text(item) for name, item in _map(fields["req"]).items()})
        if "req" in present
        else None,
        typ=_subject_type(fields["typ"]) if "typ" in present else None,
        dom=dom,
    )


def _text(value: Value, limit: int = DEFAULT_LIMITS.text_bytes) -> str:
    # The decoder has checked the characters, and the length by the limit of the longest text of a context.
    if type(value) is not str or len(value.encode()) > limit:
        raise _misshapen("text")
    return value


def _subject(value: Value, dom: TrustDomain | None) -> str:
    subject = _text(value)
    # So a reader that looks at `sub` alone never takes a foreign user for one of ours.
    if dom is not None and not (subject.endswith(f"@{dom.name}") and len(subject) > len(dom.name) + 1):
        raise _misshapen("sub is not of dom")
    return subject


def _subject_type(value: Value) -> SubjectType:
    try:
        return SubjectType(_text(value))
    except ValueError as error:
        raise _misshapen("typ") from error


def _texts(value: Value) -> tuple[str, ...]:
    # The decoder has checked that there are at most 32 items.
    if type(value) is not list:
        raise _misshapen("array of text")
    return tuple([_text(item) for item in value])


def _time(value: Value) -> int:
    # The decoder has checked that it is below 2^53.
    if type(value) is not int or value < 0:
        raise _misshapen("time")
    return value


def _bytes(value: Value, length: int) -> bytes:
    if type(value) is not bytes or len(value) != length:
        raise _misshapen("bytes")
    return value


def _map(value: Value) -> dict[str, Value]:
    if type(value) is not dict:
        raise _misshapen("map")
    for name in value:
        _text(name)
    return value


def _claim(value: Value) -> ClaimValue:
    if type(value) is int or type(value) is bool:
        return value
    return _texts(value) if type(value) is list else _text(value)


def _misshapen(detail: str) -> EnvelopeError:
    # `parse_payload` replaces the step by its caller's.
    return EnvelopeError(Code.BAD_CONTEXT, 10, f"payload: {detail}")


class ContextDraft(NamedTuple):
    """A user context before it is minted: the payload's entries, except those that the minting edge adds.

    `mint_context` checks it. It must not contain a token or secret.
    """

    txn: bytes
    aud: TrustDomain
    iat: int
    exp: int
    end: int
    sub: str
    idp: str
    sid: str
    cid: str
    scp: tuple[str, ...] = ()
    clm: Mapping[str, ClaimValue] | None = None
    ten: str | None = None
    wkl: SpiffeId | None = None
    acr: str | None = None
    amr: tuple[str, ...] | None = None
    aut: int | None = None
    req: Mapping[str, str] | None = None
    typ: SubjectType | None = None
    dom: TrustDomain | None = None

    def __repr__(self) -> str:
        return "ContextDraft(...)"


def mint_context(draft: ContextDraft, sealer: Sealer) -> Statement:
    """Return `draft` as a statement that `sealer`, an edge, has signed; a batch of one.

    H(payload) is the `ctx` of the messages that carry the statement. Raises `SealError` for a form, size or time that a
    reader would refuse at step 10, or for a credential that ends before `iat`. Readers decide whether this edge may mint.
    """
    if draft.iat >= sealer.expires:
        raise SealError("the credential expires before the context is minted")
    fields: dict[str, Value | None] = {
        **draft._asdict(),
        "v": 1,
        "iss": sealer.iss.value,
        "key": sealer.key.public.raw,
        "crd": sealer.crd,
        "aud": draft.aud.name,
        "wkl": draft.wkl.value if draft.wkl is not None else None,
        "scp": list(draft.scp),
        "clm": {name: list(claim) if isinstance(claim, tuple) else claim for name, claim in (draft.clm or {}).items()},
        "amr": list(draft.amr) if draft.amr is not None else None,
        "req": dict(draft.req) if draft.req is not None else None,
        "typ": draft.typ.value if draft.typ is not None else None,
        "dom": draft.dom.name if draft.dom is not None else None,
    }
    present: dict[str, Value] = {name: value for name, value in fields.items() if value is not None}
    payload = encode(present, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)
    if len(payload) > DEFAULT_LIMITS.context_bytes:
        raise SealError("user context: over 8,192 bytes")
    try:
        parse_payload(payload)
    except EnvelopeError as error:
        raise SealError(f"user context: {error.detail}") from error
    [proof] = sign_batch([leaf_hash(payload)], CONTEXT_TYPE, sealer.key)
    return Statement(payload, proof, sealer.credential)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CachedContext:
    """A context with verified form, and a proof that holds under its own key. The key's holder is not verified."""

    payload: bytes
    proof: Proof
    context: UserContext


def parsed_context(payload: bytes, ctx: bytes, caches: Caches) -> UserContext:
    """Parse the context `payload`, whose hash is `ctx`; cheap for a verified context. Nothing is verified.

    Raises `EnvelopeError` (`bad_context`, step 10).
    """
    cached = caches.contexts.get(ctx)
    return (
        cached.context if isinstance(cached, _CachedContext) and cached.payload == payload else parse_payload(payload)
    )


def verify_context(
    statement: Statement | None,
    ctx: bytes | None,
    *,
    trust_domain: TrustDomain,
    minters: AbstractSet[SpiffeId],
    lifetimes: Lifetimes,
    trust: Trust,
    caches: Caches,
    step: int = 10,
) -> UserContext | None:
    """Step 10: return the user context of a message whose header says `ctx`, None if it has none.

    Raises `EnvelopeError`, counted at `step`: `bad_context`, `context_issuer_refused`, and the codes of steps 7 and 8,
    which are applied at the context's own `iat`. `trust_domain` is the reader's own. `minters` are the workloads that may
    mint, and `lifetimes` bound the contexts' lives.

    Form and proof are cached by `ctx`; audience, life, issuer and credential are checked at every call. Step 11 checks how
    the context's times and `wkl` fit the chain.
    """
    if statement is None:
        if ctx is None:
            return None
        raise EnvelopeError(Code.BAD_CONTEXT, step, "missing")
    # No hash equals None, so a context without `ctx` in the header is refused like a wrong context.
    cached = caches.contexts.get(ctx)
    remembered = cached if isinstance(cached, _CachedContext) and cached.payload == statement.payload else None
    if remembered is None and sha256(statement.payload).digest() != ctx:
        raise EnvelopeError(Code.BAD_CONTEXT, step, "ctx")
    context = parse_payload(statement.payload, step=step) if remembered is None else remembered.context
    if context.aud.name != trust_domain.name:
        raise EnvelopeError(Code.BAD_CONTEXT, step, "aud is another trust domain")
    if context.exp - context.iat > lifetimes.context_start:
        raise EnvelopeError(Code.BAD_CONTEXT, step, "chains may start with it for too long")
    if context.end - context.iat > lifetimes.context_life:
        raise EnvelopeError(Code.BAD_CONTEXT, step, "lives too long")
    if context.iss not in minters:
        raise EnvelopeError(Code.CONTEXT_ISSUER_REFUSED, step)
    # Step 7, inside step 10.
    verify_credential(statement.credential, context, reference=context.iat, trust=trust, caches=caches, step=step)
    # Step 8, inside step 10.
    if remembered is None or remembered.proof != statement.proof:
        try:
            verify_proof(statement.proof, leaf_hash(statement.payload), CONTEXT_TYPE, context.key, caches.roots)
        except EnvelopeError as error:
            raise error.at_step(step) from error
        caches.contexts.put(ctx, _CachedContext(payload=statement.payload, proof=statement.proof, context=context))
    return context


def standing_session(grant: bytes) -> str:
    """Return the session for contexts that rest on the standing grant in the message with H(header) `grant`."""
    return STANDING + grant[:_SESSION_BYTES].hex()
