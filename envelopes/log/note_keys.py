"""The keys of signed notes: Ed25519, each with a name and the id that follows from both (C2SP signed-note, type 0x01)."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.lines import base64_text, check_key_name, parse_base64

__all__ = ["KEY_BYTES", "NoteSigner", "NoteVerifier"]

KEY_BYTES: Final = 32
"""Of a public key, and of the seed that a private one is made from (RFC 8032)."""
_ED25519: Final = b"\x01"
_PRIVATE: Final = "PRIVATE+KEY+"


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key that notes may be signed with. Raises `LogError` (`bad_note`) for a name or key that cannot be one."""

    name: str
    public: bytes = field(repr=False)
    key_id: bytes = field(init=False)
    """The first 4 bytes of `H(name || 0x0a || 0x01 || public)`; an identifier, and no strong hash."""
    _loaded: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_key_name(self.name)
        try:
            loaded = Ed25519PublicKey.from_public_bytes(self.public)
        except ValueError as error:
            raise LogError(Code.BAD_NOTE, "public key") from error
        digest = sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()
        object.__setattr__(self, "key_id", digest[:4])
        object.__setattr__(self, "_loaded", loaded)

    @classmethod
    def parse(cls, text: str) -> NoteVerifier:
        """Return the key of a vkey, `name+id+base64(0x01 || public key)`; raise `LogError` (`bad_note`)."""
        name, key_id, raw = _parts(text)
        verifier = cls(name, raw)
        if verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "verifier key: its id is another")
        return verifier

    @property
    def text(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.key_id.hex()}+{base64_text(_ED25519 + self.public)}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise `LogError` (`bad_note_signature`) unless this key signed `message`."""
        try:
            self._loaded.verify(signature, message)
        except InvalidSignature as error:
            raise LogError(Code.BAD_NOTE_SIGNATURE, "a known key did not sign this") from error


class NoteSigner:
    """A private key that signs notes. Never shown, never pickled; whoever makes its 32-byte seed keeps it safe."""

    __slots__ = ("_private", "_seed", "verifier")

    verifier: NoteVerifier
    """The public half."""

    def __init__(self, name: str, seed: bytes) -> None:
        """Raise `LogError` (`bad_note`) for a name that keys cannot have, or a seed that is not 32 bytes."""
        if len(seed) != KEY_BYTES:
            raise LogError(Code.BAD_NOTE, "a seed is 32 bytes")
        self._seed = bytes(seed)
        self._private = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.verifier = NoteVerifier(name, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoteSigner({self.verifier.name!r}, ...)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key stays in its process")

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """Return the key that `secret_text` wrote; raise `LogError` (`bad_note`) for any other text."""
        if not text.startswith(_PRIVATE):
            raise LogError(Code.BAD_NOTE, "not a private key of a note")
        name, key_id, seed = _parts(text.removeprefix(_PRIVATE))
        signer = cls(name, seed)
        if signer.verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "private key: its id is another")
        return signer

    def secret_text(self) -> str:
        """Return the key as text, for a file that nobody else can read: the form of Go's `sumdb/note`."""
        return f"{_PRIVATE}{self.verifier.name}+{self.verifier.key_id.hex()}+{base64_text(_ED25519 + self._seed)}"

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._private.sign(message)


def _parts(text: str) -> tuple[str, str, bytes]:
    # A name holds no plus, and base64 may: split from the left.
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise LogError(Code.BAD_NOTE, "a key has three parts")
    raw = parse_base64(parts[2], "key")
    if raw[:1] != _ED25519 or len(raw) != 1 + KEY_BYTES:
        raise LogError(Code.BAD_NOTE, "a key of another type than Ed25519")
    return parts[0], parts[1], raw[1:]
