"""Checkpoints: their three lines, whose they are, and that one extends another."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import (
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_extension,
)
from sealbus.envelopes.log.note import NoteSigner, sign_note
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.trust.merkle import leaf_hash

ORIGIN = "log.example.org/audit"
LOG, OTHER = NoteSigner(ORIGIN, bytes(32)), NoteSigner("other", bytes(32))
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
PUBLISHED = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"
"""The example of C2SP tlog-checkpoint."""


def test_the_published_text() -> None:
    checkpoint = parse_checkpoint(PUBLISHED)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.root.hex().startswith("0ac5186a91863e8e")
    assert checkpoint.text == PUBLISHED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        f"a\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"a\n01\n{ROOT}\n",
        f"a\n-1\n{ROOT}\n",
        f"a\n9007199254740992\n{ROOT}\n",
        f"a\n0\n{ROOT}\n",
        f"a\n1\n{ROOT[:-4]}\n",
        f"a\n1\n{ROOT}=\n",
        f"a\n1\n{ROOT}\nextension\n",
        f"a\n1\n{ROOT}\n\n",
        f"a\n1\n{ROOT}\nextension",
        f"{'a' * 257}\n1\n{ROOT}\n",
        f"a\tb\n1\n{ROOT}\n",
        f"\ud800\n1\n{ROOT}\n",
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(LogError) as caught:
        parse_checkpoint(text)
    assert caught.value.code is Code.BAD_NOTE


def test_of_nothing_there_is_one_root() -> None:
    assert Checkpoint("a", 0, sha256().digest()).text.startswith("a\n0\n47DEQ")


def code(note: bytes, origin: str = ORIGIN) -> Code:
    with pytest.raises(LogError) as caught:
        open_checkpoint(note, origin=origin, verifiers=[LOG.verifier])
    return caught.value.code


def test_a_signed_checkpoint_is_opened_with_its_key_and_origin() -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), [LOG, OTHER])
    opened = open_checkpoint(note, origin=ORIGIN, verifiers=[LOG.verifier])
    assert (opened.checkpoint.size, opened.note, opened.signers) == (5, note, (LOG.verifier,))
    assert code(note, "another") is Code.WRONG_LOG
    assert code(sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), [OTHER])) is Code.UNTRUSTED_NOTE
    assert code(note.replace(b"\n5\n", b"\n6\n")) is Code.BAD_NOTE_SIGNATURE
    assert code(sign_note("something else\n", [LOG])) is Code.BAD_NOTE
    assert code(b"") is Code.BAD_NOTE


def test_one_checkpoint_extends_another() -> None:
    tiling, leaves = TreeBuilder(), [leaf_hash(bytes([number])) for number in range(3)]
    found = [Checkpoint(ORIGIN, 0, tiling.root())]
    for leaf in leaves:
        tiling.append(leaf)
        found.append(Checkpoint(ORIGIN, tiling.size, tiling.root()))
    verify_extension(found[2], found[3], [leaves[2]])
    verify_extension(found[0], found[3], [])
    verify_extension(found[3], found[3], [])
    fork = Checkpoint(ORIGIN, 3, bytes(32))
    for old, new, path, expected in [
        (found[3], found[2], [leaves[2]], Code.INCONSISTENT_LOG),
        (found[3], fork, [], Code.INCONSISTENT_LOG),
        (found[2], fork, [leaves[2]], Code.BAD_PROOF),
        (found[2], found[3], [], Code.BAD_PROOF),
        (Checkpoint("other", 2, found[2].root), found[3], [leaves[2]], Code.WRONG_LOG),
    ]:
        with pytest.raises(LogError) as caught:
            verify_extension(old, new, path)
        assert caught.value.code is expected


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


@given(texts, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_as_it_was_signed(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)
    note = sign_checkpoint(checkpoint, [LOG])
    assert open_checkpoint(note, origin=origin, verifiers=[LOG.verifier]).checkpoint == checkpoint


@given(st.text(max_size=80) | st.text(max_size=9).map(lambda text: PUBLISHED.replace("20852163", text)))
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    try:
        checkpoint = parse_checkpoint(text)
    except LogError:
        return
    assert checkpoint.text == text


@pytest.mark.parametrize("other", [f"{ORIGIN}2", ORIGIN.upper(), ORIGIN[:-1]])
def test_an_origin_is_compared_as_a_whole(other: str) -> None:
    root = sha256().digest()
    signed = sign_checkpoint(Checkpoint(other, 0, root), [LOG])
    with pytest.raises(LogError) as raised:
        open_checkpoint(signed, origin=ORIGIN, verifiers=[LOG.verifier])
    assert raised.value.code is Code.WRONG_LOG
    with pytest.raises(LogError) as raised:
        verify_extension(Checkpoint(ORIGIN, 0, root), Checkpoint(other, 0, root), ())
    assert raised.value.code is Code.WRONG_LOG


def test_the_edges_of_what_a_checkpoint_says() -> None:
    root = sha256().digest()
    assert Checkpoint("o" * 256, 0, root).size == 0
    assert Checkpoint("o", 2**53 - 1, root).size == 2**53 - 1
    with pytest.raises(LogError):
        Checkpoint("o", 2**53, root)
    for origin in ("o" * 257, "o\udfff", "o\ud800", "o\x1f"):
        with pytest.raises(LogError):
            Checkpoint(origin, 0, root)
    assert Checkpoint("o \ue000\ud7ff", 0, root).origin == "o \ue000\ud7ff"
    with pytest.raises(LogError):
        Checkpoint("o", 0, root[:-1] + bytes([root[-1] ^ 1]))
