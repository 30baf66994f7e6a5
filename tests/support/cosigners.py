"""Witnesses that cosign checkpoints, written by hand from C2SP tlog-cosignature and tlog-policy, and policies of them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from support.log_world import LogKey

__all__ = ["ED25519", "ML_DSA_44", "TIME", "Cosigner", "cosigned", "policy_text"]

ED25519, ML_DSA_44 = 4, 6
"""Types of keys."""
TIME = 1_790_000_000
"""Seconds."""


@dataclass(frozen=True)
class Cosigner:
    """A witness whose key is made from a public label; worth nothing."""

    label: str
    kind: int = ED25519

    @property
    def name(self) -> str:
        """The name of its key."""
        return f"{self.label}.example/witness"

    @cached_property
    def private(self) -> Ed25519PrivateKey | MLDSA44PrivateKey:
        seed = sha256(self.label.encode()).digest()
        if self.kind == ED25519:
            return Ed25519PrivateKey.from_private_bytes(seed)
        return MLDSA44PrivateKey.from_seed_bytes(seed)

    @cached_property
    def key(self) -> bytes:
        """The type and the public key."""
        return bytes([self.kind]) + self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + self.key).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(self.key).decode()}"

    def message(self, text: str, time: int) -> bytes:
        """Return what is signed of the checkpoint `text`."""
        if self.kind == ED25519:
            return f"cosignature/v1\ntime {time}\n{text}".encode()
        origin, size, root, *_ = text.split("\n")
        name, log = self.name.encode(), origin.encode()
        return b"".join(
            [
                b"subtree/v1\n\0",
                bytes([len(name)]) + name,
                time.to_bytes(8, "big"),
                bytes([len(log)]) + log,
                (0).to_bytes(8, "big") + int(size).to_bytes(8, "big"),
                b64decode(root),
            ]
        )

    def signature(self, text: str, time: int = TIME) -> bytes:
        """Return the time and the signature."""
        return time.to_bytes(8, "big") + self.sign(self.message(text, time))

    def sign(self, message: bytes) -> bytes:
        """Return the bare signature; one of ML-DSA-44 is another each time."""
        return self.private.sign(message)

    def line(self, signature: bytes) -> str:
        """Return a signature line with `signature`."""
        return f"\u2014 {self.name} {b64encode(self.key_id + signature).decode()}\n"

    def cosign(self, note: bytes, time: int = TIME) -> bytes:
        """Return `note` with a cosignature."""
        text = note.decode().partition("\n\n")[0] + "\n"
        return note + self.line(self.signature(text, time)).encode()


def cosigned(note: bytes, *cosigners: Cosigner) -> bytes:
    """Return `note` with the cosignatures of all."""
    for cosigner in cosigners:
        note = cosigner.cosign(note)
    return note


def policy_text(keys: Iterable[LogKey], witnesses: Iterable[Cosigner], *rows: str) -> str:
    """Return the text of a policy, whose names of witnesses are their labels."""
    lines = [f"log {key.vkey}" for key in keys] + [f"witness {one.label} {one.vkey}" for one in witnesses]
    return "".join(f"{line}\n" for line in (*lines, *rows))
