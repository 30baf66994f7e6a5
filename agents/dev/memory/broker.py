"""A broker in memory, with the rules of the model of JetStream: the `Transport` port for tests without a server.

Core subjects fan out, once per queue group. Delivered bytes and header blocks are those of a real server. Nothing here
verifies a payload. Unlike a server it redelivers nothing because of `ack_wait`: handlers of tests may take any time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from sealbus.agents.dev.memory.jetstream import (
    MESSAGE_ID,
    Consumer,
    ConsumerConfig,
    PublishRefused,
    Stored,
    Stream,
    StreamConfig,
)
from sealbus.bus.cells import DEFAULT
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import (
    AckFloors,
    Clock,
    ConsumerLoad,
    Delivery,
    Outgoing,
    PubAck,
    StoredValue,
    StreamRefused,
    Transport,
)
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.subjects import matches

_NEVER: Final = 1 << 62
"""The microseconds of `ack_wait`."""


def delivery_of(stream: Stream, message: Stored, count: int = 1, token: str = "", cell: str = "") -> Delivery:
    """Return a message of `stream` as it is delivered for the `count`th time, to be settled by `token`.

    `cell` is that of the stream, if it is not the reader's own.
    """
    sequence, subject, block, payload, time = message
    arrival = StreamArrival(subject, block, stream.config.name, sequence, time, stream.created, count, cell)
    return Delivery(subject, payload, block, arrival, token)


def stored_values(batch: Sequence[Delivery]) -> list[tuple[str, StoredValue]]:
    """Return the values in deliveries of a stream, each with its subject."""
    return [
        (delivery.subject, StoredValue(delivery.arrival.sequence, delivery.payload, delivery.arrival.stored))
        for delivery in batch
        if delivery.arrival is not None
    ]


def header_block(outgoing: Outgoing) -> bytes:
    """Return the header block that nats-server would deliver for `outgoing`; empty if it has no header."""
    lines = f"{MESSAGE_ID}: {outgoing.message_id}\r\n" if outgoing.message_id else ""
    for name, value in outgoing.headers.items():
        lines += f"{name}: {value}\r\n"
    return f"NATS/1.0\r\n{lines}\r\n".encode() if lines else b""


class MemoryStream(Stream):
    """A stream of the model, with its readers, and what tests do to it."""

    def __init__(self, config: StreamConfig, clock: Clock) -> None:
        super().__init__(config, created=clock())
        self.failing: Exception | None = None
        self.arrived: list[asyncio.Event] = []
        """Set when a message was stored; one for each reader and consumer."""
        self._clock = clock

    @property
    def stored(self) -> tuple[Delivery, ...]:
        """What the stream holds, as it is delivered."""
        return tuple(self.delivery(message) for message in self.after(1, (">",)))

    def delivery(self, message: Stored, count: int = 1, token: str = "") -> Delivery:
        """Return a message as it is delivered for the `count`th time."""
        return delivery_of(self, message, count, token)

    def store(self, subject: str, payload: bytes, block: bytes, headers: Mapping[str, str]) -> PubAck:
        """Store a message, and tell those who wait. Raises `StreamRefused`."""
        try:
            ack = self.publish(subject, block, payload, headers, now=self._clock())
        except PublishRefused as refused:
            raise StreamRefused(f"{self.config.name}: {refused}", refused.code) from refused
        for event in self.arrived:
            event.set()
        return PubAck(self.config.name, ack.sequence, ack.duplicate)

    def tamper(self, changed: Delivery) -> None:
        """Put `changed` in the place of the message with its sequence, as somebody can who writes to the server's disk."""
        subject, payload, block, arrival, _ = changed
        time = arrival.stored if arrival is not None else self._clock()
        self.damage(Stored(changed.sequence, subject, block, payload, time))


@dataclass(slots=True)
class _Subscription:
    pattern: str
    queue: str
    waiting: deque[Delivery]
    limit: int
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0

    def push(self, delivery: Delivery) -> None:
        if len(self.waiting) >= self.limit:
            self.dropped += 1
            return
        self.waiting.append(delivery)
        self.arrived.set()


