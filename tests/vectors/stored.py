"""Makes values as agents store them: signed arrays, right and misshapen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from vectors.issuing import INVENTORY, NOW, SECOND, Json, Party, party, token

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.signature import sign_batch

__all__ = ["SignedValue", "digest", "expired_party", "packed", "pieces"]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def packed(entries: Mapping[str, object]) -> bytes:
    """Return the encoded map of `entries`; what is None is left out."""
    return pack({key: entries[key] for key in sorted(entries) if entries[key] is not None})


def expired_party(iss: str) -> Party:
    """Return `iss` with a credential that ended half a minute before `NOW`."""
    own = party(iss)
    claims: dict[str, Json] = {"iat": (NOW - 3_600 * SECOND) // SECOND, "exp": NOW // SECOND - 30}
    return Party(iss=iss, key=own.key, credential=Credential(1, token(iss, own.key.public, claims=claims)))


@dataclass(frozen=True, kw_only=True)
class SignedValue:
    """A value in the making: `entries` of its payload, signed by `sender` under `typ`, with `extra` behind it if it is there.

    `payload` is what stands there instead of the entries, and `covered` what is signed instead of that.
    """

    typ: str
    entries: Mapping[str, object] = field(default_factory=dict)
    payload: bytes | None = None
    covered: bytes | None = None
    sender: Party = field(default_factory=lambda: party(INVENTORY))
    extra: bytes | None = None

    def parts(self) -> list[bytes]:
        """Return the byte strings of the array."""
        payload = self.payload if self.payload is not None else packed(self.entries)
        covered = self.covered if self.covered is not None else payload
        [proof] = sign_batch([leaf_hash(covered)], self.typ, self.sender.key)
        parts = [payload, proof.signature, self.sender.key.public.raw, self.sender.credential.token]
        return parts if self.extra is None else [*parts, self.extra]

    def stored(self) -> bytes:
        """Return the bytes that are stored."""
        return pack(self.parts())

    def misshapen(self) -> dict[str, bytes]:
        """Return what is of no form of a value, or not signed by whom it has to be, whatever it says."""
        parts, other = self.parts(), party(INVENTORY, "another key of the inventory")
        high = (_ORDER - int.from_bytes(parts[1][32:], "big")).to_bytes(32, "big")
        payload = parts[0]
        changed = _with(parts, 0, payload.replace(b"\xa1v\x01", b"\xa1v\x02", 1))
        lone: Sequence[object] = ["text", *parts[1:]]
        return {
            "nothing": b"",
            "no array": pack(b"bytes"),
            "a part too few": pack(parts[:-1]),
            "a part too many": pack([*parts, b""]),
            "a part that is text": pack(lone),
            "something after the array": pack(parts) + b"\0",
            "an array with a 16-bit length": b"\xdc\0" + bytes([len(parts)]) + pack(parts)[1:],
            "a payload that is no map": self._signed(pack([1])),
            "a payload that is empty": self._signed(b""),
            "a payload with keys out of order": self._signed(b"\x82\xa1v\x01\xa1a\x01"),
            "a payload of version 2": pack(changed),
            "a signature of another type": pack(_with(parts, 1, self._other("application/vnd.sealbus.other.v1"))),
            "a signature as of a message": pack(_with(parts, 1, self._other("application/vnd.sealbus.message.v1"))),
            "a signature over the payload without its leaf": pack(_with(parts, 1, self.sender.key.sign(payload))),
            "a signature whose s is high": pack(_with(parts, 1, parts[1][:32] + high)),
            "a signature of 63 bytes": pack(_with(parts, 1, parts[1][:63])),
            "another payload under the signature": pack(_with(parts, 1, self._over(payload + b"\0"))),
            "a key that the credential is not for": pack(_with(parts, 2, other.key.public.raw)),
            "a key of 63 bytes": pack(_with(parts, 2, parts[2][:63])),
            "a key that is on no curve": pack(_with(parts, 2, bytes(64))),
            "a credential of another": pack(_with(parts, 3, party("spiffe://example.org/agent/planner").credential.token)),
            "a credential that is none": pack(_with(parts, 3, b"token")),
        }  # fmt: skip

    def _signed(self, payload: bytes) -> bytes:
        return SignedValue(typ=self.typ, payload=payload, sender=self.sender, extra=self.extra).stored()

    def _other(self, typ: str) -> bytes:
        return SignedValue(typ=typ, entries=self.entries, payload=self.payload, sender=self.sender).parts()[1]

    def _over(self, covered: bytes) -> bytes:
        return SignedValue(typ=self.typ, payload=b"", covered=covered, sender=self.sender).parts()[1]


def _with(parts: Sequence[bytes], place: int, part: bytes) -> list[bytes]:
    return [*parts[:place], part, *parts[place + 1 :]]


def pieces(data: bytes) -> Json:
    """Return `data` as hex or, with a long run of zeroes in it, as pieces."""
    before, run, after = data.partition(bytes(1_024))
    if not run:
        return data.hex()
    rest = after.lstrip(b"\0")
    return [before.hex(), {"hex": "00", "times": len(run) + len(after) - len(rest)}, rest.hex()]


def digest(text: str) -> bytes:
    """Return a hash that stands for something."""
    return sha256(text.encode()).digest()
