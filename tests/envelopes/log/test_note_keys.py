"""Keys of notes: the published example, and texts that are no keys."""

from __future__ import annotations

import pickle

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier, base64_text

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
"""The example of C2SP signed-note."""


def test_the_published_verifier_key() -> None:
    verifier = NoteVerifier.parse(VKEY)
    assert (verifier.name, verifier.key_id.hex()) == ("example.com/foo", "530d903a")
    assert verifier.text == VKEY


def test_a_signer_is_read_back_from_its_text() -> None:
    signer = NoteSigner("log.example.org/audit", bytes(range(32)))
    again = NoteSigner.parse(signer.secret_text())
    assert again.verifier == signer.verifier == NoteVerifier.parse(signer.verifier.text)
    assert signer.secret_text().startswith("PRIVATE+KEY+log.example.org/audit+")
    again.verifier.verify(b"text", signer.sign(b"text"))


def test_a_signature_is_over_the_whole_message() -> None:
    signer = NoteSigner("a", bytes(32))
    for message, signature in ((b"other", signer.sign(b"text")), (b"text", bytes(64)), (b"text", b"")):
        with pytest.raises(LogError) as caught:
            signer.verifier.verify(message, signature)
        assert caught.value.code is Code.BAD_NOTE_SIGNATURE


def test_a_private_key_is_not_shown_and_stays() -> None:
    signer = NoteSigner("a", bytes(32))
    assert repr(signer) == "NoteSigner('a', ...)"
    with pytest.raises(TypeError, match="stays"):
        pickle.dumps(signer)


GOOD = base64_text(b"\x01" + bytes(32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("foo", "fop"),
        VKEY + "=",
        VKEY[:-4],
        VKEY.replace("+AekyeR", "+BekyeR"),
        VKEY.replace("example.com/foo", ""),
        VKEY.replace("example.com", "example com"),
        f"a++{GOOD}",
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(LogError) as caught:
        NoteVerifier.parse(text)
    assert caught.value.code is Code.BAD_NOTE
    with pytest.raises(LogError):
        NoteSigner.parse("PRIVATE+KEY+" + text)


def test_a_key_is_32_bytes_and_a_public_one_is_no_private_one() -> None:
    with pytest.raises(LogError, match="public key"):
        NoteVerifier("a", bytes(31))
    with pytest.raises(LogError, match="seed"):
        NoteSigner("a", bytes(33))
    with pytest.raises(LogError, match="not a private key"):
        NoteSigner.parse(VKEY)


def test_key_ids_and_the_mark_of_a_private_key_are_whole() -> None:
    secret = next(
        text
        for number in range(9)
        for text in [NoteSigner("log", bytes([number]) * 32).secret_text()]
        if any(map(str.isalpha, text.split("+")[3]))
    )
    for text, parse in ((VKEY, NoteVerifier.parse), (secret, NoteSigner.parse)):
        mark = "PRIVATE+KEY+" if text == secret else ""
        name, key_id, rest = text.removeprefix(mark).split("+", 2)
        assert any(map(str.isalpha, key_id))
        for other in (key_id[:-1], f"{key_id}0", key_id.upper()):
            with pytest.raises(LogError):
                parse(f"{mark}{name}+{other}+{rest}")
    for other in (secret.replace("PRIVATE", "Private"), secret.replace("KEY", "key")):
        with pytest.raises(LogError):
            NoteSigner.parse(other)