class MemoryBroker:
    """The streams and subscriptions that transports share."""

    def __init__(self, clock: Clock = wall_clock) -> None:
        self.clock = clock
        self.streams: dict[str, MemoryStream] = {}
        self.subscriptions: list[_Subscription] = []
        self.consumers: dict[tuple[str, str], MemoryPull] = {}
        self._turn = 0

    def add_stream(self, name: str, subjects: Sequence[str], *, max_bytes: int = 64 * 1024 * 1024) -> None:
        """Add a stream that refuses when full; its subjects must not overlap another's."""
        self.add(StreamConfig(name=name, subjects=tuple(subjects), max_bytes=max_bytes))

    def add(self, config: StreamConfig) -> None:
        """Add a stream with these settings; one of the same name is lost."""
        self.streams[config.name] = MemoryStream(config, self.clock)

    def fail(self, stream: str, error: Exception | None) -> None:
        """Answer every publish to `stream` with `error` from now on; with `None`, work again."""
        self.streams[stream].failing = error

    def inject(self, subject: str, payload: bytes, block: bytes = b"", message_id: str = "") -> PubAck | None:
        """Publish raw bytes and a raw header block as an attacker with publish rights would."""
        stream = self.stream_of(subject)
        if stream is not None:
            return stream.store(subject, payload, block, {MESSAGE_ID: message_id})
        self.deliver(Delivery(subject=subject, payload=payload, header_block=block))
        return None

    def stream_of(self, subject: str) -> MemoryStream | None:
        """Return the stream that stores `subject`, if there is one."""
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.config.subjects):
                return stream
        return None

    def deliver(self, delivery: Delivery, reply: str = "") -> None:
        """Hand a core message to every matching subscription, once to each queue group.

        Without a subscription, `reply` gets status 503, as from a NATS server.
        """
        groups: dict[tuple[str, str], list[_Subscription]] = {}
        for subscription in self.subscriptions:
            if matches(subscription.pattern, delivery.subject):
                if subscription.queue:
                    groups.setdefault((subscription.pattern, subscription.queue), []).append(subscription)
                else:
                    subscription.push(delivery)
        if reply and not any(matches(subscription.pattern, delivery.subject) for subscription in self.subscriptions):
            self.deliver(Delivery(subject=reply, payload=b"", header_block=b"NATS/1.0 503\r\n\r\n"))
        for members in groups.values():
            self._turn += 1
            members[self._turn % len(members)].push(delivery)

    def connect(self) -> MemoryTransport:
        """Return a transport on this broker."""
        return MemoryTransport(self)


