"""Proofs of possession: good ones, and a table of bad ones by the numbers of RFC 9449 section 4.3."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
from support.dpop import Holder
from support.issuer import compact, new_key, public_jwk, signed

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.oauth.bearer import PROOF_ALGORITHMS
from sealbus.agents.edge.oauth.bound.dpop import Nonces, Proof, ProofRefused, public_urls, verify_proof
from sealbus.envelopes.errors import Code

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND
RESOURCE = "https://edge.example/api"
PATH = "/v1/calls/inventory/read"
URL = "https://edge.example/v1/calls/inventory/read"
TOKEN = "header.payload.signature"
NONCES = Nonces(bytes(range(32)), 300)


def verified(proof: str, *, now: int = NOW, nonces: Nonces | None = None, token: str = TOKEN) -> Proof:
    return verify_proof(
        proof,
        method="POST",
        urls=public_urls(RESOURCE, PATH),
        token=token,
        now=now,
        limits=DEFAULT_EDGE_LIMITS,
        nonces=nonces,
    )


def refusal(proof: str, *, now: int = NOW, nonces: Nonces | None = None, token: str = TOKEN) -> ProofRefused:
    with pytest.raises(ProofRefused) as caught:
        verified(proof, now=now, nonces=nonces, token=token)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert not any(part in repr((seen.args, vars(seen))) for part in proof.split(".") if len(part) > 12)
        seen = seen.__cause__ or seen.__context__
    return caught.value


@pytest.mark.parametrize("algorithm", PROOF_ALGORITHMS)
def test_a_good_one_names_the_key_and_is_known_again(algorithm: str) -> None:
    holder = Holder(algorithm)
    first, second = (holder.proof(TOKEN, "POST", URL, now=NOW) for _ in range(2))
    proof = verified(first)
    assert proof.thumbprint == holder.cnf["jkt"]
    assert proof.issued == NOW
    assert proof.digest == verified(first).digest != verified(second).digest
    same = Holder(algorithm).proof(TOKEN, "POST", URL, now=NOW, jti="one")
    other = Holder(algorithm).proof(TOKEN, "POST", URL, now=NOW, jti="one")
    assert verified(same).digest != verified(other).digest


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://edge.example/api/v1/calls/inventory/read",
        "https://EDGE.example/v1/calls/inventory/read",
        "https://edge.example:443/v1/calls/inventory/read",
        "HTTPS://edge.example/v1/calls/inventory/read",
    ],
)
def test_the_url_is_compared_as_a_url(url: str) -> None:
    assert verified(Holder().proof(TOKEN, "POST", url, now=NOW)).issued == NOW


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jti": None}, "3: jti"),
        ({"jti": 7}, "3: jti"),
        ({"jti": ""}, "3: jti"),
        ({"jti": "x" * 257}, "3: jti"),
        ({"htm": None}, "3: htm"),
        ({"htm": "GET"}, "8: htm"),
        ({"htm": "post"}, "8: htm"),
        ({"htm": "POSTS"}, "8: htm"),
        ({"htm": "POS"}, "8: htm"),
        ({"htu": None}, "3: htu"),
        ({"htu": URL + "/"}, "9: htu"),
        ({"htu": URL + "?a=b"}, "9: htu"),
        ({"htu": URL + "#a"}, "9: htu"),
        ({"htu": "http://edge.example/v1/calls/inventory/read"}, "9: htu"),
        ({"htu": "https://edge.example:8443/v1/calls/inventory/read"}, "9: htu"),
        ({"htu": "https://edge.example.evil/v1/calls/inventory/read"}, "9: htu"),
        ({"htu": "https://user@edge.example/v1/calls/inventory/read"}, "9: htu"),
        ({"htu": PATH}, "9: htu"),
        ({"htu": URL.replace("/v1/", "/V1/")}, "9: htu"),
        ({"htu": URL.replace("example/", "example:80/")}, "9: htu"),
        ({"htu": URL + "x"}, "9: htu"),
        ({"htu": "https://edge.example/v1/calls/inventory/%72ead"}, "9: htu"),
        ({"iat": None}, "3: iat"),
        ({"iat": "1800000000"}, "3: iat"),
        ({"iat": 1_800_000_000.5}, "3: iat"),
        ({"iat": 1_800_000_006}, "11: iat"),
        ({"iat": 1_799_999_939}, "11: iat"),
        ({"ath": None}, "3: ath"),
        ({"ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}, "12: ath"),
    ],
)
def test_a_wrong_claim_is_refused_by_its_number(changes: dict[str, Any], says: str) -> None:
    error = refusal(Holder().proof(TOKEN, "POST", URL, now=NOW, **changes))
    assert (error.status, error.code, error.error) == (401, Code.BAD_DPOP_PROOF, "invalid_dpop_proof")
    assert error.detail == says


@pytest.mark.parametrize(("own", "other"), [("https", "http"), ("http", "https")])
@pytest.mark.parametrize("port", ["", ":8443", ":80", ":443"])
def test_the_scheme_of_the_url_is_compared(own: str, other: str, port: str) -> None:
    """On a loopback address, where the edge may speak either; elsewhere a URL without TLS is none of ours."""
    host = f"127.0.0.1{port}{PATH}"

    def judged(scheme: str) -> Proof:
        return verify_proof(
            Holder().proof(TOKEN, "POST", f"{scheme}://{host}", now=NOW),
            method="POST",
            urls=public_urls(f"{own}://127.0.0.1{port}", PATH),
            token=TOKEN,
            now=NOW,
            limits=DEFAULT_EDGE_LIMITS,
        )

    assert judged(own).issued == NOW
    with pytest.raises(ProofRefused, match="9: htu"):
        judged(other)


@pytest.mark.parametrize("seconds", [-5, 0, 60])
def test_clocks_may_differ_a_little(seconds: int) -> None:
    made = NOW - seconds * SECOND
    assert verified(Holder().proof(TOKEN, "POST", URL, now=made)).issued == made


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"typ": None}, "4: typ"),
        ({"typ": "at+jwt"}, "4: typ"),
        ({"typ": "DPOP+JWT"}, "4: typ"),
        ({"typ": "dpop+jwts"}, "4: typ"),
        ({"alg": "none"}, "5: alg"),
        ({"alg": "HS256"}, "5: alg"),
        ({"alg": "ES256K"}, "5: alg"),
        ({"alg": "ES2"}, "5: alg"),
        ({"alg": "es256"}, "5: alg"),
        ({"alg": "ES384"}, "7: jwk"),
        ({"jwk": None}, "7: jwk"),
        ({"jwk": "key"}, "7: jwk"),
        ({"jwk": {"kty": "oct", "k": "AAAA"}}, "7: jwk"),
        ({"jku": "https://evil.example/keys"}, "header: jku"),
        ({"x5u": "https://evil.example/cert"}, "header: x5u"),
        ({"x5c": ["MII"]}, "header: x5c"),
        ({"crit": ["b64"]}, "header: crit"),
        ({"b64": False}, "header: b64"),
    ],
)
def test_a_wrong_header_is_refused_by_its_number(changes: dict[str, Any], says: str) -> None:
    assert refusal(Holder().proof(TOKEN, "POST", URL, now=NOW, header=changes)).detail == says


def test_what_the_header_says_besides_counts_for_nothing() -> None:
    proof = Holder().proof(TOKEN, "POST", URL, now=NOW, header={"JKU": "x", "x5us": "x", "jku2": "x", "x5": "x"})
    assert verified(proof).issued == NOW


def test_a_private_key_in_the_header_is_refused() -> None:
    holder = Holder()
    assert (
        refusal(holder.proof(TOKEN, "POST", URL, now=NOW, header={"jwk": holder.key.as_dict(private=True)})).detail
        == "7: jwk"
    )


def test_another_key_than_it_shows_is_refused() -> None:
    holder = Holder()
    shown = public_jwk(new_key(), None)
    assert refusal(holder.proof(TOKEN, "POST", URL, now=NOW, header={"jwk": shown})).detail == "6: signature"


def test_what_is_signed_with_the_public_key_as_a_secret_is_refused() -> None:
    holder = Holder()
    secret = new_key("HS256")
    made = compact(holder.header(alg="HS256"), holder.claims(TOKEN, "POST", URL, now=NOW), signed("HS256", secret))
    assert refusal(made).detail == "5: alg"


@pytest.mark.parametrize("proof", ["", "a", "a.b", "a.b.c", "a.b.c.d", ".." * 10])
def test_what_is_no_jwt_is_refused(proof: str) -> None:
    assert refusal(proof).detail == "2: not a JWT in compact form"


def test_it_has_a_length() -> None:
    long = Holder().proof(TOKEN, "POST", URL, now=NOW, more="x" * DEFAULT_EDGE_LIMITS.proof_bytes)
    assert refusal(long).detail == "the proof is too long"
    proof = Holder().proof(TOKEN, "POST", URL, now=NOW)
    for more, fits in ((0, True), (-1, False)):
        limits = EdgeLimits(proof_bytes=len(proof) + more)
        asked = partial(
            verify_proof, proof, method="POST", urls=public_urls(RESOURCE, PATH), token=TOKEN, now=NOW, limits=limits
        )
        if fits:
            assert asked().issued == NOW
        else:
            with pytest.raises(ProofRefused, match="too long"):
                asked()


def test_of_another_token_it_is_refused() -> None:
    assert refusal(Holder().proof("another.token.text", "POST", URL, now=NOW)).detail == "12: ath"


def test_a_nonce_counts_while_it_is_given_out_and_as_long_again() -> None:
    holder, given = Holder(), NONCES.current(NOW)
    assert NONCES.current(NOW + 299 * SECOND) == given
    for later in (0, 300, 599):
        now = NOW + later * SECOND
        proof = holder.proof(TOKEN, "POST", URL, now=now, nonce=given)
        assert verified(proof, now=now, nonces=NONCES).issued == now
    later = NOW + 600 * SECOND
    for nonce in (given, None, "made-up", NONCES.current(later + 300 * SECOND)):
        error = refusal(holder.proof(TOKEN, "POST", URL, now=later, nonce=nonce), now=later, nonces=NONCES)
        assert (error.code, error.error) == (Code.USE_DPOP_NONCE, "use_dpop_nonce")
    assert refusal(holder.proof(TOKEN, "POST", URL, now=NOW, nonce=7), nonces=NONCES).detail == "3: nonce"


def test_a_nonce_is_made_under_its_own_label() -> None:
    """No other value under the same key is one."""
    made = hmac.new(bytes(range(32)), b"sealbus.dpop-nonce.v1" + (NOW // (300 * SECOND)).to_bytes(8), sha256).digest()
    assert NONCES.current(NOW) == urlsafe_b64encode(made[:16]).rstrip(b"=").decode()


def test_a_nonce_is_of_one_key_and_its_text_shows_none() -> None:
    assert Nonces(bytes(32), 300).current(NOW) != NONCES.current(NOW)
    assert repr(NONCES) == "Nonces(...)"


def test_an_edge_behind_a_path_is_named_with_and_without_it() -> None:
    assert public_urls("https://EDGE.example:443/", "/v1/x") == {"https://edge.example/v1/x"}
    assert public_urls("http://127.0.0.1:8080", "/v1/x") == {"http://127.0.0.1:8080/v1/x"}
