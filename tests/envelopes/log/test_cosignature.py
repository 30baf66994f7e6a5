"""Cosignatures of both types: what they cover, keys as texts, and signatures that are refused."""

from __future__ import annotations

import pickle
from base64 import b64decode
from hashlib import sha256

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, parse_checkpoint, parse_foreign_checkpoint, sign_checkpoint
from sealbus.envelopes.log.cosignature import (
    CosignatureSigner,
    CosignatureType,
    CosignatureVerifier,
    verify_cosignatures,
)
from sealbus.envelopes.log.note import NoteSigner, base64_text, parse_note

ORIGIN = "log.example.org/audit"
WITNESS = "witness.example.com/w1"
LOG = NoteSigner(ORIGIN, bytes(32))
CHECKPOINT = Checkpoint(ORIGIN, 7, sha256(b"root").digest())
TEXT = CHECKPOINT.text.encode()
NOTE = sign_checkpoint(CHECKPOINT, [LOG])
SIGNERS = {kind: CosignatureSigner(WITNESS, kind, bytes([kind]) * 32) for kind in CosignatureType}
TIME = 1_679_315_147
both = pytest.mark.parametrize("kind", list(CosignatureType), ids=[kind.name for kind in CosignatureType])


def refused(code: Code, call: object, *arguments: object) -> None:
    assert callable(call)
    with pytest.raises(LogError) as caught:
        call(*arguments)
    assert caught.value.code is code


def raw(line: str) -> bytes:
    return b64decode(line.split(" ")[2])


@both
def test_a_cosignature_stands_among_the_signatures_of_the_checkpoint(kind: CosignatureType) -> None:
    signer = SIGNERS[kind]
    cosigned = parse_note(NOTE + signer.cosign(TEXT, TIME).encode())
    assert verify_cosignatures(cosigned, [signer.verifier]) == {signer.verifier: TIME}
    assert verify_cosignatures(cosigned, []) == {}
    assert verify_cosignatures(parse_note(NOTE), [signer.verifier]) == {}


def test_two_types_of_one_witness() -> None:
    lines = "".join(signer.cosign(TEXT, TIME + kind) for kind, signer in SIGNERS.items())
    expected = {signer.verifier: TIME + kind for kind, signer in SIGNERS.items()}
    assert verify_cosignatures(parse_note(NOTE + lines.encode()), expected) == expected


@both
def test_a_line_has_the_id_of_the_key_and_the_time_in_seconds(kind: CosignatureType) -> None:
    signer = SIGNERS[kind]
    line = signer.cosign(TEXT, TIME)
    assert line.startswith(f"\u2014 {WITNESS} ")
    assert line.endswith("\n")
    data = raw(line)
    material = bytes([kind]) + signer.verifier.public
    assert data[:4] == signer.verifier.key_id == sha256(f"{WITNESS}\n".encode() + material).digest()[:4]
    assert data[4:12] == TIME.to_bytes(8, "big")
    assert len(data) == 12 + {CosignatureType.ED25519: 64, CosignatureType.ML_DSA_44: 2_420}[kind]


def test_ed25519_covers_the_time_and_the_whole_text() -> None:
    """As tlog-cosignature writes it, checked with the library alone."""
    extended = TEXT + b"an extension\n"
    signature = raw(SIGNERS[CosignatureType.ED25519].cosign(extended, TIME))[12:]
    covered = b"cosignature/v1\ntime 1679315147\n" + extended
    SIGNERS[CosignatureType.ED25519].verifier._loaded.verify(signature, covered)


def test_ml_dsa_covers_name_time_origin_size_and_root() -> None:
    signature = raw(SIGNERS[CosignatureType.ML_DSA_44].cosign(TEXT, TIME))[12:]
    covered = b"".join(
        [
            b"subtree/v1\n\x00",
            b"\x16witness.example.com/w1",
            b"\x00\x00\x00\x00\x64\x18\x50\xcb",
            b"\x15log.example.org/audit",
            bytes(8),
            b"\x00\x00\x00\x00\x00\x00\x00\x07",
            CHECKPOINT.root,
        ]
    )
    SIGNERS[CosignatureType.ML_DSA_44].verifier._loaded.verify(signature, covered)


