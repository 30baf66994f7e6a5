"""Signed notes: the published one, who is ignored and who is not, and bytes that are no notes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.log.note import (
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    base64_text,
    parse_note,
    sign_note,
    verify_note,
)

VKEY = NoteVerifier.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
SIGNATURE = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
NOTE = f"This is an example message.\n\n\u2014 example.com/foo {SIGNATURE}\n".encode()
"""The example of C2SP signed-note."""

OLD, NEW, OTHER = (NoteSigner(name, bytes([seed]) * 32) for seed, name in enumerate(["log/a", "log/a", "witness"]))


def refused(data: bytes, *verifiers: NoteVerifier) -> Code:
    with pytest.raises(LogError) as caught:
        verify_note(data, verifiers)
    return caught.value.code


def test_the_published_note() -> None:
    assert verify_note(NOTE, [VKEY]) == ("This is an example message.\n", (VKEY,))
    for at in range(len(NOTE)):
        flipped = bytearray(NOTE)
        flipped[at] ^= 1
        refused(bytes(flipped), VKEY)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    note = sign_note("text\n", [OTHER, OLD])
    assert verify_note(note, [OLD.verifier]).signers == (OLD.verifier,)
    assert verify_note(note, [OLD.verifier, NEW.verifier, OTHER.verifier]).signers == (OTHER.verifier, OLD.verifier)
    assert refused(note, NEW.verifier) is Code.UNTRUSTED_NOTE
    assert refused(note) is Code.UNTRUSTED_NOTE


def test_a_bad_signature_of_a_known_key_refuses_the_note_whoever_else_signed() -> None:
    bad = base64_text(OTHER.verifier.key_id + bytes(64))
    note = sign_note("text\n", [OLD]) + f"\u2014 witness {bad}\n".encode()
    assert verify_note(note, [OLD.verifier]).text == "text\n"
    assert refused(note, OLD.verifier, OTHER.verifier) is Code.BAD_NOTE_SIGNATURE


def test_a_key_is_known_by_its_name_and_id_together() -> None:
    """Of another name or another id it is a signature like any unknown one."""
    good = sign_note("text\n", [OLD])
    renamed = f"\u2014 log/b {base64_text(OLD.verifier.key_id + bytes(64))}\n".encode()
    other_id = f"\u2014 log/a {base64_text(bytes(4) + bytes(64))}\n".encode()
    assert verify_note(good + renamed + other_id, [OLD.verifier]).signers == (OLD.verifier,)


def test_two_keys_of_one_name_and_id_are_a_mistake() -> None:
    twin = NoteVerifier("log/a", NEW.verifier.public)
    object.__setattr__(twin, "key_id", OLD.verifier.key_id)
    with pytest.raises(ConfigurationError, match="two verifier keys"):
        verify_note(NOTE, [OLD.verifier, twin])
    assert verify_note(NOTE, [VKEY, VKEY]).signers == (VKEY,)


def test_two_signers_overlap() -> None:
    note = sign_note("text\n", [OLD, NEW])
    assert verify_note(note, [OLD.verifier]).signers == (OLD.verifier,)
    assert verify_note(note, [NEW.verifier]).signers == (NEW.verifier,)


def test_a_text_may_hold_empty_lines_and_is_split_at_the_last() -> None:
    assert parse_note(sign_note("one\n\ntwo\n\n\n", [OLD])).text == "one\n\ntwo\n\n\n"
    note = parse_note(NOTE)
    assert note.signatures == (NoteSignature("example.com/foo", VKEY.key_id, note.signatures[0].signature),)


LINE = f"\u2014 a {base64_text(bytes(5))}\n"


def test_how_many_signatures_a_note_may_have() -> None:
    """At least 16 must be taken, of up to 5 kB each; more than 64, and more than 131,072 bytes, are not."""
    assert len(parse_note(("t\n\n" + f"\u2014 a {base64_text(bytes(4 + 4_900))}\n" * 16).encode()).signatures) == 16
    assert len(parse_note(("t\n\n" + LINE * 64).encode()).signatures) == 64
    assert refused(("t\n\n" + LINE * 65).encode()) is Code.BAD_NOTE
    assert refused(("t" * 131_072 + "\n\n" + LINE).encode()) is Code.BAD_NOTE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text\n" + LINE.encode(),
        LINE.encode(),
        b"text\n\n" + LINE.encode()[:-1],
        b"text\n\n" + LINE.encode() + b"x",
        b"text\n\n" + LINE.encode() + b"\n",
        b"text\n\n- a AAAAAAA=\n",
        b"text\n\n" + "\u2014a AAAAAAA=\n".encode(),
        b"text\n\n" + "\u2014 a\n".encode(),
        b"text\n\n" + "\u2014  AAAAAAA=\n".encode(),
        b"text\n\n" + "\u2014 a AAAAAA==\n".encode(),
        b"text\n\n" + "\u2014 a AAAAAAA\n".encode(),
        b"text\n\n" + "\u2014 a b AAAAAAA=\n".encode(),
        b"text\n\n" + "\u2014 a+b AAAAAAA=\n".encode(),
        b"te\rxt\n\n" + LINE.encode(),
        b"te\x00xt\n\n" + LINE.encode(),
        b"te\tt\n\n" + LINE.encode(),
        b"te\xff\n\n" + LINE.encode(),
        b"te\xed\xa0\x80\n\n" + LINE.encode(),
    ],
)
def test_what_is_no_note(data: bytes) -> None:
    assert refused(data, OLD.verifier) is Code.BAD_NOTE


@pytest.mark.parametrize("text", ["", "text", "te\tt\n", "\ud800\n", "x" * 8_192 + "\n"])
def test_what_cannot_be_signed(text: str) -> None:
    with pytest.raises(LogError) as caught:
        sign_note(text, [OLD])
    assert caught.value.code is Code.BAD_NOTE


def test_a_note_has_a_signer() -> None:
    with pytest.raises(LogError, match="no signer"):
        sign_note("text\n", [])


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60), st.integers(0, 3))
def test_every_text_is_read_as_it_was_signed(text: str, blank: int) -> None:
    signed = "\n" * blank + text + "\n"
    assert verify_note(sign_note(signed, [OLD, OTHER]), [OTHER.verifier]) == (signed, (OTHER.verifier,))


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: NOTE + rest))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    try:
        verify_note(data, [VKEY])
    except LogError:
        return
    assert data.startswith(NOTE)


def test_notes_as_long_as_may_be() -> None:
    signer = NoteSigner("log", bytes(32))
    rest = len(sign_note("\n", [signer])) - 1
    assert len(sign_note("x" * (8_192 - rest - 1) + "\n", [signer])) == 8_192
    with pytest.raises(LogError, match="too large"):
        sign_note("x" * (8_192 - rest) + "\n", [signer])
    longest = b"x" * (131_072 - rest) + sign_note("\n", [signer])
    assert (
        len(parse_note(longest[:-0] if len(longest) == 131_072 else longest[len(longest) - 131_072 :]).signatures) == 1
    )
    with pytest.raises(LogError, match="too large"):
        parse_note(b"x" * 131_073)
