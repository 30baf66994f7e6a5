"""COSE receipts: a receipt of an entry in the form of RFC 9942, for verifiers that do not know C2SP (SPEC.md section 13).

The encoding is deterministic CBOR (RFC 8949 section 4.2.1), and of the one form below. So this module needs no CBOR library::

    18([<<{1: -8, 4: key id, 15: {1: origin}, 395: 1, -65538: size}>>,
        {396: {-1: [<<[size, index, [node, ...]]>>]}},
        nil,
        signature])
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.checkpoint import Checkpoint
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier
from sealbus.envelopes.log.receipt import Receipt, verify_receipt
from sealbus.envelopes.trust.merkle import root_of_path

_UNSIGNED: Final = 0
_BYTES: Final = 2
_TEXT: Final = 3
_ARRAY: Final = 4

_SIGN1: Final = b"\xd2\x84"
"""Tag 18, and an array of four."""
_ALGORITHM_AND_KEY: Final = b"\xa5\x01\x27\x04"
"""A map of five: label 1 is EdDSA (-8), label 4 follows."""
_ISSUER: Final = b"\x0f\xa1\x01"
"""Label 15, the CWT claims: a map with claim 1, which follows."""
_STRUCTURE_AND_SIZE: Final = b"\x19\x01\x8b\x01\x3a\x00\x01\x00\x01"
"""Label 395 is RFC9162_SHA256 (1); label -65538, of private use, follows."""
_PROOFS: Final = b"\xa1\x19\x01\x8c\xa1\x20\x81"
"""The unprotected header: a map with label 396, a map with -1, an array of one inclusion proof, which follows."""
_DETACHED: Final = b"\xf6"

_KEY_ID: Final = 4
_HASH: Final = 32
_SIGNATURE: Final = 64
_NODES: Final = 63
_MOST_BYTES: Final = 4_096
"""More than any receipt has: 63 nodes, and an origin of 256 bytes."""


@dataclass(frozen=True, slots=True)
class CoseReceipt:
    """A well-formed COSE receipt, unverified. Raises `LogError` (`bad_note`) for values that none can have.

    The signature is over the root to which `path` leads, and over `origin`, `size` and `key_id`.
    """

    origin: str
    size: int
    index: int
    path: tuple[bytes, ...]
    key_id: bytes
    signature: bytes = field(repr=False)

    def __post_init__(self) -> None:
        Checkpoint(self.origin, self.size, bytes(_HASH))
        if not 0 <= self.index < self.size or len(self.path) > _NODES or any(len(node) != _HASH for node in self.path):
            raise LogError(Code.BAD_NOTE, "COSE receipt: index or path")
        if len(self.key_id) != _KEY_ID or len(self.signature) != _SIGNATURE:
            raise LogError(Code.BAD_NOTE, "COSE receipt: key id or signature")

    def encode(self) -> bytes:
        """Return the receipt as COSE_Sign1."""
        proof = b"".join(
            [
                b"\x83",
                _head(_UNSIGNED, self.size),
                _head(_UNSIGNED, self.index),
                _head(_ARRAY, len(self.path)),
                *map(_bytes, self.path),
            ]
        )
        protected = _protected(self.origin, self.size, self.key_id)
        return b"".join([_SIGN1, _bytes(protected), _PROOFS, _bytes(proof), _DETACHED, _bytes(self.signature)])

    @classmethod
    def parse(cls, data: bytes) -> CoseReceipt:
        """Parse a COSE receipt; raise `LogError` (`bad_note`) for bytes that `encode` does not return."""
        if len(data) > _MOST_BYTES:
            raise LogError(Code.BAD_NOTE, "COSE receipt: too large")
        reader = _Reader(data)
        reader.skip(_SIGN1)
        # Lengths of byte strings that contain others are compared below, with all the rest, by encoding it again.
        reader.head(_BYTES)
        reader.skip(_ALGORITHM_AND_KEY)
        key_id = reader.string(_BYTES)
        reader.skip(_ISSUER)
        origin = reader.string(_TEXT)
        reader.skip(_STRUCTURE_AND_SIZE)
        size = reader.head(_UNSIGNED)
        reader.skip(_PROOFS)
        reader.head(_BYTES)
        reader.skip(b"\x83")
        reader.head(_UNSIGNED)
        index = reader.head(_UNSIGNED)
        count = reader.head(_ARRAY)
        if count > _NODES:
            raise LogError(Code.BAD_NOTE, "COSE receipt: path too long")
        path = tuple(reader.string(_BYTES) for _ in range(count))
        reader.skip(_DETACHED)
        try:
            receipt = cls(origin.decode(), size, index, path, key_id, reader.string(_BYTES))
        except UnicodeDecodeError as error:
            raise LogError(Code.BAD_NOTE, "COSE receipt: the origin is not UTF-8") from error
        if receipt.encode() != data:
            raise LogError(Code.BAD_NOTE, "COSE receipt: not deterministic, or two sizes")
        return receipt


def sign_cose_receipt(receipt: Receipt, leaf: bytes, *, origin: str, signer: NoteSigner) -> CoseReceipt:
    """Return the COSE receipt of the entry with hash `leaf`, signed by `signer`.

    Signs only a root that the same key has signed as a checkpoint of the log `origin`: raises `LogError` as
    `verify_receipt` does, with the key of `signer` alone.
    """
    checkpoint = verify_receipt(receipt, leaf, origin=origin, verifiers=[signer.verifier])
    key_id = signer.verifier.key_id
    signature = signer.sign(_signed(_protected(origin, checkpoint.size, key_id), checkpoint.root))
    return CoseReceipt(origin, checkpoint.size, receipt.index, receipt.path, key_id, signature)


def verify_cose_receipt(
    receipt: CoseReceipt, leaf: bytes, *, origin: str, verifiers: Iterable[NoteVerifier]
) -> Checkpoint:
    """Verify that `leaf`, the hash of an entry, is number `receipt.index` of the log `origin`; return size and root.

    Raises `LogError`: `wrong_log` for another log, `bad_proof` for a path that no tree of this size has, `untrusted_note` if
    none of `verifiers` has the key id, `bad_note_signature` if the key did not sign the root to which the path leads.
    """
    if receipt.origin != origin:
        raise LogError(Code.WRONG_LOG, "a COSE receipt of another log")
    verifier = next((verifier for verifier in verifiers if verifier.key_id == receipt.key_id), None)
    if verifier is None:
        raise LogError(Code.UNTRUSTED_NOTE, "no known key has signed the COSE receipt")
    try:
        root = root_of_path(leaf, receipt.size, receipt.index, receipt.path)
    except EnvelopeError as error:
        raise LogError(Code.BAD_PROOF, f"inclusion: {error.detail}") from error
    verifier.verify(_signed(_protected(origin, receipt.size, receipt.key_id), root), receipt.signature)
    return Checkpoint(origin, receipt.size, root)


def _protected(origin: str, size: int, key_id: bytes) -> bytes:
    text = origin.encode()
    return b"".join(
        [
            _ALGORITHM_AND_KEY,
            _bytes(key_id),
            _ISSUER,
            _head(_TEXT, len(text)),
            text,
            _STRUCTURE_AND_SIZE,
            _head(_UNSIGNED, size),
        ]
    )


def _signed(protected: bytes, root: bytes) -> bytes:
    """Return the `Sig_structure` of RFC 9052 section 4.4. It begins with 0x84, as no note can, which is UTF-8."""
    return b"".join([b"\x84\x6aSignature1", _bytes(protected), b"\x40", _bytes(root)])


def _bytes(data: bytes) -> bytes:
    return _head(_BYTES, len(data)) + data


def _head(major: int, value: int) -> bytes:
    """Return the head of an item of type `major`, in its shortest form (RFC 8949 section 3)."""
    if value < 24:
        return bytes([major << 5 | value])
    length = next(length for length in (1, 2, 4, 8) if value < 1 << 8 * length)
    return bytes([major << 5 | 23 + length.bit_length()]) + value.to_bytes(length)


class _Reader:
    """Reads CBOR items from left to right; raises `LogError` (`bad_note`) for any other item than the one asked for."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise LogError(Code.BAD_NOTE, "COSE receipt: cut short")
        self._at += length
        return taken

    def skip(self, expected: bytes) -> None:
        if self.take(len(expected)) != expected:
            raise LogError(Code.BAD_NOTE, "COSE receipt: another form")

    def head(self, major: int) -> int:
        """Return the number in the head of an item of type `major`."""
        first = self.take(1)[0]
        value = first & 31
        if first >> 5 != major or value > 27:
            raise LogError(Code.BAD_NOTE, "COSE receipt: another form")
        number = value if value < 24 else int.from_bytes(self.take(1 << (value - 24)))
        if number > DEFAULT_LIMITS.max_integer:
            raise LogError(Code.BAD_NOTE, "COSE receipt: a number is too large")
        return number

    def string(self, major: int) -> bytes:
        return self.take(self.head(major))