@both
def test_one_wrong_bit(kind: CosignatureType) -> None:
    verifier = SIGNERS[kind].verifier
    good = raw(SIGNERS[kind].cosign(TEXT, TIME))[4:]
    assert verifier.verify(TEXT, good) == TIME
    for at in (0, 7, 8, len(good) // 2, len(good) - 1):
        wrong = bytearray(good)
        wrong[at] ^= 1
        refused(Code.BAD_NOTE_SIGNATURE, verifier.verify, TEXT, bytes(wrong))
    for cut in (b"", good[:8], good[:-1], good + b"\x00", bytes(8) + good[8:], b"\x80" + good[1:]):
        refused(Code.BAD_NOTE_SIGNATURE, verifier.verify, TEXT, cut)
    for other in (
        Checkpoint(ORIGIN, 8, CHECKPOINT.root),
        Checkpoint(ORIGIN, 7, bytes(32)),
        Checkpoint("another", 7, CHECKPOINT.root),
    ):
        refused(Code.BAD_NOTE_SIGNATURE, verifier.verify, other.text.encode(), good)


@both
def test_another_witness_did_not_sign(kind: CosignatureType) -> None:
    other = CosignatureSigner(WITNESS, kind, bytes(32))
    refused(Code.BAD_NOTE_SIGNATURE, other.verifier.verify, TEXT, raw(SIGNERS[kind].cosign(TEXT, TIME))[4:])


def test_only_ml_dsa_covers_the_name_and_only_ed25519_the_extensions() -> None:
    for kind, signer in SIGNERS.items():
        good = raw(signer.cosign(TEXT, TIME))[4:]
        renamed = CosignatureVerifier("another", kind, signer.verifier.public)
        extended = TEXT + b"extension\n"
        if kind is CosignatureType.ED25519:
            assert renamed.verify(TEXT, good) == TIME
            refused(Code.BAD_NOTE_SIGNATURE, signer.verifier.verify, extended, good)
        else:
            refused(Code.BAD_NOTE_SIGNATURE, renamed.verify, TEXT, good)
            assert signer.verifier.verify(extended, good) == TIME


@both
def test_a_time_is_over_zero_and_below_the_sign_bit(kind: CosignatureType) -> None:
    signer = SIGNERS[kind]
    for time in (0, -1, 1 << 63):
        refused(Code.BAD_NOTE, signer.cosign, TEXT, time)
    for time in (1, (1 << 63) - 1):
        assert signer.verifier.verify(TEXT, raw(signer.cosign(TEXT, time))[4:]) == time


@both
def test_a_known_witness_that_signed_badly_or_twice(kind: CosignatureType) -> None:
    signer = SIGNERS[kind]
    line = signer.cosign(TEXT, TIME).encode()
    refused(Code.BAD_NOTE, verify_cosignatures, parse_note(NOTE + line + line), [signer.verifier])
    bad = f"\u2014 {WITNESS} {base64_text(signer.verifier.key_id + bytes(72))}\n".encode()
    refused(Code.BAD_NOTE_SIGNATURE, verify_cosignatures, parse_note(NOTE + bad), [signer.verifier])
    renamed = bad.replace(WITNESS.encode(), b"another")
    assert verify_cosignatures(parse_note(NOTE + renamed + line), [signer.verifier]) == {signer.verifier: TIME}


@both
@pytest.mark.parametrize("text", [b"", b"text\n", TEXT[:-1], TEXT + b"\n", TEXT.replace(b"7", b"07"), b"\xff" + TEXT])
def test_only_a_checkpoint_is_cosigned(kind: CosignatureType, text: bytes) -> None:
    refused(Code.BAD_NOTE, SIGNERS[kind].cosign, text, TIME)
    refused(Code.BAD_NOTE, SIGNERS[kind].verifier.verify, text, TIME.to_bytes(8, "big") + bytes(64))


def test_ml_dsa_signs_names_and_origins_of_255_bytes() -> None:
    for length in (255, 256):
        text = Checkpoint("o" * length, 7, CHECKPOINT.root).text.encode()
        line = SIGNERS[CosignatureType.ED25519].cosign(text, TIME)
        assert SIGNERS[CosignatureType.ED25519].verifier.verify(text, raw(line)[4:]) == TIME
        CosignatureSigner("n" * length, CosignatureType.ED25519, bytes(32))
        if length == 255:
            signer = CosignatureSigner("n" * length, CosignatureType.ML_DSA_44, bytes(32))
            assert signer.verifier.verify(text, raw(signer.cosign(text, TIME))[4:]) == TIME
        else:
            refused(Code.BAD_NOTE, SIGNERS[CosignatureType.ML_DSA_44].cosign, text, TIME)
            refused(Code.BAD_NOTE, CosignatureSigner, "n" * length, CosignatureType.ML_DSA_44, bytes(32))


@both
def test_keys_as_texts(kind: CosignatureType) -> None:
    signer = SIGNERS[kind]
    text, secret = signer.verifier.text, signer.secret_text()
    assert CosignatureVerifier.parse(text) == signer.verifier
    assert CosignatureSigner.parse(secret).verifier == signer.verifier
    name, key_id, material = text.split("+", 2)
    assert (name, key_id, b64decode(material)[0]) == (WITNESS, signer.verifier.key_id.hex(), kind)
    for parse, good, of_log in (
        (CosignatureVerifier.parse, text, LOG.verifier.text),
        (CosignatureSigner.parse, secret, LOG.secret_text()),
    ):
        kept, _, encoded = good.rpartition(f"{key_id}+")
        other_type = base64_text(bytes([kind ^ 2]) + b64decode(encoded)[1:])
        for wrong in (
            "",
            of_log,
            good[:-4],
            good.replace(key_id, key_id[::-1]),
            good.replace(key_id, key_id[:-1]),
            good.replace(key_id, f"{key_id}0"),
            good.replace(key_id, key_id.upper() if key_id != key_id.upper() else key_id[1:]),
            good.replace(WITNESS, "another"),
            good.replace(WITNESS, "a name"),
            f"{kept}{key_id}+{other_type}",
        ):
            refused(Code.BAD_NOTE, parse, wrong)
    refused(Code.BAD_NOTE, CosignatureSigner.parse, text)
    refused(Code.BAD_NOTE, CosignatureSigner, WITNESS, kind, bytes(31))


@both
def test_a_private_key_is_not_shown_and_stays(kind: CosignatureType) -> None:
    assert repr(SIGNERS[kind]) == f"CosignatureSigner('{WITNESS}', {kind.name}, ...)"
    with pytest.raises(TypeError, match="stays"):
        pickle.dumps(SIGNERS[kind])


def test_extension_lines_are_read_of_other_logs_only() -> None:
    text = CHECKPOINT.text + "one\ntwo\n"
    assert parse_foreign_checkpoint(text) == CHECKPOINT == parse_foreign_checkpoint(CHECKPOINT.text)
    refused(Code.BAD_NOTE, parse_checkpoint, text)
    for wrong in ("", "\n\n\n", text + "\n", text[:-1], CHECKPOINT.text + "\none\n", f"{ORIGIN}\n7\n"):
        refused(Code.BAD_NOTE, parse_foreign_checkpoint, wrong)
