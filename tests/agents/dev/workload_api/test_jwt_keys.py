"""JWT-SVIDs as the authority mints them, and what `ValidateJWTSVID` takes for one."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from support.envelopes import NOW

from sealbus.agents.dev.workload_api.jwt_keys import TokenError, check_token, issue_token, jwks, make_jwt_key
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import TrustDomain

HOME, AWAY = TrustDomain("example.org"), TrustDomain("other.org")
ME = HOME.id("/agent/web")
KEY, OTHER = make_jwt_key(), make_jwt_key()
KEYS = {KEY.kid: (HOME, KEY), OTHER.kid: (AWAY, OTHER)}
GOOD = issue_token(KEY, ME, ["one", "two"], now=NOW, ttl=300)


def part(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def read(text: str) -> dict[str, object]:
    found = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert isinstance(found, dict)
    return found


def test_a_token_says_who_for_whom_and_until_when_and_nothing_else() -> None:
    header, claims, signature = GOOD.token.split(".")
    assert read(header) == {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"}
    assert read(claims) == {
        "aud": ["one", "two"],
        "exp": NOW // SECOND + 300,
        "iat": NOW // SECOND,
        "sub": ME.value,
    }
    assert len(urlsafe_b64decode(signature + "==")) == 64
    assert (GOOD.issued, GOOD.expires) == (NOW // SECOND * SECOND, (NOW // SECOND + 300) * SECOND)
    assert GOOD.token not in repr(GOOD)


def test_it_is_taken_for_each_of_its_audiences_until_it_ends() -> None:
    for audience in ("one", "two"):
        assert check_token(GOOD.token, audience, KEYS, now=GOOD.expires - 1)["sub"] == ME.value


def _changed(place: int, **values: object) -> str:
    parts = GOOD.token.split(".")
    parts[place] = part(read(parts[place]) | values)
    return ".".join(parts)


def _signed(header: dict[str, object], claims: dict[str, object]) -> str:
    """Return a token that the good key did sign, whatever stands in it."""
    text = f"{part(header)}.{part(claims)}"
    r, s = decode_dss_signature(KEY.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{text}.{urlsafe_b64encode(raw).rstrip(b'=').decode()}"


CLAIMS: dict[str, object] = {"aud": ["one"], "exp": NOW // SECOND + 300, "iat": NOW // SECOND, "sub": ME.value}


def test_what_the_good_key_signed_is_taken_if_it_is_a_token() -> None:
    assert check_token(_signed({"alg": "ES256", "kid": KEY.kid}, CLAIMS), "one", KEYS, now=NOW) == CLAIMS


def _first_letter_changed(text: str) -> str:
    signed, _, signature = text.rpartition(".")
    return f"{signed}.{'B' if signature.startswith('A') else 'A'}{signature[1:]}"


@pytest.mark.parametrize(
    "made",
    [
        lambda: "",
        lambda: "a.b.c",
        lambda: GOOD.token.rpartition(".")[0],
        lambda: GOOD.token.rpartition(".")[0] + ".",
        lambda: _first_letter_changed(GOOD.token),
        lambda: _changed(1, sub="spiffe://example.org/agent/admin"),
        lambda: _changed(0, alg="none"),
        lambda: _signed({"alg": "none", "kid": KEY.kid}, CLAIMS),
        lambda: _signed({"alg": "HS256", "kid": KEY.kid}, CLAIMS),
        lambda: _signed({"kid": KEY.kid}, CLAIMS),
        lambda: _signed({"alg": "ES256", "kid": KEY.kid}, CLAIMS | {"exp": "never"}),
        lambda: _signed({"alg": "ES256", "kid": KEY.kid}, CLAIMS | {"sub": 7}),
        lambda: _changed(0, kid=OTHER.kid),
        lambda: _changed(0, kid="unknown"),
        lambda: _changed(0, kid=["x"]),
        lambda: issue_token(make_jwt_key(), ME, ["one"], now=NOW, ttl=300).token,
        lambda: issue_token(OTHER, ME, ["one"], now=NOW, ttl=300).token,
        lambda: issue_token(KEY, ME, ["other"], now=NOW, ttl=300).token,
        lambda: issue_token(KEY, ME, ["one"], now=NOW, ttl=-1).token,
        lambda: issue_token(KEY, AWAY.id("/agent/web"), ["one"], now=NOW, ttl=300).token,
    ],
)
def test_anything_else_is_refused_without_being_shown(made: Callable[[], str]) -> None:
    with pytest.raises(TokenError) as raised:
        check_token(made(), "one", KEYS, now=NOW)
    assert GOOD.token.rpartition(".")[2] not in str(raised.value)


def test_the_end_is_exact() -> None:
    with pytest.raises(TokenError):
        check_token(GOOD.token, "one", KEYS, now=GOOD.expires)


def test_a_key_set_is_public_and_says_no_use() -> None:
    found = json.loads(jwks([KEY, OTHER]))["keys"]
    assert [one["kid"] for one in found] == [KEY.kid, OTHER.kid]
    for one in found:
        assert one.keys() == {"kty", "kid", "crv", "x", "y"}
        assert {len(one["x"]), len(one["y"])} == {43}
    assert json.loads(jwks([])) == {"keys": []}
