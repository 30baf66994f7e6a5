"""NATS' keys as text: known ones, their round trips, and everything that is none."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.control.callout.nkeys import (
    CurveKey,
    NkeyError,
    Prefix,
    SigningKey,
    decode_public,
    decode_seed,
    encode_public,
    encode_seed,
    verify,
)

# From the documentation of NATS: a user's seed and its public key.
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_a_known_key() -> None:
    key = SigningKey.from_seed(SEED, Prefix.USER)
    assert key.public == PUBLIC
    assert key.seed() == SEED


@given(st.sampled_from(Prefix), st.binary(min_size=32, max_size=32))
def test_round_trips(prefix: Prefix, raw: bytes) -> None:
    public, seed = encode_public(prefix, raw), encode_seed(prefix, raw)
    assert public.startswith(prefix.letter)
    assert seed.startswith("S" + prefix.letter)
    assert decode_public(public, prefix) == raw
    assert decode_seed(seed, prefix) == raw


@given(st.integers(min_value=0, max_value=55), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_every_changed_letter_is_noticed(at: int, letter: str) -> None:
    changed = PUBLIC[:at] + letter + PUBLIC[at + 1 :]
    if changed != PUBLIC:
        with pytest.raises(NkeyError):
            decode_public(changed, Prefix.USER)


@given(st.text(max_size=80))
def test_any_text_is_a_key_or_one_error(text: str) -> None:
    for decode in (decode_public, decode_seed):
        with pytest.raises(NkeyError):
            decode(text, Prefix.SERVER)


@pytest.mark.parametrize("text", ["", PUBLIC[:-1], PUBLIC + "A", PUBLIC.lower(), PUBLIC[:-1] + "\n", SEED])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(NkeyError):
        decode_public(text, Prefix.USER)


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(NkeyError, match="begins with A"):
        decode_public(PUBLIC, Prefix.ACCOUNT)
    with pytest.raises(NkeyError, match="begins with SA"):
        SigningKey.from_seed(SEED, Prefix.ACCOUNT)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_have_32_bytes(length: int) -> None:
    with pytest.raises(NkeyError):
        encode_public(Prefix.USER, bytes(length))
    with pytest.raises(NkeyError):
        encode_seed(Prefix.USER, bytes(length))


def test_a_signature_is_by_its_key_over_its_data() -> None:
    key, other = SigningKey.generate(Prefix.SERVER), SigningKey.generate(Prefix.SERVER)
    signature = key.sign(b"data")
    verify(key.public, Prefix.SERVER, signature, b"data")
    for public, prefix, found, data in (
        (other.public, Prefix.SERVER, signature, b"data"),
        (key.public, Prefix.SERVER, signature, b"other"),
        (key.public, Prefix.SERVER, signature[:-1], b"data"),
        (key.public, Prefix.ACCOUNT, signature, b"data"),
        ("N", Prefix.SERVER, signature, b"data"),
    ):
        with pytest.raises(NkeyError):
            verify(public, prefix, found, data)


def test_a_seed_is_never_shown() -> None:
    key = SigningKey.from_seed(SEED, Prefix.USER)
    assert SEED not in repr(key)
    assert SEED[2:20] not in str(key)


def nkey(raw: bytes) -> str:
    """Return bytes as an nkey is written, with their CRC-16 (XMODEM), little-endian."""
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def test_a_seed_is_one_by_its_first_five_bits() -> None:
    first = encode_seed(Prefix.USER, bytes(32))
    raw = base64.b32decode(first + "=" * (-len(first) % 8))[:-2]
    assert nkey(raw) == first
    for bit in (0x80, 0x40, 0x20, 0x10, 0x08):
        with pytest.raises(NkeyError, match="not a seed"):
            decode_seed(nkey(bytes([raw[0] ^ bit]) + raw[1:]), Prefix.USER)


@pytest.mark.parametrize("length", [1, 27, 37, 38])
def test_a_key_of_another_length_is_none(length: int) -> None:
    with pytest.raises(NkeyError, match="wrong length"):
        decode_public(nkey(bytes([Prefix.USER]) + bytes(length)), Prefix.USER)
    assert decode_public(nkey(bytes([Prefix.USER]) + bytes(32)), Prefix.USER) == bytes(32)


def test_a_seed_has_one_spelling() -> None:
    """Its last letter has two bits that say nothing."""
    seed = encode_seed(Prefix.USER, bytes(range(32)))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    at = letters.index(seed[-1])
    assert at % 4 == 0
    for other in letters[at + 1 : at + 4]:
        with pytest.raises(NkeyError, match="checksum"):
            decode_seed(seed[:-1] + other, Prefix.USER)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_nothing_is_sealed_for_a_key_of_low_order(point: bytes) -> None:
    key = CurveKey.generate()
    with pytest.raises(NkeyError):
        key.seal(b"answer", encode_public(Prefix.CURVE, point))
    with pytest.raises(NkeyError):
        key.open(b"xkv1" + bytes(64), encode_public(Prefix.CURVE, point))
