"""A log outside of sealbus, in memory: leaf hashes, checkpoints, and proofs by the recursive definition of RFC 6962."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from sealbus.envelopes.log.cosignature import CosignatureSigner
from sealbus.envelopes.log.note import NoteSigner, base64_text

__all__ = ["PlainLog", "body", "leaf", "signed"]

TIME = 1_700_000_000


def leaf(number: int, branch: str = "") -> bytes:
    """Return the hash of an entry of a history."""
    return sha256(f"{branch}{number}".encode()).digest()


class PlainLog:
    """A log of leaf hashes. The same key signs every history: give each its own leaves."""

    def __init__(self, signer: NoteSigner | CosignatureSigner, leaves: Sequence[bytes], origin: str = "") -> None:
        self.signer = signer
        self.leaves = list(leaves)
        self.origin = origin or signer.verifier.name

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves (section 2.1)."""
        return _root(self.leaves[:size])

    def proof(self, old: int, new: int) -> list[bytes]:
        """Return the proof that the tree of `new` leaves begins with that of `old` (section 2.1.2)."""
        return _subproof(old, self.leaves[:new], True) if 0 < old < new else []

    def text(self, size: int, root: bytes | None = None, more: str = "") -> str:
        """Return the text of a checkpoint."""
        return f"{self.origin}\n{size}\n{base64_text(self.root(size) if root is None else root)}\n{more}"

    def note(self, size: int, root: bytes | None = None, more: str = "") -> bytes:
        """Return a signed checkpoint."""
        return signed(self.text(size, root, more), self.signer)

    def request(self, old: int, new: int, *, path: Sequence[bytes] | None = None, note: bytes | None = None) -> bytes:
        """Return the body of `add-checkpoint`."""
        proof = self.proof(old, new) if path is None else path
        return body(f"old {old}", proof, self.note(new) if note is None else note)


def body(old: str, path: Sequence[bytes], note: bytes) -> bytes:
    """Return a request's body with any first line."""
    return "\n".join([old, *map(base64_text, path), "", ""]).encode() + note


def signed(text: str, *signers: NoteSigner | CosignatureSigner) -> bytes:
    """Return `text` with a signature of each of `signers`."""
    lines = "".join(
        signer.cosign(text.encode(), TIME)
        if isinstance(signer, CosignatureSigner)
        else f"\u2014 {signer.verifier.name} {base64_text(signer.verifier.key_id + signer.sign(text.encode()))}\n"
        for signer in signers
    )
    return f"{text}\n{lines}".encode()


def _root(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256().digest()
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + _root(leaves[:middle]) + _root(leaves[middle:])).digest()


def _subproof(old: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [_root(leaves)]
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= middle:
        return [*_subproof(old, leaves[:middle], whole), _root(leaves[middle:])]
    return [*_subproof(old - middle, leaves[middle:], False), _root(leaves[:middle])]