class MemoryTransport:
    """The `Transport` port on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Store each message; `deadline` never passes here."""
        answers: list[PubAck | Exception] = []
        for message in messages:
            stream = self._broker.stream_of(message.subject)
            if stream is None:
                answers.append(BusUnavailable(f"{message.subject}: no stream stores this subject"))
            elif stream.failing is not None:
                answers.append(stream.failing)
            else:
                headers = {MESSAGE_ID: message.message_id, **message.headers}
                try:
                    answers.append(stream.store(message.subject, message.payload, header_block(message), headers))
                except StreamRefused as error:
                    answers.append(error)
        return answers

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Deliver each message to the present subscribers."""
        for message in messages:
            self._broker.deliver(
                Delivery(subject=message.subject, payload=message.payload, header_block=header_block(message)),
                message.reply,
            )

    async def listen(
        self, subject: str, *, queue: str = "", pending: int = 4096, live: asyncio.Event | None = None
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Subscribe on core subjects; waiting messages come as one batch."""
        subscription = _Subscription(pattern=subject, queue=queue, waiting=deque(), limit=pending)
        self._broker.subscriptions.append(subscription)
        if live is not None:
            live.set()
        try:
            while True:
                await subscription.arrived.wait()
                subscription.arrived.clear()
                batch = list(subscription.waiting)
                subscription.waiting.clear()
                if batch:
                    yield batch
        finally:
            self._broker.subscriptions.remove(subscription)

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
    ) -> MemoryPull:
        """Bind a durable consumer, the same for every transport that names it; its server is never away."""
        key = (stream, consumer)
        if key not in self._broker.consumers:
            config = ConsumerConfig(name=consumer, filters=tuple(subjects), ack_wait=_NEVER, max_ack_pending=1)
            self._broker.consumers[key] = MemoryPull(self._broker.streams[stream], config)
        bound = self._broker.consumers[key]
        bound.allow(batch, max_ack_pending)
        return bound

    async def read(
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
        """Read a stream in order."""
        source = self._broker.streams.get(stream)
        if source is None:
            raise ConfigurationError(f"stream {stream} does not exist")
        arrived = asyncio.Event()
        source.arrived.append(arrived)
        try:
            while True:
                batch = [source.delivery(message) for message in source.after(start, subjects) if message.time >= since]
                start = source.last + 1
                if headers_only:
                    batch = [delivery._replace(payload=b"") for delivery in batch]
                if batch:
                    yield batch
                if not follow:
                    return
                if current is not None:
                    current.set()
                await arrived.wait()
                arrived.clear()
        finally:
            source.arrived.remove(arrived)

    async def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        """Read the values in `stream` once."""
        async with aclosing(self.read(stream, [pattern], since=since)) as batches:
            async for batch in batches:
                yield stored_values(batch)

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject`; `within` never passes here."""
        source = self._broker.streams[stream]
        if source.failing is not None:
            raise BusUnavailable(f"{subject}: not read") from source.failing
        newest = source.get(source.last_of(subject))
        return None if newest is None else StoredValue(newest.sequence, newest.payload, newest.time)

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        """Return itself, as the one cell's."""
        return {DEFAULT: self}

    def is_at_home(self, delivery: Delivery, identifier: str) -> bool:
        """Return True: there is one cell."""
        del delivery, identifier
        return True

    async def audit_stream(self) -> tuple[str, int]:
        """Return the stream that takes records now, and its creation time."""
        stream = self._broker.stream_of("audit.any")
        if stream is None:
            raise ConfigurationError("no stream stores audit.>")
        return stream.config.name, stream.created

    async def created(self, stream: str) -> int:
        """Return the time at which the stream was added."""
        if stream not in self._broker.streams:
            raise ConfigurationError(f"stream {stream} does not exist")
        return self._broker.streams[stream].created

    async def broker_time(self, stream: str) -> int:
        """Return the time of the broker's clock."""
        return self._broker.clock()


class MemoryPull:
    """A durable consumer: unacknowledged messages come again, with their delivery count."""

    def __init__(self, stream: MemoryStream, config: ConsumerConfig) -> None:
        self.settled = asyncio.Event()
        """Set after each settled delivery."""
        self._batch = 256
        self._stream = stream
        self._consumer = Consumer(stream, config)
        self._open: set[int] = set()
        """The sequences of deliveries in hand."""
        self._arrived = asyncio.Event()
        stream.arrived.append(self._arrived)

    @property
    def idle(self) -> bool:
        """Whether all stored messages were settled for good."""
        return not self._consumer.pending and not self._consumer.undelivered

    def allow(self, batch: int, max_ack_pending: int) -> None:
        """Have at most `batch` in one batch, and at least `max_ack_pending` deliveries unsettled."""
        self._batch = batch
        config = self._consumer.config
        most = max(config.max_ack_pending, max_ack_pending)
        self._consumer.config = replace(config, max_ack_pending=most)

    async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Yield redeliveries first, then new messages."""
        while True:
            taken = self._consumer.take(self._batch, now=_now())
            if taken:
                self._open.update(message.sequence for message, _, _ in taken)
                yield [self._stream.delivery(message, count, str(message.sequence)) for message, count, _ in taken]
                continue
            self._arrived.clear()
            self.settled.set()
            await self._wait()

    async def _wait(self) -> None:
        """Wait until something may be taken."""
        due = self._consumer.due()
        if due is None or due >= _NEVER:
            await self._arrived.wait()
            return
        timer = asyncio.get_running_loop().call_at(due / SECOND, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            timer.cancel()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle deliveries for good."""
        full = self._consumer.pending >= self._consumer.config.max_ack_pending
        for delivery in deliveries:
            self._open.discard(delivery.sequence)
            self._consumer.ack(delivery.sequence)
        self.settled.set()
        if full:
            self._arrived.set()

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Redeliver after `delay` seconds, with a higher delivery count."""
        if delivery.sequence in self._open:
            self._open.remove(delivery.sequence)
            self._consumer.nak(delivery.sequence, delay=int(delay * SECOND), now=_now())
            self._arrived.set()

    def rewind(self) -> None:
        """Forget all acknowledgements and deliver everything again, like a server that lost its consumers' state."""
        self._consumer = Consumer(self._stream, self._consumer.config)
        self._open.clear()
        self._arrived.set()

    def lapse(self) -> None:
        """Redeliver unsettled messages now, like a server whose `ack_wait` is over."""
        for sequence in sorted(self._open):
            self._consumer.nak(sequence, now=_now())
        self._open.clear()
        self._arrived.set()

    def repeat(self, sequence: int) -> None:
        """Redeliver a message, like a server that lost its acknowledgement."""
        self._consumer.lose_ack(sequence)
        self._arrived.set()

    def term(self, delivery: Delivery) -> None:
        """End the delivery for good, even if its redelivery is delayed."""
        self.ack([delivery])

    def working(self, delivery: Delivery) -> None:
        """Do nothing: in memory no time limit causes a redelivery."""

    async def keep_floor(self) -> None:
        """Do nothing: this consumer lives as long as its stream."""

    async def load(self) -> ConsumerLoad:
        """Return the number of redeliveries that wait, and how many deliveries may be unsettled."""
        unsettled = max(0, self._consumer.pending - len(self._open))
        return ConsumerLoad(unsettled=unsettled, most=self._consumer.config.max_ack_pending)


def _now() -> int:
    """Return the time of redeliveries in microseconds: the event loop's, because a test's clock may be moved."""
    return int(asyncio.get_running_loop().time() * SECOND)
