"""Tokens of the development IdP: what stands in them, and that a user's claims take the place of nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from joserfc import jwt
from joserfc.jwk import KeySet
from support.envelopes import NOW

from sealbus.agents.dev.idp.login import Login
from sealbus.agents.dev.idp.registry import DemoUser
from sealbus.agents.dev.idp.signing import ALGORITHM, TokenSigner
from sealbus.envelopes.limits import SECOND

ISSUER = "http://127.0.0.1:1/development-only"
SECONDS = NOW // SECOND
LOGIN = Login(
    user=DemoUser(identifier="alice", claims=MappingProxyType({"name": "Alice", "region": "eu"})),
    client_id="shop",
    scope="read write",
    audience="https://edge.example/api",
    session="s1",
    auth_time=SECONDS - 5,
    expires_in=300,
    nonce="n1",
)


def signer() -> TokenSigner:
    return TokenSigner(ISSUER, clock=lambda: NOW)


def read(made: TokenSigner, token: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return header and claims of a token that `made` signed."""
    found = jwt.decode(token, KeySet.import_key_set(made.key_set()), algorithms=[ALGORITHM])  # type: ignore[arg-type]
    return dict(found.header), dict(found.claims)


def test_an_access_token_says_what_rfc_9068_wants_and_the_users_claims() -> None:
    made = signer()
    header, claims = read(made, made.access_token(LOGIN))
    assert (header["typ"], header["alg"]) == ("at+jwt", ALGORITHM)
    assert claims.pop("jti")
    assert claims == {
        "name": "Alice",
        "region": "eu",
        "iss": ISSUER,
        "aud": "https://edge.example/api",
        "sub": "alice",
        "client_id": "shop",
        "iat": SECONDS,
        "exp": SECONDS + 300,
        "sid": "s1",
        "auth_time": SECONDS - 5,
        "scope": "read write",
    }


def test_both_tokens_say_how_the_user_logged_in() -> None:
    made = signer()
    login = replace(LOGIN, user=replace(LOGIN.user, acr="urn:mfa", amr=("pwd", "otp")))
    for token in (made.access_token(login), made.id_token(login)):
        claims = read(made, token)[1]
        assert (claims["acr"], claims["amr"], claims["auth_time"]) == ("urn:mfa", ["pwd", "otp"], SECONDS - 5)


def test_an_id_token_is_for_the_client_and_of_another_type() -> None:
    made = signer()
    header, claims = read(made, made.id_token(LOGIN))
    assert header["typ"] == "JWT"
    assert (claims["aud"], claims["sub"], claims["nonce"]) == ("shop", "alice", "n1")
    assert "region" not in claims
    assert "nonce" not in read(made, made.id_token(replace(LOGIN, nonce="")))[1]


def test_no_token_without_a_scope_says_one() -> None:
    made = signer()
    assert "scope" not in read(made, made.access_token(replace(LOGIN, scope="")))[1]


def test_a_token_that_never_was_valid_lives_no_time() -> None:
    made = signer()
    claims = read(made, made.access_token(replace(LOGIN, expires_in=-60, auth_time=SECONDS)))[1]
    assert claims["exp"] == SECONDS - 60
    assert claims["iat"] == claims["auth_time"] == SECONDS - 61


def test_two_tokens_have_two_ids() -> None:
    made = signer()
    assert len({read(made, made.access_token(LOGIN))[1]["jti"] for _ in range(3)}) == 3


def test_the_key_set_holds_no_private_part_and_is_new_with_each_signer() -> None:
    keys = [signer().key_set()["keys"] for _ in range(2)]
    for found in keys:
        assert isinstance(found, list)
        (key,) = found
        assert key.keys() == {"kty", "crv", "x", "y", "use", "alg", "kid"}
    assert keys[0] != keys[1]
