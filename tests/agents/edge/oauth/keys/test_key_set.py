"""Key sets: which keys are taken, which left out, and which refuse the whole set."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey
from support.issuer import new_key, public_jwk
from support.jose import small_point

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.oauth.issuers import ALGORITHMS
from sealbus.agents.edge.oauth.keys.key_set import KeySet, embedded_key

EC = public_jwk(new_key("ES256"), "k")
EC384 = public_jwk(new_key("ES384"), "k")
EC521 = public_jwk(new_key("ES512"), "k")
RSA = public_jwk(new_key("RS256"), "k")
OKP = public_jwk(new_key("Ed25519"), "k")
RSA_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}


def parse(*keys: Any) -> KeySet:
    return KeySet.parse(json.dumps({"keys": keys}).encode(), DEFAULT_EDGE_LIMITS)


def usable(jwk: Any) -> set[str]:
    """The algorithms for which the key `k` of a set with `jwk` alone is found."""
    keys = parse(jwk)
    others = ["none", "HS256", "EdDSA", "es256", "ES2560", "ES", "rs256", "RS25", "ed25519"]
    return {algorithm for algorithm in [*ALGORITHMS, *others] if keys.find_key("k", algorithm) is not None}


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [(EC, {"ES256"}), (EC384, {"ES384"}), (EC521, {"ES512"}), (RSA, RSA_ALGORITHMS), (OKP, {"Ed25519"})],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)
def test_a_key_is_for_the_algorithms_of_its_type_and_curve(jwk: dict[str, Any], algorithms: set[str]) -> None:
    assert usable(jwk) == algorithms


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        ({**RSA, "alg": "PS256"}, {"PS256"}),
        ({**OKP, "alg": "EdDSA"}, {"Ed25519"}),
        ({**OKP, "alg": "EdDSA2"}, set()),
        ({**OKP, "alg": "eddsa"}, set()),
        ({**OKP, "alg": "Ed25519"}, {"Ed25519"}),
        ({**OKP, "alg": "ed25519"}, set()),
        ({**EC, "alg": "ES384"}, set()),
        ({**EC, "alg": "RS256"}, set()),
        ({**EC, "alg": "ES2560"}, set()),
        ({**EC, "alg": "es256"}, set()),
        ({**RSA, "alg": "RSA-OAEP"}, set()),
        ({**RSA, "alg": ["RS256"]}, set()),
        ({**EC, "use": "sig"}, {"ES256"}),
        ({**EC, "use": "enc"}, set()),
        ({**EC, "use": "signing"}, set()),
        ({**EC, "use": "SIG"}, set()),
        ({**EC, "use": 1}, set()),
        ({**EC, "use": ["sig"]}, set()),
        ({**EC, "key_ops": ["verify"]}, {"ES256"}),
        ({**EC, "key_ops": ["sign", "verify"]}, {"ES256"}),
        ({**EC, "key_ops": ["deriveKey"]}, set()),
        ({**EC, "key_ops": ["verifyAll"]}, set()),
        ({**EC, "key_ops": ["Verify"]}, set()),
        ({**EC, "key_ops": []}, set()),
        ({**EC, "key_ops": "verify"}, set()),
        ({**EC, "x5c": ["MIIB"], "x5u": "https://evil.example"}, {"ES256"}),
    ],
)
def test_what_a_key_says_of_its_use_is_respected(jwk: dict[str, Any], algorithms: set[str]) -> None:
    assert usable(jwk) == algorithms


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "unknown", "kid": "k"},
        {"kty": "octet", "kid": "k"},
        {"kty": "OCT", "kid": "k"},
        {"kid": "k"},
        {**EC, "kid": 7},
        {**EC, "crv": "P-384"},
        {**EC, "crv": "secp256k1"},
        {**EC, "crv": ["P-256"]},
        {**EC, "y": EC["x"]},
        {**EC, "x": EC["x"][:-4]},
        {**EC, "x": EC["x"] + "="},
        {**EC, "x": 5},
        {name: value for name, value in EC.items() if name != "y"},
        {**RSA, "n": RSA["n"][:340]},
        {**RSA, "n": "AQ" * 1366},
        {**RSA, "e": "AA"},
        {**RSA, "e": "AQ" + "AA" * 8},
        {**RSA, "n": "\u00e9"},
        {**OKP, "crv": "X25519"},
        {**OKP, "crv": "Ed448"},
        {**OKP, "crv": "Ed25519ph"},
        {**OKP, "crv": "ed25519"},
        {**OKP, "x": OKP["x"][:-4]},
    ],
)
def test_keys_that_cannot_be_used_are_left_out_and_the_rest_is_kept(jwk: dict[str, Any]) -> None:
    assert usable(jwk) == set()
    other = public_jwk(new_key(), "other")
    assert parse(jwk, other).find_key("other", "ES256") is not None


def test_an_rsa_key_has_2048_bits_or_more_and_no_more_than_allowed() -> None:
    assert usable({**RSA, "n": number((1 << 2046) + 1)}) == set()
    assert usable(RSA) == RSA_ALGORITHMS
    for most, found in ((2048, True), (2047, False)):
        keys = KeySet.parse(json.dumps({"keys": [RSA]}).encode(), EdgeLimits(rsa_bits=most))
        assert (keys.find_key("k", "RS256") is not None) is found


def test_an_rsa_modulus_is_odd() -> None:
    """An even one is no product of two large primes."""
    assert usable({**RSA, "n": number((1 << 2047) + 1)}) == RSA_ALGORITHMS
    assert usable({**RSA, "n": number((1 << 2047) + 2)}) == set()


def test_an_rsa_exponent_is_short() -> None:
    assert usable({**RSA, "e": number(2**64 - 1)}) == RSA_ALGORITHMS
    assert usable({**RSA, "e": number(2**64 + 1)}) == set()


def test_coordinates_are_as_long_as_their_curve_says() -> None:
    """RFC 7518 section 6.2.1.2: another spelling of the same point is another text for one key."""
    octets = [urlsafe_b64decode(EC[name] + "=") for name in ("x", "y")]
    longer = [number(int.from_bytes(coordinate), 33) for coordinate in octets]
    assert usable({**EC, "x": longer[0], "y": longer[1]}) == set()
    assert usable({**EC, "x": longer[0]}) == set()
    whole = b"".join(octets)
    for place in (31, 33):
        x, y = (urlsafe_b64encode(part).rstrip(b"=").decode() for part in (whole[:place], whole[place:]))
        assert usable({**EC, "x": x, "y": y}) == set()


@pytest.mark.parametrize(
    ("curve", "octets", "algorithm"), [("P-256", 32, "ES256"), ("P-384", 48, "ES384"), ("P-521", 66, "ES512")]
)
def test_coordinates_are_below_the_prime_of_their_field(curve: str, octets: int, algorithm: str) -> None:
    """The prime added to a coordinate gives the same point, in another text."""
    x, y, prime = small_point(curve)
    named = {"kty": "EC", "kid": "k", "crv": curve}
    assert usable({**named, "x": number(x, octets), "y": number(y, octets)}) == {algorithm}
    assert usable({**named, "x": number(x + prime, octets), "y": number(y, octets)}) == set()
    if curve == "P-521":
        # Only there has every coordinate room for it.
        assert usable({**named, "x": number(x, octets), "y": number(y + prime, octets)}) == set()


def number(value: int, length: int | None = None) -> str:
    octets = value.to_bytes(length or (value.bit_length() + 7) // 8)
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "secret",
    [
        ECKey.generate_key("P-256", private=True).as_dict(private=True),
        RSAKey.generate_key(2048, private=True).as_dict(private=True),
        OKPKey.generate_key("Ed25519", private=True).as_dict(private=True),
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct"},
        {"kty": "AKP", "priv": "c2VjcmV0"},
        {**EC, "use": "enc", "d": "AQ"},
        {"kty": "unknown", "k": "c2VjcmV0"},
    ],
)
def test_a_secret_in_it_refuses_the_whole_set(secret: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it holds a private or symmetric key"):
        parse(EC, secret)


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": [], "keys": []}', b'{"keys": []} ,', b"\xff",
        b'{"keys": ' + b"[" * 100_000,
        json.dumps({"keys": [EC] * (DEFAULT_EDGE_LIMITS.keys + 1)}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"key|JSON"):
        KeySet.parse(document, DEFAULT_EDGE_LIMITS)


def test_as_many_keys_as_allowed_are_taken() -> None:
    keys = parse(*[{**EC, "kid": str(number)} for number in range(DEFAULT_EDGE_LIMITS.keys)])
    assert keys.find_key(str(DEFAULT_EDGE_LIMITS.keys - 1), "ES256") is not None


def test_one_kid_may_stand_for_keys_of_several_types_but_not_for_two_that_fit() -> None:
    keys = parse(EC, RSA, OKP)
    assert {type(keys.find_key("k", algorithm)) for algorithm in ("ES256", "RS256", "Ed25519")} == {
        ECKey,
        RSAKey,
        OKPKey,
    }
    assert parse(EC, public_jwk(new_key(), "k")).find_key("k", "ES256") is None


def test_without_kid_the_only_key_that_fits_is_found() -> None:
    unnamed = {name: value for name, value in EC.items() if name != "kid"}
    assert parse(unnamed, RSA).find_key(None, "ES256") is not None
    assert parse(unnamed, RSA).find_key("k", "ES256") is None
    assert parse(EC).find_key("K", "ES256") is None
    assert parse(EC, RSA).find_key(None, "ES256") is not None
    assert parse({**EC, "kid": 7}).find_key(None, "ES256") is None
    assert parse(EC, public_jwk(new_key(), "other")).find_key(None, "ES256") is None
    assert parse().find_key(None, "ES256") is None


def test_its_text_shows_no_key() -> None:
    assert EC["x"] not in repr(parse(EC))


@given(
    st.dictionaries(
        st.sampled_from(["kty", "kid", "crv", "x", "y", "n", "e", "use", "alg", "key_ops"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text(max_size=5), max_size=3)
        | st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", EC["x"], RSA["n"], "AQAB"]),
    )
)  # fmt: skip
def test_any_object_is_a_key_or_left_out(jwk: dict[str, Any]) -> None:
    parse(jwk)


@pytest.mark.parametrize("algorithm", ["ES2", "ES256K", "es256", "ES384", "RS256", ""])
def test_a_key_that_is_shown_is_for_one_algorithm(algorithm: str) -> None:
    jwk = public_jwk(new_key(), None)
    assert embedded_key(jwk, "ES256", EdgeLimits()).thumbprint()
    with pytest.raises(ValueError, match="not a key for"):
        embedded_key(jwk, algorithm, EdgeLimits())
