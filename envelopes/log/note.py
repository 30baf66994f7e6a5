"""Signed notes: a text with signatures by keys that have a name and an id (C2SP signed-note; Ed25519, type 0x01).

Notes, checkpoints and receipts share the functions for strict base64, decimal numbers and names.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS

DASH: Final = "\u2014 "
"""How a signature line begins."""
_KEY_ID: Final = 4
_SIGNATURE: Final = 64

KEY_BYTES: Final = 32
"""Bytes of a public key, and of the seed of a private one (RFC 8032)."""
_ED25519: Final = b"\x01"
PRIVATE_KEY: Final = "PRIVATE+KEY+"
"""How the text of a private key begins (Go's `sumdb/note`)."""


class NoteSignature(NamedTuple):
    """One signature line, unverified."""

    name: str
    key_id: bytes
    signature: bytes


class Note(NamedTuple):
    """A well-formed note. Ignore its text until a known key is found to have signed it."""

    text: str
    signatures: tuple[NoteSignature, ...]


class KnownKey(Protocol):
    """A key that signature lines name, of any type."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def key_id(self) -> bytes:
        """Its id, 4 bytes."""
        ...


class Verifier(KnownKey, Protocol):
    """A public key that verifies signatures, of any type."""

    def verify(self, message: bytes, signature: bytes) -> object:
        """Raise `LogError` (`bad_note_signature`) unless this key made `signature` over the text `message`."""
        ...


AnyVerifier = TypeVar("AnyVerifier", bound=Verifier)


class VerifiedNote(NamedTuple, Generic[AnyVerifier]):
    """A note that at least one known key has signed. `verify_note` alone makes it."""

    text: str
    signers: tuple[AnyVerifier, ...]
    """The known keys that have signed it."""


def parse_note(data: bytes) -> Note:
    """Parse a note; raise `LogError` (`bad_note`) for malformed bytes. Nothing is verified.

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


def verify_note(data: bytes, verifiers: Iterable[AnyVerifier]) -> VerifiedNote[AnyVerifier]:
    """Parse a note and verify that at least one of `verifiers` signed it.

    Signatures by other keys are ignored. Every signature by a known key must verify. Raises `LogError`: `bad_note` for
    malformed bytes, `bad_note_signature` for a bad signature by a known key, `untrusted_note` if no known key signed.
    Raises `ConfigurationError` for two verifiers with one name and key id.
    """
    known: dict[tuple[str, bytes], AnyVerifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise ConfigurationError(f"two verifier keys are {verifier.name}+{verifier.key_id.hex()}")
    note = parse_note(data)
    message = note.text.encode()
    signers: dict[AnyVerifier, None] = {}
    for name, key_id, signature in note.signatures:
        signer = known.get((name, key_id))
        if signer is not None:
            signer.verify(message, signature)
            signers[signer] = None
    if not signers:
        raise LogError(Code.UNTRUSTED_NOTE, "no known key has signed it")
    return VerifiedNote(note.text, tuple(signers))


def keep_signatures(data: bytes, keys: Iterable[KnownKey]) -> bytes:
    """Return the note without the signature lines by keys other than `keys`; no signature is verified.

    Raises `LogError`: `bad_note` for malformed bytes, `untrusted_note` if no line is left.
    """
    known = {(key.name, key.key_id) for key in keys}
    return _keep_lines(data, lambda line: (line.name, line.key_id) in known)


def leave_out_cosignatures(data: bytes) -> bytes:
    """Return the note of a log whose keys are not known here with the signature lines that a log's key may have made.

    These have the 64 bytes of an Ed25519 signature; a cosignature has a time as well. Raises as `keep_signatures` does.
    """
    return _keep_lines(data, lambda line: len(line.signature) == _SIGNATURE)


def _keep_lines(data: bytes, kept: Callable[[NoteSignature], bool]) -> bytes:
    note = parse_note(data)
    lines = [_line(*line) for line in note.signatures if kept(line)]
    if not lines:
        raise LogError(Code.UNTRUSTED_NOTE, "no known key has signed it")
    return b"".join([note.text.encode(), b"\n", *lines])


def check_all_signers(data: bytes, verifiers: Iterable[KnownKey]) -> None:
    """Raise `LogError` if a key other than `verifiers` signed the note (`untrusted_note`), or a key twice (`bad_note`).

    `verify_note` verifies the signatures by known keys and, as a C2SP verifier does, ignores all others.
    """
    signers = [(signature.name, signature.key_id) for signature in parse_note(data).signatures]
    if not {(verifier.name, verifier.key_id) for verifier in verifiers}.issuperset(signers):
        raise LogError(Code.UNTRUSTED_NOTE, "signed by an unknown key as well")
    if len(set(signers)) != len(signers):
        raise LogError(Code.BAD_NOTE, "signed twice by one key")


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """Return `text` as a note signed by each of `signers`: two while one key replaces another.

    Raises `LogError` (`bad_note`) for a text that no note can have, without signers, and for a note over 8,192 bytes, which
    may not be published.
    """
    if not signers:
        raise LogError(Code.BAD_NOTE, "no signer")
    if not text.endswith("\n"):
        raise LogError(Code.BAD_NOTE, "the text must end with a newline")
    _check_characters(text)
    try:
        message = text.encode()
    except UnicodeEncodeError as error:
        raise LogError(Code.BAD_NOTE, "not UTF-8") from error
    lines = [_line(signer.verifier.name, signer.verifier.key_id, signer.sign(message)) for signer in signers]
    note = b"".join([message, b"\n", *lines])
    if len(note) > DEFAULT_LIMITS.published_note_bytes:
        raise LogError(Code.BAD_NOTE, "too large to be published")
    return note


def _line(name: str, key_id: bytes, signature: bytes) -> bytes:
    return f"{DASH}{name} {base64_text(key_id + signature)}\n".encode()


def _signature(line: str) -> NoteSignature:
    if not line.startswith(DASH):
        raise LogError(Code.BAD_NOTE, "a signature line without its dash")
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    check_key_name(name)
    raw = parse_base64(encoded, "signature")
    if len(raw) <= _KEY_ID:
        raise LogError(Code.BAD_NOTE, "a signature without bytes")
    return NoteSignature(name, raw[:_KEY_ID], raw[_KEY_ID:])


def _check_characters(text: str) -> None:
    if any(character < " " and character != "\n" for character in text):
        raise LogError(Code.BAD_NOTE, "control character")


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A public key that verifies notes. Raises `LogError` (`bad_note`) for an invalid name or key."""

    name: str
    public: bytes = field(repr=False)
    key_id: bytes = field(init=False)
    """The first 4 bytes of `H(name || 0x0a || 0x01 || public)`: an identifier, not a strong hash."""
    _loaded: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_key_name(self.name)
        try:
            loaded = Ed25519PublicKey.from_public_bytes(self.public)
        except ValueError as error:
            raise LogError(Code.BAD_NOTE, "public key") from error
        object.__setattr__(self, "key_id", key_id_of(self.name, _ED25519 + self.public))
        object.__setattr__(self, "_loaded", loaded)

    @classmethod
    def parse(cls, text: str) -> NoteVerifier:
        """Parse a vkey, `name+id+base64(0x01 || public key)`; raise `LogError` (`bad_note`)."""
        name, key_id, material = key_parts(text)
        verifier = cls(name, _ed25519(material))
        if verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "verifier key: its id does not match")
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
    """A private key that signs notes. Never shown, never pickled; the caller keeps its 32-byte seed safe."""

    __slots__ = ("_private", "_seed", "verifier")

    verifier: NoteVerifier
    """The public half."""

    def __init__(self, name: str, seed: bytes) -> None:
        """Make the key; raise `LogError` (`bad_note`) for an invalid name, or a seed that is not 32 bytes."""
        if len(seed) != KEY_BYTES:
            raise LogError(Code.BAD_NOTE, "a seed must be 32 bytes")
        self._seed = bytes(seed)
        self._private = Ed25519PrivateKey.from_private_bytes(self._seed)
        self.verifier = NoteVerifier(name, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoteSigner({self.verifier.name!r}, ...)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key stays in its process")

    @classmethod
    def parse(cls, text: str) -> NoteSigner:
        """Parse a text of `secret_text`; raise `LogError` (`bad_note`) for any other text."""
        if not text.startswith(PRIVATE_KEY):
            raise LogError(Code.BAD_NOTE, "not a private key for notes")
        name, key_id, material = key_parts(text.removeprefix(PRIVATE_KEY))
        signer = cls(name, _ed25519(material))
        if signer.verifier.key_id.hex() != key_id:
            raise LogError(Code.BAD_NOTE, "private key: its id does not match")
        return signer

    def secret_text(self) -> str:
        """Return the key as text, for a file that only its owner can read: the format of Go's `sumdb/note`."""
        return f"{PRIVATE_KEY}{self.verifier.name}+{self.verifier.key_id.hex()}+{base64_text(_ED25519 + self._seed)}"

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._private.sign(message)


def key_parts(text: str) -> tuple[str, str, bytes]:
    """Split a vkey into name, id in hex, and type with key; raise `LogError` (`bad_note`). Neither name nor id is checked."""
    # Base64 may contain a plus and a name may not, so split from the left.
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise LogError(Code.BAD_NOTE, "a key has three parts")
    return parts[0], parts[1], parse_base64(parts[2], "key")


def key_id_of(name: str, material: bytes) -> bytes:
    """Return the key id that C2SP recommends for all types of keys; `material` is the type's byte and the public key."""
    return sha256(name.encode() + b"\n" + material).digest()[:_KEY_ID]


def _ed25519(material: bytes) -> bytes:
    if material[:1] != _ED25519 or len(material) != 1 + KEY_BYTES:
        raise LogError(Code.BAD_NOTE, "the key's type is not Ed25519")
    return material[1:]


def base64_text(data: bytes) -> str:
    """Return the standard base64 of `data` (RFC 4648 section 4)."""
    return b64encode(data).decode("ascii")


def parse_base64(text: str, name: str) -> bytes:
    """Decode `text`; raise `LogError` (`bad_note`) unless it is canonical base64."""
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise LogError(Code.BAD_NOTE, f"{name}: not base64") from error
    if b64encode(data).decode("ascii") != text:
        raise LogError(Code.BAD_NOTE, f"{name}: not canonical base64")
    return data


def parse_number(text: str, name: str) -> int:
    """Parse a decimal number without leading zeroes, at most 2^53-1; raise `LogError` (`bad_note`) for other text."""
    # Sixteen digits hold 2^53-1; longer text is never passed to int().
    if not (text.isascii() and text.isdigit() and len(text) <= 16) or str(number := int(text)) != text:
        raise LogError(Code.BAD_NOTE, f"{name}: not a number")
    if number > DEFAULT_LIMITS.max_integer:
        raise LogError(Code.BAD_NOTE, f"{name}: too large")
    return number


def check_key_name(name: str) -> None:
    """Raise `LogError` (`bad_note`) unless `name` may name a key: not empty, at most 256 bytes, no space and no plus.

    Control characters and surrogates are refused, too, because a note cannot contain them.
    """
    if not name or len(name) > DEFAULT_LIMITS.log_name_bytes or "+" in name:
        raise LogError(Code.BAD_NOTE, "key name")
    if any(character.isspace() or character < " " or "\ud800" <= character <= "\udfff" for character in name):
        raise LogError(Code.BAD_NOTE, "key name")
    if len(name.encode()) > DEFAULT_LIMITS.log_name_bytes:
        raise LogError(Code.BAD_NOTE, "key name")
