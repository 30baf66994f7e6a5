"""Cosignatures: a witness states when a checkpoint was the largest that it saw, consistent with all before (C2SP).

A cosignature is a signature line of the checkpoint's note (tlog-cosignature). Its key has one of two types: Ed25519 (0x04),
or ML-DSA-44 (0x06), which C2SP recommends. Both sign the time of the cosignature. The ML-DSA-44 type also signs the
witness's name, but no extension lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import parse_foreign_checkpoint
from sealbus.envelopes.log.note import (
    DASH,
    KEY_BYTES,
    PRIVATE_KEY,
    Note,
    base64_text,
    check_key_name,
    key_id_of,
    key_parts,
)

_TIME_BYTES: Final = 8
_LAST_TIME: Final = (1 << 63) - 1
_LABEL: Final = b"subtree/v1\n\0"
_MOST_NAME: Final = 255
"""Bytes of a name or an origin that an ML-DSA-44 key signs: their length has one byte."""


class CosignatureType(IntEnum):
    """The types of cosignatures, by the byte that names them in a verifier key."""

    ED25519 = 0x04
    ML_DSA_44 = 0x06


@dataclass(frozen=True, slots=True)
class CosignatureVerifier:
    """The public key of a witness. Raises `LogError` (`bad_note`) for a name or key that its type cannot have."""

    name: str
    type: CosignatureType
    public: bytes = field(repr=False)
    """32 bytes of Ed25519, or 1,312 of ML-DSA-44."""
    key_id: bytes = field(init=False)
    """The first 4 bytes of `H(name || 0x0a || type || public)`: an identifier, not a strong hash."""
    _loaded: Ed25519PublicKey | MLDSA44PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if self.type is CosignatureType.ML_DSA_44:
            _check_length(self.name, "key name")
        load = Ed25519PublicKey if self.type is CosignatureType.ED25519 else MLDSA44PublicKey
        try:
            loaded = load.from_public_bytes(self.public)
        except ValueError as error:
            raise LogError(Code.BAD_NOTE, "public key") from error
        object.__setattr__(self, "key_id", key_id_of(self.name, bytes([self.type]) + self.public))
        object.__setattr__(self, "_loaded", loaded)

    @classmethod
    def parse(cls, text: str) -> CosignatureVerifier:
        """Parse a vkey, `name+id+base64(type || public key)`; raise `LogError` (`bad_note`)."""
        name, key_id, material = key_parts(text)
        verifier = cls(name, _type(material), material[1:])
        if verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "verifier key: its id does not match")
        return verifier

    @property
    def text(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.key_id.hex()}+{base64_text(bytes([self.type]) + self.public)}"

    def verify(self, message: bytes, signature: bytes) -> int:
        """Return when this key cosigned the checkpoint with the text `message`, in seconds since 1970.

        `signature` is what follows the key id in the line: the time and the signature. Raises `LogError`:
        `bad_note_signature` unless this key made it, `bad_note` for a text that is not a checkpoint. A time of zero is
        refused: a witness may not leave it out (tlog-witness).
        """
        timestamp = int.from_bytes(signature[:_TIME_BYTES], "big")
        if not 1 <= timestamp <= _LAST_TIME:
            raise LogError(Code.BAD_NOTE_SIGNATURE, "the time of a cosignature")
        covered = _covered(self, message, timestamp)
        try:
            self._loaded.verify(signature[_TIME_BYTES:], covered)
        except InvalidSignature as error:
            raise LogError(Code.BAD_NOTE_SIGNATURE, "a known witness did not sign this") from error
        return timestamp


class CosignatureSigner:
    """The private key of a witness. Never shown, never pickled; the caller keeps its 32-byte seed safe."""

    __slots__ = ("_private", "_seed", "verifier")

    verifier: CosignatureVerifier
    """The public half."""

    def __init__(self, name: str, kind: CosignatureType, seed: bytes) -> None:
        """Make the key; raise `LogError` (`bad_note`) for an invalid name, or a seed that is not 32 bytes."""
        if len(seed) != KEY_BYTES:
            raise LogError(Code.BAD_NOTE, "a seed must be 32 bytes")
        self._seed = bytes(seed)
        self._private = (
            Ed25519PrivateKey.from_private_bytes(self._seed)
            if kind is CosignatureType.ED25519
            else MLDSA44PrivateKey.from_seed_bytes(self._seed)
        )
        self.verifier = CosignatureVerifier(name, kind, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"CosignatureSigner({self.verifier.name!r}, {self.verifier.type.name}, ...)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key stays in its process")

    @classmethod
    def parse(cls, text: str) -> CosignatureSigner:
        """Parse a text of `secret_text`; raise `LogError` (`bad_note`) for any other text."""
        if not text.startswith(PRIVATE_KEY):
            raise LogError(Code.BAD_NOTE, "not a private key for notes")
        name, key_id, material = key_parts(text.removeprefix(PRIVATE_KEY))
        signer = cls(name, _type(material), material[1:])
        if signer.verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "private key: its id does not match")
        return signer

    def secret_text(self) -> str:
        """Return the key as text, for a file that only its owner can read."""
        verifier = self.verifier
        return (
            f"{PRIVATE_KEY}{verifier.name}+{verifier.key_id.hex()}+{base64_text(bytes([verifier.type]) + self._seed)}"
        )

    def cosign(self, message: bytes, timestamp: int) -> str:
        """Return the signature line, with its newline, over the checkpoint with the text `message` at `timestamp`.

        `timestamp` is in seconds since 1970, over 0. The caller has checked that the checkpoint extends every checkpoint of
        the log that this key cosigned. Raises `LogError` (`bad_note`) for a text that is not a checkpoint.
        """
        if not 1 <= timestamp <= _LAST_TIME:
            raise LogError(Code.BAD_NOTE, "the time of a cosignature")
        signature = self._private.sign(_covered(self.verifier, message, timestamp))
        raw = self.verifier.key_id + timestamp.to_bytes(_TIME_BYTES, "big") + signature
        return f"{DASH}{self.verifier.name} {base64_text(raw)}\n"


def verify_cosignatures(note: Note, verifiers: Iterable[CosignatureVerifier]) -> dict[CosignatureVerifier, int]:
    """Return each of `verifiers` that cosigned the checkpoint `note`, with the time in seconds since 1970.

    Signatures by other keys are ignored. Raises `LogError`: `bad_note_signature` for a bad signature by one of `verifiers`,
    `bad_note` for two signatures by one of them, and for a text that is not a checkpoint.
    """
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    message = note.text.encode()
    times: dict[CosignatureVerifier, int] = {}
    for name, key_id, signature in note.signatures:
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if verifier in times:
            raise LogError(Code.BAD_NOTE, "cosigned twice by one witness")
        times[verifier] = verifier.verify(message, signature)
    return times


def _type(material: bytes) -> CosignatureType:
    try:
        return CosignatureType(int.from_bytes(material[:1], "big"))
    except ValueError as error:
        raise LogError(Code.BAD_NOTE, "the key's type is not one of cosignatures") from error


def _covered(verifier: CosignatureVerifier, message: bytes, timestamp: int) -> bytes:
    """Return the bytes that `verifier` signs for the checkpoint with the text `message`."""
    try:
        text = message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LogError(Code.BAD_NOTE, "not UTF-8") from error
    checkpoint = parse_foreign_checkpoint(text)
    if verifier.type is CosignatureType.ED25519:
        return b"cosignature/v1\ntime %d\n%b" % (timestamp, message)
    _check_length(checkpoint.origin, "origin")
    name, origin = verifier.name.encode(), checkpoint.origin.encode()
    return b"".join(
        [
            _LABEL,
            bytes([len(name)]) + name,
            timestamp.to_bytes(_TIME_BYTES, "big"),
            bytes([len(origin)]) + origin,
            bytes(8),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        ]
    )


def _check_length(text: str, name: str) -> None:
    if len(text.encode()) > _MOST_NAME:
        raise LogError(Code.BAD_NOTE, f"{name}: over 255 bytes, which ML-DSA-44 cosignatures cannot sign")
