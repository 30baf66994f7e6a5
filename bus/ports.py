"""The two ports of the bus, identity and transport; with the clock, ids, and the failures of a transport.

`Identity` is implemented by `sealbus.agents.identity` on the Workload API; `Transport` by `sealbus.bus.nats.transport` on
NATS and by `sealbus.testing` in memory. Everything between them (gate, outbox, audit, requests) is the same code. Clock and
ids are passed to the code that needs them, so that tests can pass their own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

JsonObject = dict[str, object]
"""A JSON object, its members unchecked."""

Request = Callable[[str, bytes], Awaitable[bytes]]
"""Sends a payload to a subject and returns the payload of the one answer; `BusUnavailable` if none comes in time."""

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

Clock = Callable[[], int]
"""Returns microseconds since the Unix epoch."""

NewId = Callable[[int], bytes]
"""Returns a new UUIDv7 of 16 bytes for a time in microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Material:
    """The current X.509-SVID, with the X.509 bundle of each trust domain whose peers may be verified.

    `chain` is DER, the leaf first; `key` is the leaf's private key as PKCS#8 DER and never leaves the process;
    `not_before` and `not_after` are the leaf's, in microseconds.
    """

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    bundles: Mapping[TrustDomain, tuple[bytes, ...]]
    not_before: int
    not_after: int


class Identity(Protocol):
    """What the bus needs of a workload's identity. Values are current at each call and never block."""

    @property
    def spiffe_id(self) -> SpiffeId:
        """The workload's own SPIFFE ID."""

    def sealer(self) -> Sealer:
        """Return the signing key with its credential; raise `IdentityUnavailable` with less than 20 s of life left."""

    def bundles(self) -> TrustBundles:
        """Return the JWT bundles of all trust domains that the Workload API gave."""

    def x509(self) -> X509Material:
        """Return the current X.509-SVID; raise `IdentityUnavailable` if there is none or it has expired."""

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back on the event loop after each change of the X.509-SVID or bundles; return the unsubscriber."""


# Named tuples, because one or two of each are made per message, and a frozen dataclass costs several times as much.
# Those that hold payloads do not show them.


class Delivery(NamedTuple):
    """One message as it arrived, unverified. `token` identifies it to the transport for acknowledgement.

    `header_block` is the raw NATS header block, empty if there was none. `arrival` is absent for core NATS.
    """

    subject: str
    payload: bytes
    header_block: bytes
    arrival: StreamArrival | None = None
    token: str = ""

    @property
    def sequence(self) -> int:
        """The sequence of the message in its stream; 0 on core NATS."""
        return self.arrival.sequence if self.arrival is not None else 0

    @property
    def number(self) -> int:
        """The number of this delivery, from 1."""
        return self.arrival.delivery if self.arrival is not None else 1

    def __repr__(self) -> str:
        return f"Delivery(subject={self.subject!r}, arrival={self.arrival!r}, ...)"


class Outgoing(NamedTuple):
    """One message to publish. A non-empty `message_id` (32 hex digits) becomes the `Nats-Msg-Id` line."""

    subject: str
    payload: bytes
    message_id: str = ""
    headers: Mapping[str, str] = _NO_HEADERS
    reply: str = ""
    """On core NATS: a subject of our own, where the server says that nobody listens. Nobody else answers there."""

    def __repr__(self) -> str:
        return f"Outgoing(subject={self.subject!r}, message_id={self.message_id!r}, ...)"


class PubAck(NamedTuple):
    """The stream's acknowledgement of one publish."""

    stream: str
    sequence: int
    duplicate: bool


class StoredValue(NamedTuple):
    """A message of one subject, as it is stored: its sequence, its payload, and when the broker stored it (microseconds)."""

    sequence: int
    payload: bytes
    stored: int

    def __repr__(self) -> str:
        return f"StoredValue(sequence={self.sequence}, ...)"


class ConsumerLoad(NamedTuple):
    """What a durable consumer holds, over all processes, as the broker counts it."""

    unsettled: int
    """Deliveries that are neither acknowledged nor ended, without those that this process has in hand: those that wait for
    their redelivery, and those that other processes have in hand."""
    most: int
    """How many there may be (`max_ack_pending`). With so many the broker delivers nothing new."""


MOST_LISTENED: Final = 512
"""Most subjects of a consumer that versions of an agent share and can find again when its server is lost."""


class StoredFloor(NamedTuple):
    """How far a durable consumer of a stream was acknowledged, as the processes of its agent have stored it."""

    created: int = 0
    """When the stream was created (microseconds)."""
    floor: int = 0
    """Everything up to this sequence was acknowledged."""
    moves: int = 0
    """How often the consumer was moved to another server."""
    last: int = 0
    """The sequence of this value, 0 if nothing is stored."""
    listened: tuple[tuple[str, int], ...] = ()
    """The subjects of a consumer that versions of the agent share, and when a version with each last bound it (Unix time)."""


class AckFloors(Protocol):
    """Where the processes of an agent store how far its durable consumers were acknowledged."""

    async def read(self, stream: str, consumer: str) -> StoredFloor:
        """Return what is stored. Raises `BusUnavailable`."""

    async def replace(self, stream: str, consumer: str, floor: StoredFloor) -> StoredFloor | None:
        """Store `floor` in the place of the value with its `last`; return what is stored, or `None` if `last` is not current.

        Raises `BusUnavailable` or `IdentityUnavailable`; the value may be stored nevertheless.
        """


