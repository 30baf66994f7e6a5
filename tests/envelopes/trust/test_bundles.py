"""Bundles: which keys count, and which sets of keys are refused as a whole (SPEC.md section 5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.both_readers import parse_bundle
from support.envelopes import NOW, TRUST_DOMAIN, Issuer, Json, agent, base64url, private_key
from support.jose import coordinates_over_the_prime

from sealbus.envelopes.errors import BundleRefused, Code, ConfigurationError
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

OTHER = TrustDomain("other.org")
JWK = Issuer().jwk()


def bundle(*keys: Json, **members: Json) -> JwtBundle:
    """Return the bundle that these JWKs make."""
    return parse_bundle(TRUST_DOMAIN, json.dumps({"keys": list(keys), **members}).encode())


def ec_jwk(curve: ec.EllipticCurve, name: str) -> dict[str, Json]:
    """Return a key on `curve`, the same in every run."""
    numbers = ec.derive_private_key(12345, curve).public_key().public_numbers()
    octets = (curve.key_size + 7) // 8
    x, y = (base64url(n.to_bytes(octets, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": name, "kid": name, "x": x, "y": y}


def rsa_jwk(bits: int, e: int = 65537) -> dict[str, Json]:
    """Return an RSA key of `bits`, as far as its public half goes: an odd number of that length."""
    n = (1 << (bits - 1)) | 1
    return {"kty": "RSA", "kid": str(bits), "n": base64url(n.to_bytes((bits + 7) // 8, "big")), "e": integer(e)}


def integer(value: int) -> str:
    """Return the Base64urlUInt of `value`."""
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_a_key_without_use_is_used_and_so_is_one_for_jwt_svids() -> None:
    parsed = bundle(JWK, JWK | {"kid": "key-2", "use": "jwt-svid"})
    assert list(parsed.keys) == ["key-1", "key-2"]
    assert parsed.keys["key-1"].is_same(parsed.keys["key-2"])
    assert not parsed.keys["key-1"].is_same(bundle(ec_jwk(ec.SECP256R1(), "P-256")).keys["P-256"])
    assert isinstance(parsed.keys["key-1"].key, ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("use", ["x509-svid", "wit-svid", "sig", "", "JWT-SVID", None, 1, ["jwt-svid"]])
def test_a_key_of_another_use_is_not_used(use: Json) -> None:
    assert list(bundle(JWK, JWK | {"kid": "key-2", "use": use}).keys) == ["key-1"]


def test_a_key_of_another_use_needs_no_kid_and_no_form() -> None:
    assert not bundle({"use": "x509-svid", "x5c": ["..."]}, {"use": "wit-svid", "kid": "w", "kty": "EC"}).keys


def test_every_curve_and_size_that_jwt_svids_may_have() -> None:
    curves = [ec_jwk(ec.SECP256R1(), "P-256"), ec_jwk(ec.SECP384R1(), "P-384"), ec_jwk(ec.SECP521R1(), "P-521")]
    keys = bundle(*curves, rsa_jwk(2048), rsa_jwk(4096)).keys
    assert list(keys) == ["P-256", "P-384", "P-521", "2048", "4096"]
    assert isinstance(keys["2048"].key, rsa.RSAPublicKey)


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(rsa_jwk(2047), id="RSA of 2,047 bits"),
        pytest.param(rsa_jwk(1024), id="RSA of 1,024 bits"),
        pytest.param(rsa_jwk(4097), id="RSA of 4,097 bits"),
        pytest.param(rsa_jwk(2048, e=3), id="e = 3"),
        pytest.param(rsa_jwk(2048, e=65539), id="e = 65539"),
        pytest.param(JWK | {"crv": "secp256k1"}, id="another curve"),
        pytest.param(JWK | {"crv": 256}, id="a curve that is a number"),
        pytest.param({"kty": "EC", "kid": "x"}, id="no curve"),
        pytest.param({"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "AA"}, id="Ed25519"),
        pytest.param({"kty": ["EC"], "kid": "x"}, id="a kty that is an array"),
        pytest.param({"kid": "x"}, id="no kty"),
    ],
)
def test_a_key_that_no_jwt_svid_can_have_is_not_used(jwk: dict[str, Json]) -> None:
    assert not bundle(jwk).keys


def test_other_members_of_a_key_and_of_the_set_are_ignored() -> None:
    jwk = JWK | {"alg": "ES512", "key_ops": ["sign"], "x5c": [], "ext": {"a": [1]}}
    assert list(bundle(jwk, spiffe_sequence=1, spiffe_refresh_hint=300).keys) == ["key-1"]


def test_an_empty_set_is_a_bundle_and_the_bytes_are_kept() -> None:
    parsed = parse_bundle(TRUST_DOMAIN, b' {"keys" : []}')
    assert (dict(parsed.keys), parsed.jwks, parsed.trust_domain) == ({}, b' {"keys" : []}', TRUST_DOMAIN)


def test_thirty_two_keys_are_taken() -> None:
    assert len(bundle(*(JWK | {"kid": str(number)} for number in range(32))).keys) == 32


X, Y = str(JWK["x"]), str(JWK["y"])
PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
BAD_SETS: dict[str, Callable[[], object]] = {
    "33 keys": lambda: bundle(*(JWK | {"kid": str(number)} for number in range(33))),
    "33 keys, 32 of another use": lambda: bundle(JWK, *(JWK | {"kid": str(n), "use": "x"} for n in range(32))),
    "a repeated kid": lambda: bundle(JWK, JWK | {"x": Y}),
    "a repeated kid of another use": lambda: bundle(JWK, JWK | {"use": "wit-svid"}),
    "a repeated kid, first of another use": lambda: bundle(JWK | {"use": "wit-svid"}, JWK),
    "a repeated kid, twice of another use": lambda: bundle(JWK | {"kid": "x", "use": "y"}, {"kid": "x", "use": "z"}),
    "a repeated kid, first of a type that is not used": lambda: bundle({"kty": "OKP", "kid": "key-1"}, JWK),
    "a repeated kid of a type that is not used": lambda: bundle(JWK, {"kty": "OKP", "kid": "key-1"}),
    "no kid": lambda: bundle({key: value for key, value in JWK.items() if key != "kid"}),
    "kid null": lambda: bundle(JWK | {"kid": None}),
    "kid a number": lambda: bundle(JWK | {"kid": 1}),
    **{f"a private {name}": partial(lambda name: bundle(JWK | {name: "AQ"}), name) for name in PRIVATE},
    "a private key of another use": lambda: bundle(JWK | {"use": "x509-svid", "d": "AQ"}),
    "a key that is text": lambda: bundle("key"),
    "a key that is null": lambda: bundle(None),
    "keys an object": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":{}}'),
    "no keys": lambda: parse_bundle(TRUST_DOMAIN, b"{}"),
    "an array": lambda: parse_bundle(TRUST_DOMAIN, b"[]"),
    "nothing": lambda: parse_bundle(TRUST_DOMAIN, b""),
    "not UTF-8": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":[],"x":"\xff"}'),
    "a byte order mark": lambda: parse_bundle(TRUST_DOMAIN, b'\xef\xbb\xbf{"keys":[]}'),
    "keys twice": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":[],"keys":[]}'),
    "nested 9 deep": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":[],"x":' + b"[" * 8 + b"]" * 8 + b"}"),
    "nested for ever": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":' + b"[" * 60_000),
    "an integer of 5,000 digits": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":[],"x":' + b"9" * 5000 + b"}"),
    "over 65,536 bytes": lambda: parse_bundle(TRUST_DOMAIN, b'{"keys":[]}' + b" " * 65_526),
    "x missing": lambda: bundle({key: value for key, value in JWK.items() if key != "x"}),
    "x a number": lambda: bundle(JWK | {"x": 1}),
    "x padded": lambda: bundle(JWK | {"x": X + "="}),
    "x not base64url": lambda: bundle(JWK | {"x": "+" + X[1:]}),
    "x not ASCII": lambda: bundle(JWK | {"x": X + "é"}),
    "x a lone surrogate": lambda: bundle(JWK | {"x": "\ud800"}),
    "x of a length of 4n + 1": lambda: bundle(JWK | {"x": X + "AA"}),
    "x with a zero octet before it": lambda: bundle(JWK | {"x": base64url(b"\0" + (5).to_bytes(32, "big"))}),
    "x with a zero octet, on the curve": lambda: bundle(longer("x")),
    "y with a zero octet, on the curve": lambda: bundle(longer("y")),
    "coordinates that are divided elsewhere": lambda: bundle(divided(33)),
    "coordinates that are divided before": lambda: bundle(divided(31)),
    "y missing": lambda: bundle({key: value for key, value in JWK.items() if key != "y"}),
    "a point that is not on the curve": lambda: bundle(JWK | {"y": X}),
    "n missing": lambda: bundle({"kty": "RSA", "kid": "x", "e": "AQAB"}),
    "n empty": lambda: bundle({"kty": "RSA", "kid": "x", "e": "AQAB", "n": ""}),
    "n with a zero octet before it": lambda: bundle(rsa_jwk(2048) | {"n": base64url(bytes(1) + b"\xff" * 256)}),
    "e with a zero octet before it": lambda: bundle(rsa_jwk(2048) | {"e": base64url(b"\0\1\0\1")}),
    "n even": lambda: bundle(rsa_jwk(2048) | {"n": base64url((1 << 2047).to_bytes(256, "big"))}),
    "x over the field's prime, on the curve": lambda: bundle(JWK | coordinates_over_the_prime()),
    "e missing": lambda: bundle({key: value for key, value in rsa_jwk(2048).items() if key != "e"}),
}  # fmt: skip


def divided(at: int) -> dict[str, Json]:
    """Return a JWK whose coordinates together are those of a point, with another length each."""
    numbers = Issuer().key.public_key().public_numbers()
    both = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return JWK | {"x": base64url(both[:at]), "y": base64url(both[at:])}


def longer(member: str) -> dict[str, Json]:
    """Return a JWK with a zero octet before one coordinate, which does not change the point."""
    numbers = Issuer().key.public_key().public_numbers()
    value = {"x": numbers.x, "y": numbers.y}[member]
    return JWK | {member: base64url(value.to_bytes(33, "big"))}


@pytest.mark.parametrize("what", BAD_SETS)
def test_step_07_refuses_a_bundle(what: str) -> None:
    with pytest.raises(BundleRefused, match=r"^configuration: JWT bundle of example\.org: ."):
        BAD_SETS[what]()


def test_step_07_refuses_two_bundles_of_one_trust_domain() -> None:
    with pytest.raises(BundleRefused):
        TrustBundles([bundle(JWK), bundle()])


def test_a_refused_bundle_is_a_configuration_error_with_its_code() -> None:
    assert issubclass(BundleRefused, ConfigurationError)
    assert BundleRefused("x").code is Code.CONFIGURATION


def test_bundles_are_found_by_trust_domain_and_never_pooled() -> None:
    ours, theirs = bundle(JWK), JwtBundle.parse(OTHER, Issuer(kid="theirs", key=private_key("theirs")).jwks())
    bundles = TrustBundles(iter([ours, theirs]))
    assert bundles[OTHER] is theirs
    assert len(bundles) == 2
    assert set(bundles) == {TRUST_DOMAIN, OTHER}
    assert bundles.key(TRUST_DOMAIN, "key-1") is ours.keys["key-1"]
    assert bundles.key(TRUST_DOMAIN, "theirs") is None
    with pytest.raises(KeyError):
        bundles.key(TrustDomain("third.org"), "key-1")


def test_bundles_and_trust_cannot_be_changed_and_show_no_keys() -> None:
    bundles = TrustBundles([bundle(JWK)])
    assert repr(bundles) == "TrustBundles(example.org)"
    assert X not in repr(bundles[TRUST_DOMAIN])
    with pytest.raises(TypeError):
        bundles[TRUST_DOMAIN].keys["x"] = bundles[TRUST_DOMAIN].keys["key-1"]  # type: ignore[index]
    revoked = {agent("planner"): NOW}
    trust = Trust(bundles=bundles, revoked_before=revoked)
    revoked.clear()
    assert trust.revoked_before == {agent("planner"): NOW}
    assert Trust(bundles=bundles).revoked_before == {}
    with pytest.raises(TypeError):
        trust.revoked_before[agent("x")] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", ["us", "used", "USE"])
def test_a_member_that_is_nearly_use_is_none(name: str) -> None:
    assert list(bundle(JWK | {name: "x509-svid"}).keys) == ["key-1"]


@pytest.mark.parametrize("use", ["jwt-svi", "jwt-svids"])
def test_a_key_of_nearly_this_use_is_not_used(use: str) -> None:
    assert list(bundle(JWK, JWK | {"kid": "key-2", "use": use}).keys) == ["key-1"]


def test_kids_that_differ_in_case_alone_are_two() -> None:
    assert list(bundle(JWK, JWK | {"kid": "KEY-1"}).keys) == ["key-1", "KEY-1"]


@pytest.mark.parametrize("changes", [{"kty": "E"}, {"kty": "ECC"}, {"kty": "ec"}, {"crv": "P-25"}, {"crv": "p-256"}])
def test_a_key_of_nearly_a_curve_is_not_used(changes: dict[str, Json]) -> None:
    assert list(bundle(JWK, JWK | {"kid": "key-2"} | changes).keys) == ["key-1"]


@pytest.mark.parametrize("kty", ["RS", "RSA2", "rsa"])
def test_a_key_of_nearly_rsa_is_not_used(kty: str) -> None:
    assert list(bundle(JWK, rsa_jwk(2048) | {"kty": kty}).keys) == ["key-1"]


def test_a_set_as_long_as_may_be() -> None:
    whole = json.dumps({"keys": [JWK]}).encode()
    assert list(parse_bundle(TRUST_DOMAIN, whole + b" " * (65_536 - len(whole))).keys) == ["key-1"]
