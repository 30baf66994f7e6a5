"""Sealing: drafts become signed envelopes, with one signature for a whole batch (SPEC.md sections 2 to 4).

::

    sealer = Sealer(iss=iss, key=key, credential=Credential(1, token), expires=expires)
    for sealed in seal([draft, another], sealer):
        ...  # publish sealed.wire
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.message.header import Header, make_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.wire import FORMAT, Ancestor, Statement, check_attached
from sealbus.envelopes.trust.keys import SigningKey
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import JWT_SVID, Credential
from sealbus.envelopes.trust.signature import MESSAGE_TYPE, sign_batch
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_BODY_BYTES: Final = DEFAULT_LIMITS.body_bytes
_RECORD: Final = Kind.RECORD
_new: Final = tuple.__new__


class Draft(NamedTuple):
    """A message before it is sealed: the header's entries, except those that the sealer adds or that follow from others.

    `ctx` follows from `context` and `par` from the first of `ancestors`, as hashes. So does `dig` from `body`; only a record
    states it, as the root of SPEC.md section 8. `seal` checks drafts. A named tuple, because every message has a draft.
    """

    kind: Kind
    to: str
    body: bytes
    typ: str
    id: bytes = b""
    """Required before sealing, as are `iat`, `exp` and, for a task or call, `end`."""
    iat: int = 0
    exp: int = 0
    end: int | None = None
    aud: SpiffeId | None = None
    sch: str | None = None
    context: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    """The message that is being handled, then its own ancestors."""
    re: bytes | None = None
    rpl: str | None = None
    seq: int | None = None
    fin: bool = False
    grt: tuple[str, ...] | None = None
    idm: str | None = None
    tid: bytes | None = None
    ext: Mapping[str, ExtValue] | None = None
    dig: bytes | None = None

    def __repr__(self) -> str:
        return f"Draft(kind={self.kind!r}, to={self.to!r}, ...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """A sender: its SPIFFE ID, its key, and the credential that vouches for both until `expires` (microseconds).

    Raises `SealError` for a token of a kind or size that no reader accepts. The token is not verified.
    """

    iss: SpiffeId
    key: SigningKey
    credential: Credential
    expires: int
    crd: bytes = field(init=False)
    """H(token), for the header."""

    def __post_init__(self) -> None:
        if type(self.credential.kind) is not int or self.credential.kind != JWT_SVID:
            raise SealError("credential kind: 1 is the only one")
        if not 0 < len(self.credential.token) <= DEFAULT_LIMITS.token_bytes:
            raise SealError("credential token: 1 to 4,096 bytes")
        object.__setattr__(self, "crd", sha256(self.credential.token).digest())


class Sealed(NamedTuple):
    """A sealed message: the bytes to publish, its header, and the first ancestor for its children."""

    wire: bytes
    header: Header
    ancestor: Ancestor

    def __repr__(self) -> str:
        return f"Sealed(header={self.header!r}, ...)"


def seal(drafts: Sequence[Draft], sealer: Sealer) -> list[Sealed]:
    """Seal 1 to 4,096 drafts under one signature and return them in the same order.

    Seals all or none: raises `SealError` if a reader would refuse any of them at step 1 or 2, or for its credential's age.
    Of subjects, chain and context, only the form is checked.
    """
    headers = [_header(draft, sealer) for draft in drafts]
    proofs = sign_batch([leaf_hash(header.raw) for header in headers], MESSAGE_TYPE, sealer.key)
    credential = sealer.credential
    sealed = []
    for draft, header, proof in zip(drafts, headers, proofs, strict=True):
        # Each part is within its limit, so the whole is within its own.
        wire = pack((FORMAT, header.raw, draft.body, proof, credential, draft.context, draft.ancestors))
        sealed.append(_new(Sealed, (wire, header, _new(Ancestor, (header.raw, proof, credential)))))
    return sealed


@lru_cache(maxsize=128)
def _attached(context: Statement | None, ancestors: tuple[Ancestor, ...]) -> tuple[bytes | None, bytes | None]:
    """Return `ctx` and `par` for the attachments of a message, checked as in step 1.

    Cached, because all messages of a chain carry the same attachments.
    """
    check_attached(context, ancestors)
    return (
        sha256(context.payload).digest() if context is not None else None,
        sha256(ancestors[0].header).digest() if ancestors else None,
    )


def _header(draft: Draft, sealer: Sealer) -> Header:
    """Return the header of `draft`, checked by the rules by which readers parse it."""
    (
        kind, to, body, typ, ident, iat, exp, end, aud, sch, context, ancestors, re_, rpl, seq, fin, grt, idm, tid, ext,
        dig,
    ) = draft  # fmt: skip
    if iat >= sealer.expires:
        raise SealError("the credential expires before the message is made")
    if (kind is _RECORD) is (dig is None):
        raise SealError("dig: records have it, and no other kind does")
    if type(body) is not bytes or len(body) > _BODY_BYTES:
        raise SealError("body: bytes, at most 917,504")
    ctx = par = None
    if context is not None or ancestors:
        try:
            ctx, par = _attached(context, ancestors)
        except TypeError as error:
            raise SealError("context or ancestors: a part is not a value") from error
    # The order of the keys is that of the encoding.
    entries: dict[str, object] = {}
    if aud is not None:
        entries["aud"] = aud.value
    entries["crd"] = sealer.crd
    if ctx is not None:
        entries["ctx"] = ctx
    entries["dig"] = sha256(body).digest() if dig is None else dig
    if end is not None:
        entries["end"] = end
    entries["exp"] = exp
    if ext is not None:
        entries["ext"] = {key: ext[key] for key in sorted(ext)}
    if fin:
        entries["fin"] = fin
    if grt is not None:
        entries["grt"] = tuple(grt)
    entries["iat"] = iat
    entries["id"] = ident
    if idm is not None:
        entries["idm"] = idm
    entries["iss"] = sealer.iss.value
    entries["key"] = sealer.key.public.raw
    if par is not None:
        entries["par"] = par
    if re_ is not None:
        entries["re"] = re_
    if rpl is not None:
        entries["rpl"] = rpl
    if sch is not None:
        entries["sch"] = sch
    if seq is not None:
        entries["seq"] = seq
    entries["t"] = kind.value
    if tid is not None:
        entries["tid"] = tid
    entries["to"] = to
    entries["typ"] = typ
    header = make_header(entries)
    if len(header.raw) > DEFAULT_LIMITS.header_bytes:
        raise SealError("header: over 8,192 bytes")
    return header
