"""NATS' JWTs, as far as the auth callout has them: compact, Ed25519, the issuer's nkey in `iss`.

Claims stand in `nats` beside the registered ones (github.com/nats-io/jwt, version 2). Nothing of a JWT is looked at
before its signature holds, but for `iss`, which says whose it should be.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import Final

from sealbus.agents.control.callout.nkeys import NkeyError, Prefix, SigningKey, verify
from sealbus.envelopes.strict_json import Json, parse_object

__all__ = ["MAX_BYTES", "decode_jwt", "encode_jwt"]

MAX_BYTES: Final = 262_144
"""Longest JWT that is read: certificate chains make a request a few kilobytes long."""

_HEADER: Final[Mapping[str, Json]] = {"typ": "JWT", "alg": "ed25519-nkey"}
_NESTING: Final = 8


def encode_jwt(claims: Mapping[str, object], key: SigningKey, *, issued: int) -> str:
    """Return `claims` signed by `key`, whose public nkey becomes `iss`; `issued` is `iat`, in seconds."""
    body: dict[str, object] = {**claims, "iss": key.public, "iat": issued, "jti": secrets.token_hex(16)}
    signed = f"{_encoded(_json(_HEADER))}.{_encoded(_json(body))}"
    return f"{signed}.{_encoded(key.sign(signed.encode()))}"


def decode_jwt(token: bytes, prefix: Prefix) -> dict[str, Json]:
    """Return the claims of a JWT that an nkey of `prefix` signed, `iss`; raise `NkeyError` for anything else.

    Who `iss` is, what the JWT is for and until when, is for the caller.
    """
    if len(token) > MAX_BYTES:
        raise NkeyError(f"a JWT of {len(token)} bytes")
    parts = token.split(b".")
    if len(parts) != 3:
        raise NkeyError("not three parts")
    try:
        header, claims = (parse_object(_decoded(part), depth=_NESTING) for part in parts[:2])
        signature = _decoded(parts[2])
    except ValueError as error:
        raise NkeyError("not a JWT") from error
    if header != _HEADER:
        raise NkeyError("another kind of JWT, or another algorithm")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise NkeyError("a JWT without an issuer")
    verify(issuer, prefix, signature, parts[0] + b"." + parts[1])
    return claims


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(part: bytes) -> bytes:
    data = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    if _encoded(data).encode() != part:
        raise ValueError("another spelling of the same bytes")
    return data