class Settlement(Protocol):
    """Where deliveries are settled, each exactly once."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge for good, all in one write."""

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Ask for redelivery after `delay` seconds."""

    def term(self, delivery: Delivery) -> None:
        """Terminate the delivery without handling it; also one that is to be redelivered, which then is not."""

    def working(self, delivery: Delivery) -> None:
        """Tell the broker that the delivery is still being handled, so that it is not redelivered."""


class Pull(Settlement, Protocol):
    """One durable consumer of one stream, read in batches."""

    def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Yield what has arrived, at least one and at most the configured batch size at a time, until closed."""

    async def load(self) -> ConsumerLoad:
        """Ask the broker what the consumer holds now, apart from what was taken here. Raises `BusUnavailable`."""

    async def keep_floor(self) -> None:
        """Store how far the consumer was acknowledged, if it changed. Raises `BusUnavailable`, `IdentityUnavailable`."""


class Transport(Protocol):
    """A carrier of bytes. Failures raise `BusUnavailable`; nothing here reads a payload."""

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish to streams in one write and await each PubAck for at most `deadline` seconds.

        The answers are in the order of the messages: a `PubAck`, or a `BusUnavailable` for a refusal by the stream (its
        detail holds the broker's error code) or for silence. Only a message that no stream took may be sent again here.
        """

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Publish on core NATS in one write, without acknowledgement; raise `BusUnavailable` if not connected."""

    def listen(
        self, subject: str, *, queue: str = "", pending: int = 4096, live: asyncio.Event | None = None
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Subscribe on core NATS and yield what is waiting, at least one message at a time, until closed.

        `subject` may hold wildcards. `live` is set once the broker has seen the subscription: messages sent after that
        arrive. If more than `pending` messages wait, the newest are dropped and counted.
        """

    def pull(
        self,
        stream: str,
        consumer: str,
        subjects: Sequence[str],
        *,
        batch: int,
        ack_wait: float,
        max_ack_pending: int,
        floors: AckFloors | None = None,
        one_replica: bool = False,
    ) -> Pull:
        """Bind the durable consumer of `stream`, creating or checking it on first use.

        With `floors` a consumer that does not exist begins after the stored floor. It has `one_replica`, or as many as its
        stream. If the server of the one is away, the consumer is created on another one, after the floor.
        """

    def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Read a stream in order from sequence `start` or stored time `since` (microseconds), without a durable.

        Ends at the last message that was there when it began, unless `follow`. With `headers_only` payloads are left out.
        `current` is set while everything that the stream held a few seconds ago was passed on, and cleared while that is not
        known.
        """

    def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        """Read once what `stream` holds now on the subjects of `pattern`, in order, each with its subject.

        With `since` (microseconds) only what was stored from then on. Unlike `read` it costs little, and raises
        `BusUnavailable` where it is interrupted.
        """

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject` in `stream`, or `None` if there is none.

        Raises `BusUnavailable` if no answer comes within `within` seconds.
        """

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        """Return the transport of each cell that may store subjects of `pattern`, by its name.

        The first is the one that stores them now, or for a pattern of anybody's the own one. Without cells it is this
        transport alone.
        """

    def is_at_home(self, delivery: Delivery, identifier: str) -> bool:
        """Return whether a message was delivered from the cell that its subject and `identifier` (32 hex digits) say."""

    async def audit_stream(self) -> tuple[str, int]:
        """Return the name of the stream that takes records now, and when it was created (microseconds)."""

    async def created(self, stream: str) -> int:
        """Return when the stream was created, in microseconds by the broker's clock."""

    async def broker_time(self, stream: str) -> int:
        """Return when the broker answered a request about `stream`, in microseconds by its clock; 0 if it does not say."""


def uuid7(now: int) -> bytes:
    """Return a UUIDv7 (RFC 9562 section 5.7) whose 48-bit time is `now` in milliseconds and whose rest is random."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)
    random[2] = 0x80 | (random[2] & 0x3F)
    return (now // 1_000).to_bytes(6, "big") + bytes(random)


class StreamRefused(BusUnavailable):
    """An error answer of a stream to a publish. `err_code` is JetStream's, for instance 10077: at its maximum size."""

    def __init__(self, detail: str, err_code: int) -> None:
        super().__init__(detail)
        self.err_code = err_code


class Overloaded(BusUnavailable):
    """A full stream: nothing was stored, and the sender is told at once (code `overloaded`)."""

    code = Code.OVERLOADED


class NotAcknowledged(BusUnavailable):
    """No acknowledgement in time: nats-server does not answer when its disk fails."""


class NotPermitted(BusUnavailable):
    """The server does not permit this workload to publish to the subject; NATS permissions are the operator's."""


class NotLetIn(BusUnavailable):
    """The server does not let this workload connect: its auth callout refused it, or it lists no such user."""


class DuplicateFirstAttempt(BusUnavailable):
    """The stream called the first attempt a duplicate: another sender used this id (code `replayed`)."""

    code = Code.REPLAYED
