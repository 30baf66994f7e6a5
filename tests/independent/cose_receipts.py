"""Verifies COSE receipts with nothing of sealbus, written from envelopes/SPEC.md section 13 and RFC 8949, 9052 and 9942."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from independent.verify_export import Bad, Verifier, ed25519_ok, need, root_by_path

__all__ = ["CoseCheckpoint", "verify_cose"]

LABELS = [1, 4, 15, 395, -65538]
MOST = 2**53 - 1


class CoseCheckpoint(NamedTuple):
    """The tree in which a receipt's entry is."""

    size: int
    root: bytes


class Tagged(NamedTuple):
    tag: int
    value: Any


class Cbor:
    """Deterministic CBOR: the shortest heads, definite lengths, the names of a map in the order of their bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @classmethod
    def whole(cls, data: bytes) -> Any:
        reader = cls(data)
        value = reader.item()
        need(reader.at == len(data), "bad_note", "bytes after the item")
        return value

    def take(self, length: int) -> bytes:
        need(length <= len(self.data) - self.at, "bad_note", "cut short")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self) -> tuple[int, int]:
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if low < 24:
            return major, low
        need(low < 28, "bad_note", "no length")
        number = int.from_bytes(self.take(1 << (low - 24)), "big")
        need(number >= {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}[low], "bad_note", "not the shortest form")
        need(number <= MOST, "bad_note", "too large")
        return major, number

    def item(self) -> Any:
        major, number = self.head()
        if major < 2:
            return number if major == 0 else -1 - number
        if major == 2:
            return self.take(number)
        if major == 3:
            try:
                return self.take(number).decode()
            except UnicodeDecodeError as error:
                raise Bad("bad_note", "not UTF-8") from error
        if major == 4:
            need(number <= len(self.data), "bad_note", "cut short")
            return [self.item() for _ in range(number)]
        if major == 5:
            return self.pairs(number)
        if major == 6:
            return Tagged(number, self.item())
        need(number == 22, "bad_note", "neither nil nor anything else that is here")
        return None

    def pairs(self, number: int) -> dict[Any, Any]:
        need(number <= len(self.data), "bad_note", "cut short")
        found: dict[Any, Any] = {}
        before = b""
        for _ in range(number):
            start = self.at
            name = self.item()
            spelled = self.data[start : self.at]
            need(type(name) is int and spelled > before, "bad_note", "names out of order")
            before, found[name] = spelled, self.item()
        return found


def is_text(value: Any) -> bool:
    return type(value) is str and 0 < len(value.encode()) <= 256 and min(value) >= " "


def verify_cose(data: bytes, leaf: bytes, *, origin: str, keys: Sequence[Verifier]) -> CoseCheckpoint:
    """Verify that `leaf` is an entry of the log `origin`, by a key of `keys`."""
    need(len(data) <= 4_096, "bad_note", "too large")
    tagged = Cbor.whole(data)
    need(type(tagged) is Tagged and tagged.tag == 18, "bad_note", "no COSE_Sign1")
    need(type(tagged.value) is list and len(tagged.value) == 4, "bad_note", "no COSE_Sign1")
    raw, unprotected, payload, signature = tagged.value
    need(type(raw) is bytes and payload is None, "bad_note", "no detached payload")
    need(type(signature) is bytes and len(signature) == 64, "bad_note", "signature")
    protected = Cbor.whole(raw)
    need(type(protected) is dict and list(protected) == LABELS, "bad_note", "protected header")
    algorithm, key_id, claims, structure, size = protected.values()
    need((algorithm, structure) == (-8, 1), "bad_note", "algorithm or structure")
    need(type(key_id) is bytes and len(key_id) == 4, "bad_note", "key id")
    need(type(claims) is dict and list(claims) == [1] and is_text(claims[1]), "bad_note", "claims")
    need(type(unprotected) is dict and list(unprotected) == [396], "bad_note", "unprotected header")
    proofs = unprotected[396]
    need(type(proofs) is dict and list(proofs) == [-1] and type(proofs[-1]) is list, "bad_note", "proofs")
    need(len(proofs[-1]) == 1 and type(proofs[-1][0]) is bytes, "bad_note", "not one proof")
    proof = Cbor.whole(proofs[-1][0])
    need(type(proof) is list and len(proof) == 3 and type(proof[2]) is list, "bad_note", "proof")
    again, index, path = proof
    need(type(size) is int and type(again) is int and size == again, "bad_note", "two sizes")
    need(type(index) is int and 0 <= index < size, "bad_note", "index")
    need(len(path) <= 63 and all(type(one) is bytes and len(one) == 32 for one in path), "bad_note", "path")
    need(claims[1] == origin, "wrong_log")
    known = [key for key in keys if key.key_id == key_id]
    need(known, "untrusted_note")
    try:
        root = root_by_path(leaf, size, index, path)
    except Bad as error:
        raise Bad("bad_proof", error.words) from error
    text = b"\x84\x6aSignature1" + spelled_bytes(raw) + b"\x40" + spelled_bytes(root)
    need(ed25519_ok(known[0].key, signature, text), "bad_note_signature")
    return CoseCheckpoint(size, root)


def spelled_bytes(data: bytes) -> bytes:
    length = len(data)
    if length < 24:
        return bytes([0x40 + length]) + data
    return (bytes([0x58, length]) if length < 256 else b"\x59" + length.to_bytes(2, "big")) + data
