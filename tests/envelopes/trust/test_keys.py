"""P-256 keys and ES256 signatures (SPEC.md sections 3 to 5)."""

from __future__ import annotations

import copy
import pickle
from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from support.envelopes import private_key, signing_key

from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.trust.keys import PublicKey, SigningKey

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1

# RFC 6979 appendix A.2.5: the key pair, and the signature over "sample" with SHA-256.
RFC6979_X = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6"
RFC6979_Y = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
RFC6979_R = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
RFC6979_S = "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"

# RFC 7515 appendix A.3: its public key. The thumbprint is that of its JWK.
RFC7515_X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
RFC7515_Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"


def test_a_published_signature_verifies_in_its_low_form_only() -> None:
    key = PublicKey(bytes.fromhex(RFC6979_X + RFC6979_Y))
    r, s = bytes.fromhex(RFC6979_R), int(RFC6979_S, 16)
    key.verify(b"sample", r + (ORDER - s).to_bytes(32, "big"))
    with pytest.raises(EnvelopeError) as caught:
        key.verify(b"sample", r + s.to_bytes(32, "big"))
    assert (caught.value.code, caught.value.step) == (Code.BAD_SIGNATURE, 8)


def test_thumbprint_is_the_audience_of_rfc_9278() -> None:
    raw = urlsafe_b64decode(RFC7515_X + "=") + urlsafe_b64decode(RFC7515_Y + "=")
    assert PublicKey(raw).thumbprint == (
        "urn:ietf:params:oauth:jwk-thumbprint:sha-256:oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
    )


def test_signing_and_verifying() -> None:
    key = signing_key("a")
    for number in range(40):  # about half of all signatures have to be normalized
        message = bytes([number])
        signature = key.sign(message)
        assert len(signature) == 64
        assert 1 <= int.from_bytes(signature[32:], "big") <= (ORDER - 1) // 2
        key.public.verify(message, signature)


def signature_of(message: bytes) -> tuple[PublicKey, int, int]:
    key = signing_key("a")
    signature = key.sign(message)
    return key.public, int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def test_no_other_form_of_a_signature_verifies() -> None:
    key, r, s = signature_of(b"m")
    good = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    key.verify(b"m", good)
    forms = {
        "high s": r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big"),
        "r of 0": bytes(32) + good[32:],
        "s of 0": good[:32] + bytes(32),
        "r of n": ORDER.to_bytes(32, "big") + good[32:],
        "s of n": good[:32] + ORDER.to_bytes(32, "big"),
        "all ones": b"\xff" * 64,
        "all zeros": bytes(64),
        "short": good[:-1],
        "long": good + b"\x00",
        "long, with a leading zero in s": good[:32] + b"\x00" + good[32:],
        "empty": b"",
        "DER": encode_dss_signature(r, s),
        "swapped": good[32:] + good[:32],
        "of another message": signing_key("a").sign(b"n"),
        "of another key": signing_key("b").sign(b"m"),
    }
    for name, form in forms.items():
        with pytest.raises(EnvelopeError) as caught:
            key.verify(b"m", form)
        assert (caught.value.code, caught.value.step) == (Code.BAD_SIGNATURE, 8), name
    with pytest.raises(EnvelopeError):
        key.verify(b"", good)


def signature_with(s: int) -> tuple[PublicKey, bytes]:
    """Return a key and its signature over b"m" that has this `s`: the key is chosen so, d = (s k - e) / r."""
    nonce = private_key("nonce")
    r = nonce.public_key().public_numbers().x % ORDER
    digest = int.from_bytes(sha256(b"m").digest(), "big")
    secret = pow(r, -1, ORDER) * (s * nonce.private_numbers().private_value - digest) % ORDER
    key = SigningKey(ec.derive_private_key(secret, ec.SECP256R1())).public
    return key, r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_the_border_of_low_s_is_half_the_order() -> None:
    half = (ORDER - 1) // 2
    for s in (1, 2, half - 1, half):
        key, signature = signature_with(s)
        key.verify(b"m", signature)
    for s in (half + 1, half + 2, ORDER - 1):
        key, signature = signature_with(s)
        with pytest.raises(EnvelopeError):
            key.verify(b"m", signature)


def test_leading_zeros_are_not_left_out() -> None:
    key, signature = signature_with(2**240)
    key.verify(b"m", signature)
    with pytest.raises(EnvelopeError):
        key.verify(b"m", signature[:32] + signature[33:])


def point_off_the_curve() -> bytes:
    raw = bytearray(signing_key("a").public.raw)
    raw[-1] ^= 1
    return bytes(raw)


BAD_KEYS = {
    "off the curve": point_off_the_curve(),
    "zero": bytes(64),
    "x beyond the field": PRIME.to_bytes(32, "big") + signing_key("a").public.raw[32:],
    "all ones": b"\xff" * 64,
    "short": signing_key("a").public.raw[:-1],
    "long": signing_key("a").public.raw + b"\x00",
    "with its point prefix": b"\x04" + signing_key("a").public.raw,
    "empty": b"",
}


@pytest.mark.parametrize("raw", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_is_a_point_on_the_curve(raw: bytes) -> None:
    for make in (PublicKey, PublicKey.parse):
        with pytest.raises(EnvelopeError) as caught:
            make(raw)
        assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 2)


def test_a_key_is_bytes() -> None:
    with pytest.raises(EnvelopeError):
        PublicKey(cast("bytes", "a" * 64))


def test_a_key_seen_before_is_not_loaded_again() -> None:
    raw = signing_key("a").public.raw
    assert PublicKey.parse(raw) is PublicKey.parse(bytes(bytearray(raw)))
    assert PublicKey.parse(raw) == PublicKey(raw)
    assert hash(PublicKey.parse(raw)) == hash(PublicKey(raw))
    assert PublicKey(raw) != signing_key("b").public


def test_public_half_is_that_of_the_private_key() -> None:
    numbers = private_key("a").public_key().public_numbers()
    assert signing_key("a").public.raw == numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def test_a_signing_key_is_on_p_256() -> None:
    with pytest.raises(SealError):
        SigningKey(ec.derive_private_key(5, ec.SECP384R1()))
    with pytest.raises(SealError):
        SigningKey(ec.derive_private_key(5, ec.SECP256K1()))


def test_a_signing_key_shows_nothing_and_stays() -> None:
    key = signing_key("a")
    secret = private_key("a").private_numbers().private_value
    assert repr(key) == "SigningKey(...)"
    assert str(secret) not in f"{key!r}{key!s}"
    with pytest.raises(TypeError, match="stays"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="stays"):
        copy.copy(key)
    with pytest.raises(TypeError, match="stays"):
        copy.deepcopy(key)


def test_signatures_are_plain_es256() -> None:
    """Verified by `cryptography` alone, as another implementation would."""
    signature = signing_key("a").sign(b"m")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    private_key("a").public_key().verify(encode_dss_signature(r, s), b"m", ec.ECDSA(SHA256()))
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
