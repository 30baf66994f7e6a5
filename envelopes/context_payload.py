"""The payload of a user context: its table of keys, parsed into a typed value (SPEC.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from sealbus.envelopes.codec import Value, decode
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.keys import PublicKey
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.spiffe_id import SpiffeId, TrustDomain

__all__ = ["ClaimValue", "UserContext", "parse_payload"]

ClaimValue: TypeAlias = "str | int | bool | tuple[str, ...]"
"""What `clm` may hold; integers within +-(2^53-1)."""

_MUST: Final = frozenset(
    {"v", "txn", "iss", "aud", "iat", "exp", "end", "key", "crd", "sub", "idp", "sid", "cid", "scp", "clm"}
)
_MAY: Final = frozenset({"ten", "wkl", "acr", "amr", "aut", "req"})
_LONGEST: Final = DEFAULT_LIMITS.live_seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    """A user context whose payload is well formed. Made by `parse_payload` only.

    Times are microseconds since the Unix epoch, `iat < exp <= end <= iat + 24 h`. Holding one says nothing about who
    signed it: `verify_context` does. Absent entries are None. Its text shows no user.
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

    def __repr__(self) -> str:
        return f"UserContext(iss={self.iss.value!r}, iat={self.iat!r}, ...)"


def parse_payload(payload: bytes, *, step: int = 10) -> UserContext:
    """Return the context that `payload` encodes; raise `EnvelopeError` (`bad_context`, `step`) for any other bytes.

    The size of `payload` is for step 1.
    """
    try:
        fields = decode(
            payload,
            entries=DEFAULT_LIMITS.context_bytes,
            text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
            negative=True,
        )
        if type(fields) is not dict:
            raise _misshapen("not a map")
        return _typed(fields)
    except EnvelopeError as error:
        raise EnvelopeError(Code.BAD_CONTEXT, step, error.detail) from error


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
    return UserContext(
        txn=_bytes(fields["txn"], 16),
        iss=SpiffeId.parse(_text(fields["iss"], DEFAULT_LIMITS.spiffe_id_bytes)),
        aud=TrustDomain(_text(fields["aud"])),
        iat=iat,
        exp=exp,
        end=end,
        key=PublicKey.parse(_bytes(fields["key"], 64)),
        crd=_bytes(fields["crd"], 32),
        sub=_text(fields["sub"]),
        idp=_text(fields["idp"]),
        sid=_text(fields["sid"]),
        cid=_text(fields["cid"]),
        scp=_texts(fields["scp"]),
        clm=_claims(fields["clm"]),
        ten=_text(fields["ten"]) if "ten" in present else None,
        wkl=SpiffeId.parse(_text(fields["wkl"], DEFAULT_LIMITS.spiffe_id_bytes)) if "wkl" in present else None,
        acr=_text(fields["acr"]) if "acr" in present else None,
        amr=_texts(fields["amr"]) if "amr" in present else None,
        aut=_time(fields["aut"]) if "aut" in present else None,
        req=_facts(fields["req"]) if "req" in present else None,
    )


def _text(value: Value, limit: int = DEFAULT_LIMITS.text_bytes) -> str:
    # Characters were checked when it was decoded, with the limit of the longest text that may stand anywhere here.
    if type(value) is not str or len(value.encode()) > limit:
        raise _misshapen("text")
    return value


def _texts(value: Value) -> tuple[str, ...]:
    # At most 32 items: so much for the decoder.
    if type(value) is not list:
        raise _misshapen("array of text")
    return tuple([_text(item) for item in value])


def _time(value: Value) -> int:
    # Below 2^53: so much for the decoder.
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


def _claims(value: Value) -> Mapping[str, ClaimValue]:
    return MappingProxyType({name: _claim(item) for name, item in _map(value).items()})


def _claim(value: Value) -> ClaimValue:
    if type(value) is int or type(value) is bool:
        return value
    return _texts(value) if type(value) is list else _text(value)


def _facts(value: Value) -> Mapping[str, str]:
    return MappingProxyType({name: _text(item) for name, item in _map(value).items()})


def _misshapen(detail: str) -> EnvelopeError:
    # Its step is the caller's: see `parse_payload`.
    return EnvelopeError(Code.BAD_CONTEXT, 10, f"payload: {detail}")
