"""A small deployment for acceptance tests: an edge, a planner, an inventory, and messages that can be broken anywhere.

`seal` makes only what a reader would take. `Message` makes anything: header entries by key, elements by name, signed by
whoever it says. Unchanged, it is a task from the planner to the inventory, sent while the planner handled a task of
the edge's for a user, and `Delivery` is how the inventory got it. Building is deterministic but for ECDSA's nonces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256

import pytest
from support.envelopes import HOUR, MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, agent, message_id, task_draft

from sealbus.envelopes.accept.live import CoreArrival, LiveProfile, Replays, StreamArrival, VerifiedMessage, accept_live
from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, Sealer, seal
from sealbus.envelopes.message.user_context import ContextDraft, mint_context
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import CONTEXT_TYPE, MESSAGE_TYPE, sign_batch
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "BODY",
    "EDGE",
    "EDGE_ID",
    "INVENTORY",
    "ISSUER",
    "MINTERS",
    "PLANNER",
    "PROFILE",
    "TRUST",
    "Delivery",
    "Message",
    "context_draft",
    "context_statement",
    "header_block",
    "refuses",
    "root_task",
    "statement",
]

EDGE_ID = SpiffeId("spiffe://example.org/edge")
MINTERS = frozenset({EDGE_ID})
INVENTORY = agent("inventory")
ISSUER = Issuer()
TRUST = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, ISSUER.jwks())]))
EDGE = ISSUER.sealer(EDGE_ID)
PLANNER = ISSUER.sealer(agent("planner"))
BODY = b'{"item":"42"}'
PROFILE = LiveProfile(own=INVENTORY, names=NAMES, kinds=frozenset({Kind.TASK, Kind.CALL, Kind.EVENT}), minters=MINTERS)


def context_draft() -> ContextDraft:
    """Return a user context that a chain may start with for 15 minutes and that lasts 2 hours."""
    return ContextDraft(
        txn=bytes(range(16)),
        aud=TRUST_DOMAIN,
        iat=NOW,
        exp=NOW + 15 * MINUTE,
        end=NOW + 2 * HOUR,
        sub="u-1001",
        idp="https://idp.example",
        sid="s-1",
        cid="web",
        scp=("inventory",),
        clm={"department": "sales", "level": 3, "staff": True, "groups": ("a", "b")},
    )


@cache
def statement() -> Statement:
    """Return the edge's statement of `context_draft`."""
    return mint_context(context_draft(), EDGE)


def context_statement(payload: bytes, sealer: Sealer = EDGE) -> Statement:
    """Return `payload`, whatever it is, signed as a user context by `sealer`."""
    [proof] = sign_batch([leaf_hash(payload)], CONTEXT_TYPE, sealer.key)
    return Statement(payload, proof, sealer.credential)


@cache
def root_task() -> Sealed:
    """Return the edge's task for the planner, with the user context: the root of the chain."""
    [sealed] = seal([task_draft(1, aud="planner", verb="plan")._replace(context=statement(), end=NOW + 2 * HOUR)], EDGE)
    return sealed


@dataclass(kw_only=True)
class Message:
    """One envelope in the making. What is None follows from the rest; `fields` are header entries that differ.

    An entry that is None is left out. `elements` replaces elements of the wire array by their number.
    """

    sealer: Sealer = PLANNER
    fields: Mapping[str, object] = field(default_factory=dict)
    body: bytes = BODY
    context: Statement | None = field(default_factory=statement)
    ancestors: tuple[Ancestor, ...] = field(default_factory=lambda: (root_task().ancestor,))
    header: bytes | None = None
    proof: Proof | None = None
    credential: Credential | None = None
    elements: Mapping[int, object] = field(default_factory=dict)

    def entries(self) -> dict[str, object]:
        """Return the header's entries, in order."""
        entries: dict[str, object] = {
            "aud": INVENTORY.value,
            "crd": sha256(self.cred().token).digest(),
            "ctx": sha256(self.context.payload).digest() if self.context is not None else None,
            "dig": sha256(self.body).digest(),
            "end": NOW + HOUR,
            "exp": NOW + HOUR,
            "iat": NOW,
            "id": message_id(2),
            "iss": self.sealer.iss.value,
            "key": self.sealer.key.public.raw,
            "par": sha256(self.ancestors[0].header).digest() if self.ancestors else None,
            "t": "task",
            "to": "task.inventory.update",
            "typ": "application/json",
        }
        entries.update(self.fields)
        return {key: entries[key] for key in sorted(entries) if entries[key] is not None}

    def cred(self) -> Credential:
        """Return the credential that goes on the wire."""
        return self.credential if self.credential is not None else self.sealer.credential

    def raw(self) -> bytes:
        """Return the header's bytes."""
        return self.header if self.header is not None else pack(self.entries())

    def prf(self) -> Proof:
        """Return the proof that goes on the wire: of a batch of one, unless said otherwise."""
        return (
            self.proof
            if self.proof is not None
            else sign_batch([leaf_hash(self.raw())], MESSAGE_TYPE, self.sealer.key)[0]
        )

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


def header_block(identifier: bytes = message_id(2), *lines: bytes) -> bytes:
    """Return a raw NATS header block with the `Nats-Msg-Id` of `identifier` and `lines`."""
    own = b"Nats-Msg-Id: " + identifier.hex().encode()
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in (own, *lines)) + b"\r\n"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How the inventory gets a message: everything that `accept_live` takes but the payload."""

    core: bool = False
    subject: str = "task.inventory.update"
    header_block: bytes = field(default_factory=header_block)
    stored: int = NOW + SECOND
    created: int = NOW - HOUR
    started: int = NOW - HOUR
    audit_created: int = NOW - HOUR
    now: int = NOW + 2 * SECOND
    kinds: frozenset[Kind] = PROFILE.kinds
    action: str = "inventory.update"
    profile: LiveProfile = PROFILE
    trust: Trust = TRUST
    caches: Caches = field(default_factory=Caches)
    replay: ReplayMemory = field(default_factory=lambda: ReplayMemory(8))

    def accept(self, message: Message | bytes) -> VerifiedMessage:
        """Open `message` as it was delivered."""
        arrival: StreamArrival | CoreArrival = (
            CoreArrival(subject=self.subject, started=self.started, audit_created=self.audit_created)
            if self.core
            else StreamArrival(
                subject=self.subject,
                header_block=self.header_block,
                stream="TASKS",
                sequence=7,
                stored=self.stored,
                created=self.created,
                delivery=1,
            )
        )
        return accept_live(
            message if isinstance(message, bytes) else message.payload(),
            arrival,
            replace(self.profile, kinds=self.kinds),
            action=self.action,
            trust=self.trust,
            caches=self.caches,
            replays=Replays(self.replay),
            now=self.now,
        )


def refuses(code: Code, step: int, call: Callable[[], object]) -> None:
    """Fail unless `call` raises `EnvelopeError` with exactly this code and step."""
    with pytest.raises(EnvelopeError) as caught:
        call()
    assert (caught.value.code, caught.value.step) == (code, step), caught.value.detail
