"""Signed notes: a text and who signed it (C2SP signed-note)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.lines import base64_text, check_key_name, parse_base64
from sealbus.envelopes.log.note_keys import NoteSigner, NoteVerifier

__all__ = ["Note", "NoteSignature", "VerifiedNote", "parse_note", "sign_note", "verify_note"]

_DASH: Final = "\u2014 "
_KEY_ID: Final = 4


class NoteSignature(NamedTuple):
    """One signature line, not verified."""

    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """A note of the right form. Its text must be ignored until somebody known has signed it."""

    text: str
    signatures: tuple[NoteSignature, ...]


class VerifiedNote(NamedTuple):
    """A note that at least one known key has signed. Made by `verify_note` only."""

    text: str
    signers: tuple[NoteVerifier, ...]
    """Known keys whose signatures it has."""


def parse_note(data: bytes) -> Note:
    """Return the note that `data` is; raise `LogError` (`bad_note`) for bytes of another form. Nothing is verified.

    At most 131,072 bytes and 64 signatures.
    """
    if len(data) > DEFAULT_LIMITS.note_bytes:
        raise LogError(Code.BAD_NOTE, "too large")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LogError(Code.BAD_NOTE, "not UTF-8") from error
    _check_characters(whole)
    text, blank, signed = whole.rpartition("\n\n")
    if not blank or not signed.endswith("\n"):
        raise LogError(Code.BAD_NOTE, "no blank line, or no signature line after it")
    lines = signed.split("\n")[:-1]
    if len(lines) > DEFAULT_LIMITS.note_signatures:
        raise LogError(Code.BAD_NOTE, "too many signatures")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def verify_note(data: bytes, verifiers: Iterable[NoteVerifier]) -> VerifiedNote:
    """Return the note that `data` is, signed by at least one of `verifiers`.

    Signatures of other keys are ignored; of a known one every signature must verify. Raises `LogError`: `bad_note` for
    another form, `bad_note_signature` for a bad signature of a known key, `untrusted_note` if no known key signed.
    Raises `ConfigurationError` for two verifiers of one name and key id.
    """
    known: dict[tuple[str, bytes], NoteVerifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise ConfigurationError(f"two verifier keys are {verifier.name}+{verifier.key_id.hex()}")
    note = parse_note(data)
    message = note.text.encode()
    signers: dict[NoteVerifier, None] = {}
    for name, key_id, signature in note.signatures:
        found = known.get((name, key_id))
        if found is not None:
            found.verify(message, signature)
            signers[found] = None
    if not signers:
        raise LogError(Code.UNTRUSTED_NOTE, "no known key has signed it")
    return VerifiedNote(note.text, tuple(signers))


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """Return `text` as a note signed by each of `signers`; two overlap while a key is being replaced.

    Raises `LogError` (`bad_note`) for a text that no note can have, for no signer, and for more bytes than may be
    published (8,192).
    """
    if not signers:
        raise LogError(Code.BAD_NOTE, "nobody signs")
    if not text.endswith("\n"):
        raise LogError(Code.BAD_NOTE, "a text ends with a newline")
    _check_characters(text)
    try:
        message = text.encode()
    except UnicodeEncodeError as error:
        raise LogError(Code.BAD_NOTE, "not UTF-8") from error
    lines = [
        f"{_DASH}{one.verifier.name} {base64_text(one.verifier.key_id + one.sign(message))}\n".encode()
        for one in signers
    ]
    note = b"".join([message, b"\n", *lines])
    if len(note) > DEFAULT_LIMITS.published_note_bytes:
        raise LogError(Code.BAD_NOTE, "too large to be published")
    return note


def _signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise LogError(Code.BAD_NOTE, "a signature line without its dash")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    check_key_name(name)
    raw = parse_base64(encoded, "signature")
    if len(raw) <= _KEY_ID:
        raise LogError(Code.BAD_NOTE, "a signature without bytes")
    return NoteSignature(name, raw[:_KEY_ID], raw[_KEY_ID:])


def _check_characters(text: str) -> None:
    if any(one < " " and one != "\n" for one in text):
        raise LogError(Code.BAD_NOTE, "control character")
