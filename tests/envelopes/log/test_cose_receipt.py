"""COSE receipts: their bytes, that they show one entry, and every altered one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, sign_cose_receipt, verify_cose_receipt
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.receipt import Receipt
from sealbus.envelopes.trust.merkle import leaf_hash, paths

ORIGIN = "log.example.org/audit"
LOG = NoteSigner(ORIGIN, bytes(32))
OTHER = NoteSigner(ORIGIN, bytes([1]) * 32)
LEAVES = [leaf_hash(bytes([number])) for number in range(7)]
ROOT, PATHS = paths(LEAVES)
NOTE = sign_checkpoint(Checkpoint(ORIGIN, len(LEAVES), ROOT), [LOG])


def made(index: int) -> CoseReceipt:
    return sign_cose_receipt(Receipt(index, PATHS[index], NOTE), LEAVES[index], origin=ORIGIN, signer=LOG)


GOOD = made(4)
DATA = GOOD.encode()


def verified(receipt: CoseReceipt, leaf: bytes = LEAVES[4], origin: str = ORIGIN) -> Checkpoint:
    return verify_cose_receipt(receipt, leaf, origin=origin, verifiers=[OTHER.verifier, LOG.verifier])


def code(receipt: CoseReceipt, leaf: bytes = LEAVES[4], origin: str = ORIGIN) -> Code:
    with pytest.raises(LogError) as caught:
        verified(receipt, leaf, origin)
    return caught.value.code


def test_its_bytes() -> None:
    protected = "a5 0127 0444" + GOOD.key_id.hex() + "0fa10175" + ORIGIN.encode().hex() + "19018b01 3a00010001 07"
    proof = "83 07 04 83" + "".join(f"5820{node.hex()}" for node in PATHS[4])
    head = bytes.fromhex(protected)
    text = f"d284 58{len(head):02x} {protected} a119018ca12081 58{len(bytes.fromhex(proof)):02x} {proof} f6 5840"
    assert bytes.fromhex(text) + GOOD.signature == DATA
    signed = bytes.fromhex("846a") + b"Signature1" + bytes([0x58, len(head)]) + head + b"\x40\x58\x20" + ROOT
    LOG.verifier.verify(signed, GOOD.signature)


def test_it_shows_its_entry_and_no_other() -> None:
    for index, leaf in enumerate(LEAVES):
        receipt = CoseReceipt.parse(made(index).encode())
        assert verified(receipt, leaf) == Checkpoint(ORIGIN, len(LEAVES), ROOT)
        assert code(receipt, LEAVES[index - 1]) is Code.BAD_NOTE_SIGNATURE
    assert code(replace(GOOD, size=8)) in (Code.BAD_PROOF, Code.BAD_NOTE_SIGNATURE)
    assert code(replace(GOOD, path=GOOD.path[1:])) is Code.BAD_PROOF
    assert code(replace(GOOD, path=(*GOOD.path, bytes(32)))) is Code.BAD_PROOF
    for origin in ("another", ORIGIN[:-1], ORIGIN + "/2"):
        assert code(GOOD, origin=origin) is Code.WRONG_LOG
    for key_id in (bytes(4), GOOD.key_id[:3] + bytes([GOOD.key_id[3] ^ 1])):
        assert code(replace(GOOD, key_id=key_id)) is Code.UNTRUSTED_NOTE
    assert code(replace(GOOD, key_id=OTHER.verifier.key_id)) is Code.BAD_NOTE_SIGNATURE


def test_only_a_checkpoint_of_the_same_key_is_signed() -> None:
    receipt = Receipt(4, PATHS[4], NOTE)
    for leaf, origin, signer, refused in (
        (LEAVES[4], ORIGIN, OTHER, Code.UNTRUSTED_NOTE),
        (LEAVES[5], ORIGIN, LOG, Code.BAD_PROOF),
        (LEAVES[4], "another", LOG, Code.WRONG_LOG),
    ):
        with pytest.raises(LogError) as caught:
            sign_cose_receipt(receipt, leaf, origin=origin, signer=signer)
        assert caught.value.code is refused


@pytest.mark.slow
def test_every_byte_counts() -> None:
    others = {DATA[:at] + bytes([byte]) + DATA[at + 1 :] for at in range(len(DATA)) for byte in range(256)}
    others |= {DATA[:at] + DATA[at + 1 :] for at in range(len(DATA))}
    others |= {DATA[:at] + bytes([byte]) + DATA[at:] for at in range(len(DATA) + 1) for byte in (0, 1, 0x40, 0xFF)}
    others |= {DATA[:at] for at in range(len(DATA))}
    others.discard(DATA)
    assert len(others) > 60_000
    for other in others:
        with pytest.raises(LogError):
            verified(CoseReceipt.parse(other))


def test_two_sizes_and_longer_heads_are_refused() -> None:
    for short, long in (
        (b"\x83\x07", b"\x83\x08"),
        (b"\x83\x07", b"\x83\x18\x07"),
        (b"\xf6\x58\x40", b"\xf6\x59\x00\x40"),
    ):
        assert DATA.count(short) == 1
        with pytest.raises(LogError, match="not deterministic, or two sizes"):
            CoseReceipt.parse(DATA.replace(short, long))


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": ""},
        {"origin": "a" * 257},
        {"origin": "a\nb"},
        {"size": 0},
        {"size": 2**53},
        {"size": 4},
        {"index": -1},
        {"index": 7},
        {"path": (bytes(31), bytes(32))},
        {"path": (bytes(32), bytes(31))},
        {"path": (bytes(32),) * 64},
        {"key_id": bytes(3)},
        {"signature": bytes(63)},
    ],
)
def test_what_no_receipt_can_be(changes: dict[str, object]) -> None:
    with pytest.raises(LogError, match="bad_note"):
        replace(GOOD, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (DATA + bytes(4_097 - len(DATA)), "too large"),
        (DATA + bytes(4_096 - len(DATA)), "not deterministic"),
        (DATA.replace(b"\x83\x07\x04\x83", b"\x83\x07\x24\x83", 1), "another form"),
        (DATA.replace(b"\x83\x07\x04\x83", b"\x83\x07\x1c\x83", 1), "another form"),
        (DATA.replace(b"\xa1\x20\x81", b"\xa1\x20\x82", 1), "another form"),
        (DATA.replace(ORIGIN.encode(), b"\xff" * len(ORIGIN), 1), "not UTF-8"),
        (DATA.replace(b"\x83\x07\x04\x83", b"\x83\x07\x04\x98\x40", 1), "path too long"),
        (
            DATA.replace(b"\x3a\x00\x01\x00\x01\x07", b"\x3a\x00\x01\x00\x01\x1b" + b"\xff" * 8, 1),
            "number is too large",
        ),
        (DATA + b"\x00", "not deterministic"),
        (b"", "cut short"),
    ],
)
def test_what_is_no_receipt(data: bytes, detail: str) -> None:
    with pytest.raises(LogError, match=f"bad_note.*{detail}"):
        CoseReceipt.parse(data)


def test_the_longest_path_is_read() -> None:
    longest = replace(GOOD, path=(bytes(32),) * 63)
    assert CoseReceipt.parse(longest.encode()) == longest


NUMBERS = st.integers(0, 2**53 - 2) | st.sampled_from(
    [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 2]
)


@given(
    NUMBERS,
    st.integers(1, 2**53 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    st.sampled_from(["a", ORIGIN, "é" * 128, "a" * 23, "a" * 24, "a" * 255, "a" * 256]),
)
def test_every_receipt_is_read_as_it_was_written(index: int, more: int, path: tuple[bytes, ...], origin: str) -> None:
    receipt = CoseReceipt(origin, min(index + more, 2**53 - 1), index, path, bytes(4), bytes(64))
    assert CoseReceipt.parse(receipt.encode()) == receipt
