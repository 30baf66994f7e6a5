"""NATS' JWTs: signed by the issuer that they name, or refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.control.callout.nkeys import JWT_BYTES, NkeyError, Prefix, SigningKey, decode_jwt, encode_jwt

KEY = SigningKey.generate(Prefix.ACCOUNT)
HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(header: object, claims: object, key: SigningKey = KEY) -> bytes:
    text = f"{part(header)}.{part(claims)}"
    return f"{text}.{part(key.sign(text.encode()))}".encode()


def test_claims_come_back_with_issuer_and_time() -> None:
    token = encode_jwt({"sub": "U", "nats": {"type": "user"}}, KEY, issued=1_700_000_000)
    claims = decode_jwt(token.encode(), Prefix.ACCOUNT)
    assert (claims["sub"], claims["nats"], claims["iss"]) == ("U", {"type": "user"}, KEY.public)
    assert claims["iat"] == 1_700_000_000
    assert claims["jti"]
    header, _, _ = token.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == HEADER


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"..",
        b"a.b",
        b"a.b.c.d",
        b"\xff.\xff.\xff",
        b"x" * (JWT_BYTES + 1),
        signed({**HEADER, "alg": "none"}, {"iss": KEY.public}),
        signed({**HEADER, "alg": "ed25519"}, {"iss": KEY.public}),
        signed({**HEADER, "kid": "x"}, {"iss": KEY.public}),
        signed(HEADER, {}),
        signed(HEADER, {"iss": 1}),
        signed(HEADER, {"iss": SigningKey.generate(Prefix.ACCOUNT).public}),
        signed(HEADER, [KEY.public]),
        signed(HEADER, b'{"iss":"' + KEY.public.encode() + b'","iss":"x"}'),
        signed(HEADER, {"iss": KEY.public})[:-4],
        signed(HEADER, {"iss": KEY.public}) + b"=",
    ],
)
def test_anything_else_is_refused(token: bytes) -> None:
    with pytest.raises(NkeyError):
        decode_jwt(token, Prefix.ACCOUNT)


def test_an_issuer_of_another_kind_is_refused() -> None:
    with pytest.raises(NkeyError):
        decode_jwt(signed(HEADER, {"iss": KEY.public}), Prefix.SERVER)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_error(token: bytes) -> None:
    with pytest.raises(NkeyError):
        decode_jwt(token, Prefix.ACCOUNT)
