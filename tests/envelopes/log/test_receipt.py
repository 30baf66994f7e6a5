"""Receipts: what they look like, that they show one entry, and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.note import NoteSigner, base64_text
from sealbus.envelopes.log.receipt import Receipt, encode_receipt, parse_receipt, verify_receipt
from sealbus.envelopes.trust.merkle import leaf_hash, paths

ORIGIN = "log.example.org/audit"
LOG = NoteSigner(ORIGIN, bytes(32))
LEAVES = [leaf_hash(bytes([number])) for number in range(7)]
ROOT, PATHS = paths(LEAVES)
NOTE = sign_checkpoint(Checkpoint(ORIGIN, len(LEAVES), ROOT), [LOG])
NODE = base64_text(bytes(32))


def test_its_text() -> None:
    receipt = Receipt(4, PATHS[4], NOTE, b"extra")
    nodes = "".join(f"{base64_text(node)}\n" for node in PATHS[4])
    assert encode_receipt(receipt) == f"c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 4\n{nodes}\n".encode() + NOTE
    assert parse_receipt(encode_receipt(receipt)) == receipt


def code(receipt: Receipt, leaf: bytes, origin: str = ORIGIN) -> Code:
    with pytest.raises(LogError) as caught:
        verify_receipt(receipt, leaf, origin=origin, verifiers=[LOG.verifier])
    return caught.value.code


def test_it_shows_its_entry_and_no_other() -> None:
    for index, leaf in enumerate(LEAVES):
        receipt = parse_receipt(encode_receipt(Receipt(index, PATHS[index], NOTE)))
        assert verify_receipt(receipt, leaf, origin=ORIGIN, verifiers=[LOG.verifier]).root == ROOT
        assert code(receipt, LEAVES[index - 1]) is Code.BAD_PROOF
        assert code(Receipt(index, PATHS[index][1:], NOTE), leaf) is Code.BAD_PROOF
        assert code(receipt, leaf, "another") is Code.WRONG_LOG
    assert code(Receipt(7, PATHS[6], NOTE), LEAVES[6]) is Code.BAD_PROOF
    assert code(Receipt(0, PATHS[0], NOTE.replace(b"\n7\n", b"\n8\n")), LEAVES[0]) is Code.BAD_NOTE_SIGNATURE


def test_the_tree_of_one_has_a_receipt_without_nodes() -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, LEAVES[0]), [LOG])
    data = encode_receipt(Receipt(0, (), note))
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + ORIGIN.encode())
    verify_receipt(parse_receipt(data), LEAVES[0], origin=ORIGIN, verifiers=[LOG.verifier])


@pytest.mark.parametrize(
    "head",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v2\nindex 0",
        "c2sp.org/tlog-proof@v11\nindex 0",
        "c2sp.org/tlog-proof@v\nindex 0",
        "C2SP.org/tlog-proof@v1\nindex 0",
        "c2sp.org/tlog-proof@V1\nindex 0",
        "c2sp.org/tlog-proof@v1\nIndex 0",
        "c2sp.org/tlog-proof@v1\nExtra ZXh0cmE=\nindex 0",
        "c2sp.org/tlog-proof@v1\n",
        "c2sp.org/tlog-proof@v1\nindex",
        "c2sp.org/tlog-proof@v1\n0",
        "c2sp.org/tlog-proof@v1\nindex 00",
        "c2sp.org/tlog-proof@v1\nindex -1",
        "c2sp.org/tlog-proof@v1\nindex 0 ",
        "c2sp.org/tlog-proof@v1\nextra ZXh0cmE=",
        "c2sp.org/tlog-proof@v1\nextra \nindex 0",
        "c2sp.org/tlog-proof@v1\nextra ZXh0cmE\nindex 0",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra ZXh0cmE=",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{NODE[4:]}",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{NODE} ",
        f"c2sp.org/tlog-proof@v1\r\nindex 0\r\n{NODE}\r",
        "c2sp.org/tlog-proof@v1\nindex 0" + f"\n{NODE}" * 64,
        "c2sp.org/tlog-proof@v1\nindex \u0660",
    ],
)
def test_what_is_no_receipt(head: str) -> None:
    with pytest.raises(LogError) as caught:
        parse_receipt(head.encode() + b"\n\n" + NOTE)
    assert caught.value.code is Code.BAD_NOTE


@pytest.mark.parametrize("data", [b"", b"c2sp.org/tlog-proof@v1\nindex 0\n", b"c2sp.org/tlog-proof@v1\nindex 0"])
def test_a_receipt_without_a_checkpoint(data: bytes) -> None:
    with pytest.raises(LogError, match="bad_note"):
        parse_receipt(data)


def test_how_large_a_receipt_may_be() -> None:
    largest = Receipt(0, PATHS[0], NOTE, bytes(1_500_000))
    assert parse_receipt(encode_receipt(largest)) == largest
    with pytest.raises(LogError, match="too large"):
        encode_receipt(Receipt(0, (), NOTE, bytes(1_600_000)))
    with pytest.raises(LogError, match="too large"):
        parse_receipt(bytes(2_097_153))


def test_the_largest_is_written_and_read_and_one_byte_more_is_neither() -> None:
    head = len(encode_receipt(Receipt(0, (), b"")))
    largest = Receipt(0, (), bytes(2_097_152 - head))
    data = encode_receipt(largest)
    assert len(data) == 2_097_152
    assert parse_receipt(data) == largest
    with pytest.raises(LogError, match="too large"):
        encode_receipt(Receipt(0, (), largest.note + b"0"))
    with pytest.raises(LogError, match="too large"):
        parse_receipt(data + b"0")


def test_the_longest_path_is_written_and_read() -> None:
    longest = Receipt(2**53 - 1, (bytes(32),) * 63, NOTE)
    assert parse_receipt(encode_receipt(longest)) == longest


@pytest.mark.parametrize(
    ("index", "path"),
    [
        (-1, ()),
        (2**53, ()),
        (0, (bytes(31),)),
        (0, (bytes(33), bytes(32))),
        (0, (bytes(32), bytes(31))),
        (0, (bytes(32),) * 64),
    ],
)
def test_what_no_receipt_can_be(index: int, path: tuple[bytes, ...]) -> None:
    with pytest.raises(LogError, match="bad_note"):
        Receipt(index, path, NOTE)


@given(
    st.integers(0, 2**53 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    st.binary(max_size=90),
    st.binary(max_size=90),
)
def test_every_receipt_is_read_as_it_was_written(
    index: int, path: tuple[bytes, ...], extra: bytes, note: bytes
) -> None:
    receipt = Receipt(index, path, note, extra)
    assert parse_receipt(encode_receipt(receipt)) == receipt


START = b"c2sp.org/tlog-proof@v1\n"


@given(st.binary(max_size=99) | st.binary(max_size=99).map(lambda rest: START + rest) | st.just(START + b"index 1\n\n"))
def test_any_bytes_are_a_receipt_or_refused(data: bytes) -> None:
    try:
        receipt = parse_receipt(data)
    except LogError:
        return
    assert encode_receipt(receipt) == data
