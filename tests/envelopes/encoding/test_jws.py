"""JWS in compact form: one spelling, nine algorithms, each for its own keys (RFC 7515, RFC 7518)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.jose import ALGORITHMS as SIGNED
from support.jose import key_for, signature_of

from sealbus.envelopes.encoding.jws import ALGORITHMS, check_fit, decode_base64url, split_compact, verify_jws

DATA = b"header.payload"
FAMILIES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


def test_the_algorithms_are_the_nine_of_jwt_svids() -> None:
    assert tuple(ALGORITHMS) == SIGNED


@pytest.mark.parametrize(
    ("text", "data"), [(b"", b""), (b"AA", b"\0"), (b"AAA", b"\0\0"), (b"AAAA", b"\0\0\0"), (b"-_-_", b"\xfb\xff\xbf")]
)
def test_base64url_of_every_length(text: bytes, data: bytes) -> None:
    assert decode_base64url(text) == data


@pytest.mark.parametrize(
    "text",
    [b"A", b"AAAAA", b"AB", b"AAB", b"AA==", b"AAA=", b"A A", b"AA\n", b"+/+/", b"AA.", b"\xff\xff", b"=", b"AA=A"],
)  # fmt: skip
def test_base64url_in_any_other_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- binascii's own texts vary
        decode_base64url(text)


def test_a_compact_jws_is_split() -> None:
    jws = split_compact(b"AA.AAA.AAAA")
    assert (jws.header, jws.payload, jws.signature, jws.signed) == (b"\0", b"\0\0", b"\0\0\0", b"AA.AAA")


@pytest.mark.parametrize(
    "token", [b"", b"AA", b"AA.AA", b"AA.AA.AA.AA", b"AA.AB.AA", b"AB.AA.AA", b"AA.AA.AB", b"AA.AA.A"]
)
def test_what_is_not_three_canonical_parts_is_refused(token: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- any text of it
        split_compact(token)


@pytest.mark.parametrize("alg", SIGNED)
def test_a_signature_is_verified(alg: str) -> None:
    key = key_for(alg).public_key()
    check_fit(alg, key)
    signature = signature_of(alg, DATA)
    verify_jws(alg, key, DATA, signature)
    for wrong in (signature[:-1], signature + b"\0", b"", signature[:-1] + bytes([signature[-1] ^ 1])):
        with pytest.raises(ValueError, match="signature"):
            verify_jws(alg, key, DATA, wrong)
    with pytest.raises(ValueError, match="signature"):
        verify_jws(alg, key, DATA + b"x", signature)


@pytest.mark.parametrize("alg", SIGNED)
@pytest.mark.parametrize("other", SIGNED)
def test_an_algorithm_fits_its_own_keys_only(alg: str, other: str) -> None:
    key = key_for(other).public_key()
    if FAMILIES.get(alg) == FAMILIES.get(other):
        check_fit(alg, key)
    else:
        with pytest.raises(ValueError, match="fit"):
            check_fit(alg, key)


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_paddings_are_not_exchanged(alg: str) -> None:
    other = {"RS256": "PS256", "PS256": "RS256"}[alg]
    with pytest.raises(ValueError, match="signature"):
        verify_jws(alg, key_for(alg).public_key(), DATA, signature_of(other, DATA))


def test_hashes_are_not_exchanged() -> None:
    with pytest.raises(ValueError, match="signature"):
        verify_jws("RS384", key_for("RS256").public_key(), DATA, signature_of("RS256", DATA))


@pytest.mark.parametrize("salt", [0, 20, 31, 33])
def test_a_ps_salt_is_as_long_as_the_hash(salt: int) -> None:
    with pytest.raises(ValueError, match="signature"):
        verify_jws("PS256", key_for("PS256").public_key(), DATA, signature_of("PS256", DATA, salt=salt))


def test_es512_numbers_have_66_octets() -> None:
    key = key_for("ES512").public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert len(signature_of("ES512", DATA)) == 132
    with pytest.raises(ValueError, match="length"):
        verify_jws("ES512", key, DATA, bytes(128))
