"""What attackers show the edge as an access token or as a proof: each with its status and code, and none ever on the bus."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import pytest
from joserfc.jwk import ECKey
from support.dpop import Holder
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.issuer import LoopbackIssuer, Served, compact, new_key, public_jwk, signed
from support.shop import Shop

CALL, TASK = "/v1/calls/pricing/quote", "/v1/tasks/inventory/update"
ORIGIN = "https://edge.example"
BODY = b'{"item_id": "42"}'
MINE = new_key()
HOLDER = Holder()

Fields = list[tuple[str, str]]


def bearer(token: str) -> Fields:
    return [("Authorization", f"Bearer {token}")]


def b64(value: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(dict(value)).encode()).rstrip(b"=").decode()


def own(edge: Door, **header: Any) -> str:
    """Return a token that the attacker signed with a key of their own."""
    return compact(edge.issuer.header(**header), edge.issuer.claims(), signed("ES256", MINE))


def with_public_key_as_secret(edge: Door) -> str:
    key = edge.issuer.keys["key-1"]
    assert isinstance(key, ECKey)
    pem = key.as_pem(private=False)
    return compact(
        edge.issuer.header(alg="HS256"), edge.issuer.claims(), lambda data: hmac.new(pem, data, sha256).digest()
    )


def cut(token: str, part: int, text: str) -> str:
    parts = token.split(".")
    parts[part] = text
    return ".".join(parts)


TOKENS: dict[str, tuple[Callable[[Door], str], str]] = {
    "alg none": (lambda edge: f"{b64({'alg': 'none', 'typ': 'at+jwt'})}.{b64(edge.issuer.claims())}.", "bad_token"),
    "alg None": (lambda edge: cut(edge.issuer.token(), 0, b64(edge.issuer.header(alg="None"))), "bad_token"),
    "HS256 with the public key": (with_public_key_as_secret, "bad_token"),
    "another algorithm than is allowed": (lambda edge: own(edge, alg="ES384"), "bad_token"),
    "a key of one's own": (own, "bad_token"),
    "a key of one's own, unnamed": (lambda edge: own(edge, kid=None), "bad_token"),
    "a key of one's own, in the header": (lambda edge: own(edge, jwk=public_jwk(MINE, "key-1")), "bad_token"),
    "a key at a URL of one's own": (lambda edge: own(edge, jku="https://evil.example/jwks"), "bad_token"),
    "a certificate at a URL of one's own": (lambda edge: own(edge, x5u="https://evil.example/cert"), "bad_token"),
    "a certificate of one's own": (lambda edge: own(edge, x5c=["MIIB"]), "bad_token"),
    "a kid that is a path": (lambda edge: own(edge, kid="../../../../dev/null"), "bad_token"),
    "a kid that is a query": (lambda edge: own(edge, kid="x' UNION SELECT 'key"), "bad_token"),
    "a kid that is no text": (lambda edge: own(edge, kid=["key-1"]), "bad_token"),
    "a kid of a megabyte's start": (lambda edge: own(edge, kid="k" * 300), "bad_token"),
    "an extension": (lambda edge: edge.issuer.token(header={"crit": ["exp"]}), "bad_token"),
    "an unencoded payload": (lambda edge: edge.issuer.token(header={"b64": False}), "bad_token"),
    "compressed": (lambda edge: edge.issuer.token(header={"zip": "DEF"}), "bad_token"),
    "an ID token": (lambda edge: edge.issuer.token(header={"typ": "JWT"}), "bad_token"),
    "a logout token": (lambda edge: edge.issuer.token(header={"typ": "logout+jwt"}), "bad_token"),
    "without a type": (lambda edge: edge.issuer.token(header={"typ": None}), "bad_token"),
    "for another": (lambda edge: edge.issuer.token(aud="https://other.example"), "token_audience"),
    "for a name that begins like ours": (lambda edge: edge.issuer.token(aud=f"{ORIGIN}/api2"), "token_audience"),
    "for nobody": (lambda edge: edge.issuer.token(aud=None), "bad_token"),
    "of another issuer": (lambda edge: edge.issuer.token(iss="https://evil.example"), "unknown_issuer"),
    "of an issuer that begins like ours": (
        lambda edge: edge.issuer.token(iss=edge.issuer.issuer + "/x"),
        "unknown_issuer",
    ),
    "of no issuer": (lambda edge: edge.issuer.token(iss=None), "unknown_issuer"),
    "a second too late": (lambda edge: edge.issuer.token(life=-1), "token_expired"),
    "not yet valid": (lambda edge: edge.issuer.token(nbf=4_000_000_000), "bad_token"),
    "of tomorrow": (lambda edge: edge.issuer.token(iat=4_000_000_000, exp=4_000_000_600), "bad_token"),
    "without an end": (lambda edge: edge.issuer.token(exp=None), "bad_token"),
    "with an end that is text": (lambda edge: edge.issuer.token(exp="4000000000"), "bad_token"),
    "of no user": (lambda edge: edge.issuer.token(sub=None), "bad_token"),
    "of a user who is a list": (lambda edge: edge.issuer.token(sub=["alice"]), "bad_token"),
    "a claim twice": (
        lambda edge: compact(
            edge.issuer.header(),
            json.dumps(edge.issuer.claims())[:-1].encode() + b', "sub": "root"}',
            signed("ES256", edge.issuer.keys["key-1"]),
        ),
        "bad_token",
    ),
    "deep": (
        lambda edge: compact(
            edge.issuer.header(),
            b'{"a":' * 64 + b"1" + b"}" * 64,
            signed("ES256", edge.issuer.keys["key-1"]),
        ),
        "bad_token",
    ),
    "another's payload": (lambda edge: cut(edge.issuer.token(), 1, b64(edge.issuer.claims(sub="root"))), "bad_token"),
    "without a signature": (lambda edge: cut(edge.issuer.token(), 2, ""), "bad_token"),
    "a signature of zeros": (lambda edge: cut(edge.issuer.token(), 2, "A" * 86), "bad_token"),
    "padded": (lambda edge: edge.issuer.token() + "==", "bad_token"),
    "encrypted": (lambda edge: "a.b.c.d.e", "bad_token"),
    "opaque": (lambda edge: "6f1c0a52-opaque", "bad_token"),
    "long": (lambda edge: edge.issuer.token(x="x" * 16_384), "bad_token"),
    "bound to a key in another way": (lambda edge: edge.issuer.token(cnf={"jwk": public_jwk(MINE, None)}), "bad_token"),
    "bound to a key, as a bearer's": (lambda edge: edge.issuer.token(cnf=HOLDER.cnf), "bad_token"),
    "bound to a certificate that is not shown": (
        lambda edge: edge.issuer.token(cnf={"x5t#S256": HOLDER.cnf["jkt"]}),
        "bad_token",
    ),
}


async def refused(edge: Door, fields: Fields, status: int, code: str) -> None:
    for path in (CALL, TASK):
        answer = await edge.http.post(path, content=BODY, headers=[("Content-Type", "application/json"), *fields])
        assert (answer.status_code, answer.json()["code"]) == (status, code), (answer.text, path)
        held = [value for _, value in fields if len(value) > 20]
        assert not any(part in answer.text for value in held for part in value.split(".") if len(part) > 20)
        assert status != 401 or "www-authenticate" in answer.headers
    assert not any(edge.published().values())


async def test_no_token_of_an_attacker_gets_anywhere() -> None:
    async with door(Shop().pricing, Shop().inventory, engine=ScriptedEngine()) as edge:
        for name, (made, code) in TOKENS.items():
            token = made(edge)
            try:
                await refused(edge, bearer(token), 401 if token.isascii() else 400, code)
            except AssertionError as error:
                raise AssertionError(name) from error
        # And the table is not of a door that lets nobody in.
        assert (await edge.post(CALL, {"item_id": "42"})).status_code == 200


async def test_no_token_is_looked_for_elsewhere_or_taken_twice() -> None:
    async with door(Shop().pricing, Shop().inventory, engine=ScriptedEngine()) as edge:
        good = edge.issuer.token()
        for fields, status, code in (
            ([], 401, "no_token"),
            ([("Cookie", f"access_token={good}")], 401, "no_token"),
            ([("Proxy-Authorization", f"Bearer {good}")], 401, "no_token"),
            ([("Authorization", f"Basic {good}")], 401, "no_token"),
            ([("Authorization", f"Token {good}")], 401, "no_token"),
            (bearer(good) * 2, 400, "malformed"),
            (bearer(f"{good}, {good}"), 400, "malformed"),
            (bearer(f"{good} {good}"), 400, "malformed"),
        ):
            await refused(edge, fields, status, code)


def shown(token: str, *proofs: str) -> Fields:
    return [("Authorization", f"DPoP {token}"), *(("DPoP", proof) for proof in proofs)]


async def test_no_proof_of_an_attacker_lets_them_use_a_token_that_is_bound() -> None:
    async with door(Shop().pricing, engine=ScriptedEngine()) as edge:
        token, url = edge.issuer.token(cnf=HOLDER.cnf), ORIGIN + CALL
        stolen = HOLDER.proof(token, "POST", url)
        other = Holder()
        table: dict[str, Fields] = {
            "none": shown(token),
            "two": shown(token, HOLDER.proof(token, "POST", url), HOLDER.proof(token, "POST", url)),
            "empty": shown(token, ""),
            "the token itself": shown(token, token),
            "of another key": shown(token, other.proof(token, "POST", url)),
            "of another key, which shows ours": shown(
                token, other.proof(token, "POST", url, header={"jwk": public_jwk(HOLDER.key, None)})
            ),
            "for another token": shown(token, HOLDER.proof(edge.issuer.token(jti="2"), "POST", url)),
            "for no token": shown(token, HOLDER.proof(token, "POST", url, ath=None)),
            "for another method": shown(token, HOLDER.proof(token, "GET", url)),
            "for another path": shown(token, HOLDER.proof(token, "POST", url + "s")),
            "for another host": shown(token, HOLDER.proof(token, "POST", "https://evil.example" + CALL)),
            "for the host that the request names": shown(token, HOLDER.proof(token, "POST", f"http://127.0.0.1{CALL}")),
            "old": shown(token, HOLDER.proof(token, "POST", url, iat=1_700_000_000)),
            "of tomorrow": shown(token, HOLDER.proof(token, "POST", url, iat=4_000_000_000)),
            "with a private key": shown(
                token, HOLDER.proof(token, "POST", url, header={"jwk": HOLDER.key.as_dict(private=True)})
            ),
            "unsigned": shown(token, cut(cut(stolen, 0, b64({**HOLDER.header(), "alg": "none"})), 2, "")),
            "an access token's type": shown(token, HOLDER.proof(token, "POST", url, header={"typ": "at+jwt"})),
            "with a URL for a key": shown(
                token, HOLDER.proof(token, "POST", url, header={"jku": "https://evil.example"})
            ),
            "long": shown(token, HOLDER.proof(token, "POST", url, x="x" * 4_096)),
        }
        for name, fields in table.items():
            answer = await edge.http.post(CALL, content=BODY, headers=[("Content-Type", "application/json"), *fields])
            assert (answer.status_code, answer.json()["code"]) == (401, "bad_dpop_proof"), (name, answer.text)
        assert not any(edge.published().values())
        # The stolen one was never used: it is good once.
        for status in (200, 401):
            answer = await edge.http.post(
                CALL, content=BODY, headers=[("Content-Type", "application/json"), *shown(token, stolen)]
            )
            assert answer.status_code == status


KEY_SETS: dict[str, Callable[[LoopbackIssuer], Served]] = {
    "gone": lambda issuer: Served(status=500),
    "elsewhere": lambda issuer: Served(status=302, headers={"Location": "https://evil.example/jwks"}),
    "no JSON": lambda issuer: Served(body=b"<html>"),
    "huge": lambda issuer: Served(body=b'{"keys": [' + b" " * 300_000 + b"]}"),
    "endless": lambda issuer: Served(body=b"x" * 65_536, endless=True),
    "with a private key": lambda issuer: Served(
        body=json.dumps({"keys": [{**issuer.keys["key-1"].as_dict(private=True), "kid": "key-1"}]}).encode()
    ),
    "with a secret": lambda issuer: Served(body=b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "key-1"}]}'),
}


@pytest.mark.parametrize("name", list(KEY_SETS))
async def test_without_good_keys_of_its_issuer_no_token_is_taken(name: str) -> None:
    async with door(Shop().pricing, Shop().inventory, engine=ScriptedEngine()) as edge:
        edge.issuer.key_set = KEY_SETS[name](edge.issuer)
        await refused(edge, bearer(edge.issuer.token()), 503, "keys_unavailable")
