"""Messages and user contexts of the deployment that the vectors play in, and which can be bent anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from vectors.issuing import EDGE, HOUR, INVENTORY, MINUTE, NOW, PLANNER, Party, party

from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, sign_batch

__all__ = ["BODY", "Message", "batch", "context", "context_entries", "header_block", "message_id"]

BODY = b'{"item":"42"}'


def message_id(number: int) -> bytes:
    """Return a UUIDv7."""
    return number.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7)


def context_entries(minter: Party, /, **changes: object) -> dict[str, object]:
    """Return the payload of a user context; `changes` override entries, and None leaves one out."""
    entries: dict[str, object] = {
        "v": 1,
        "txn": bytes(range(16)),
        "iss": minter.iss,
        "aud": "example.org",
        "iat": NOW,
        "exp": NOW + 15 * MINUTE,
        "end": NOW + 2 * HOUR,
        "key": minter.key.public.raw,
        "crd": sha256(minter.credential.token).digest(),
        "sub": "u-1001",
        "idp": "https://idp.example",
        "sid": "s-1",
        "cid": "web",
        "scp": ["inventory"],
        "clm": {"department": "sales", "groups": ["a", "b"], "level": -3, "staff": True},
    } | changes
    return {key: entries[key] for key in sorted(entries) if entries[key] is not None}


def context(
    minter: Party | None = None,
    *,
    payload: bytes | None = None,
    payload_type: str = CONTEXT_TYPE,
    credential: Credential | None = None,
    **changes: object,
) -> Statement:
    """Return a user context as the edge, or `minter`, signs it."""
    own = minter if minter is not None else party(EDGE)
    vouched = own if credential is None else Party(iss=own.iss, key=own.key, credential=credential)
    data = payload if payload is not None else pack(context_entries(vouched, **changes))
    [proof] = sign_batch([leaf_hash(data)], payload_type, own.key)
    return Statement(data, proof, vouched.credential)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One envelope in the making: unchanged, the planner's task for the inventory, without user and chain.

    What is None follows from the rest. `fields` are header entries that differ; one that is None is left out.
    `elements` replaces elements of the wire array by their number.
    """

    sender: Party = field(default_factory=lambda: party(PLANNER))
    fields: Mapping[str, object] = field(default_factory=dict)
    body: bytes = BODY
    context: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    header: bytes | None = None
    proof: Proof | None = None
    credential: Credential | None = None
    elements: Mapping[int, object] = field(default_factory=dict)

    def entries(self) -> dict[str, object]:
        """Return the header's entries, in order."""
        entries: dict[str, object] = {
            "aud": INVENTORY,
            "crd": sha256(self.cred().token).digest(),
            "ctx": sha256(self.context.payload).digest() if self.context is not None else None,
            "dig": sha256(self.body).digest(),
            "end": NOW + HOUR,
            "exp": NOW + HOUR,
            "iat": NOW,
            "id": message_id(2),
            "iss": self.sender.iss,
            "key": self.sender.key.public.raw,
            "par": sha256(self.ancestors[0].header).digest() if self.ancestors else None,
            "t": "task",
            "to": "task.inventory.update",
            "typ": "application/json",
        } | dict(self.fields)
        return {key: entries[key] for key in sorted(entries) if entries[key] is not None}

    def cred(self) -> Credential:
        """Return the credential on the wire."""
        return self.credential if self.credential is not None else self.sender.credential

    def raw(self) -> bytes:
        """Return the header's bytes."""
        return self.header if self.header is not None else pack(self.entries())

    def digest(self) -> bytes:
        """Return H(header)."""
        return sha256(self.raw()).digest()

    def prf(self) -> Proof:
        """Return the proof on the wire: of a batch of one, unless it is given."""
        if self.proof is not None:
            return self.proof
        return sign_batch([leaf_hash(self.raw())], MESSAGE_TYPE, self.sender.key)[0]

    def ancestor(self) -> Ancestor:
        """Return what a child of this message carries first."""
        return Ancestor(self.raw(), self.prf(), self.cred())

    def array(self) -> list[object]:
        """Return the seven elements."""
        array = [1, self.raw(), self.body, self.prf(), self.cred(), self.context, self.ancestors]
        for number, element in self.elements.items():
            array[number] = element
        return array

    def payload(self) -> bytes:
        """Return the bytes on the wire."""
        return pack(self.array())


def batch(*messages: Message) -> list[Message]:
    """Return `messages`, all of one sender, with proofs under one signature."""
    proofs = sign_batch([leaf_hash(message.raw()) for message in messages], MESSAGE_TYPE, messages[0].sender.key)
    return [replace(message, proof=proof) for message, proof in zip(messages, proofs, strict=True)]


def header_block(identifier: bytes, *lines: bytes) -> bytes:
    """Return a raw NATS header block with the `Nats-Msg-Id` of `identifier`, and `lines` after it."""
    own = b"Nats-Msg-Id: " + identifier.hex().encode()
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in (own, *lines)) + b"\r\n"
