"""A broker in memory with the properties that the gate relies on: the `Transport` port for tests without a server.

Streams deduplicate by `Nats-Msg-Id` in a window, keep acknowledged messages, discard new ones when full, number what they
store, and compare a subject's last sequence if a message requires it. Durable consumers redeliver unacknowledged messages.
Core subjects fan out, once per queue group. Delivered bytes and header blocks are those of a real server. Nothing here
verifies a payload.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock, ConsumerLoad, Delivery, Outgoing, PubAck, StoredValue, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.subjects import matches


def header_block(outgoing: Outgoing) -> bytes:
    """Return the header block that nats-server would deliver for `outgoing`; empty if it has no header."""
    lines = [f"Nats-Msg-Id: {outgoing.message_id}"] if outgoing.message_id else []
    lines += [f"{name}: {value}" for name, value in outgoing.headers.items()]
    return ("NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode() if lines else b""


@dataclass(slots=True)
class _MemoryStream:
    name: str
    subjects: tuple[str, ...]
    created: int
    max_bytes: int
    window: int = 120 * SECOND
    stored: list[Delivery] = field(default_factory=list)
    size: int = 0
    seen: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    last: dict[str, Delivery] = field(default_factory=dict)
    failing: Exception | None = None
    arrived: list[asyncio.Event] = field(default_factory=list)

    def store(
        self, subject: str, payload: bytes, block: bytes, message_id: str, now: int, expected: str = ""
    ) -> PubAck:
        while self.seen and next(iter(self.seen.values()))[0] < now - self.window:
            self.seen.popitem(last=False)
        if message_id in self.seen:
            return PubAck(stream=self.name, sequence=self.seen[message_id][1], duplicate=True)
        if expected and int(expected) != (last := self.last_sequence(subject)):
            raise StreamRefused(f"{self.name}: wrong last sequence: {last}", 10_071)
        size = len(subject) + len(payload) + len(block)
        if self.size + size > self.max_bytes:
            raise StreamRefused(f"{self.name}: maximum bytes exceeded", 10_077)
        sequence = len(self.stored) + 1
        arrival = StreamArrival(subject, block, self.name, sequence, stored=now, created=self.created, delivery=1)
        delivery = Delivery(subject=subject, payload=payload, header_block=block, arrival=arrival)
        self.stored.append(delivery)
        self.last[subject] = delivery
        self.size += size
        if message_id:
            self.seen[message_id] = (now, sequence)
        for event in self.arrived:
            event.set()
        return PubAck(stream=self.name, sequence=sequence, duplicate=False)

    def last_sequence(self, subject: str) -> int:
        """Return the sequence of the last message of `subject`, 0 if there is none."""
        return _sequence(self.last[subject]) if subject in self.last else 0


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
        self.streams: dict[str, _MemoryStream] = {}
        self.subscriptions: list[_Subscription] = []
        self.consumers: dict[tuple[str, str], MemoryPull] = {}
        self._turn = 0

    def add_stream(self, name: str, subjects: Sequence[str], *, max_bytes: int = 64 * 1024 * 1024) -> None:
        """Declare a stream; its subjects must not overlap another's."""
        self.streams[name] = _MemoryStream(
            name=name, subjects=tuple(subjects), created=self.clock(), max_bytes=max_bytes
        )

    def fail(self, stream: str, error: Exception | None) -> None:
        """Answer every publish to `stream` with `error` from now on; with `None`, work again."""
        self.streams[stream].failing = error

    def inject(self, subject: str, payload: bytes, block: bytes = b"", message_id: str = "") -> PubAck | None:
        """Publish raw bytes and a raw header block as an attacker with publish rights would."""
        stream = self.stream_of(subject)
        if stream is not None:
            return stream.store(subject, payload, block, message_id, self.clock())
        self.deliver(Delivery(subject=subject, payload=payload, header_block=block))
        return None

    def stream_of(self, subject: str) -> _MemoryStream | None:
        """Return the stream that stores `subject`, if there is one."""
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.subjects):
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
                try:
                    block = header_block(message)
                    now = self._broker.clock()
                    expected = message.headers.get("Nats-Expected-Last-Subject-Sequence", "")
                    answers.append(
                        stream.store(message.subject, message.payload, block, message.message_id, now, expected)
                    )
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
    ) -> MemoryPull:
        """Bind a durable consumer, the same for every transport that names it."""
        key = (stream, consumer)
        if key not in self._broker.consumers:
            self._broker.consumers[key] = MemoryPull(self._broker.streams[stream], tuple(subjects))
        bound = self._broker.consumers[key]
        bound.batch = batch
        bound.most = max(bound.most, max_ack_pending)
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
            place = max(start, 1) - 1
            while True:
                batch = [
                    delivery._replace(payload=b"") if headers_only else delivery
                    for delivery in source.stored[place:]
                    if any(matches(pattern, delivery.subject) for pattern in subjects)
                    and delivery.arrival is not None
                    and delivery.arrival.stored >= since
                ]
                place = len(source.stored)
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
                yield [
                    (
                        delivery.subject,
                        StoredValue(delivery.arrival.sequence, delivery.payload, delivery.arrival.stored),
                    )
                    for delivery in batch
                    if delivery.arrival is not None
                ]

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject`; `within` never passes here."""
        source = self._broker.streams[stream]
        if source.failing is not None:
            raise BusUnavailable(f"{subject}: not read") from source.failing
        newest = source.last.get(subject)
        if newest is None or newest.arrival is None:
            return None
        return StoredValue(newest.arrival.sequence, newest.payload, newest.arrival.stored)

    async def audit_stream(self) -> tuple[str, int]:
        """Return the stream that takes records now, and its creation time."""
        stream = self._broker.stream_of("audit.any")
        if stream is None:
            raise ConfigurationError("no stream stores audit.>")
        return stream.name, stream.created

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

    def __init__(self, stream: _MemoryStream, subjects: tuple[str, ...]) -> None:
        self.batch = 256
        self.most = 1
        self._stream = stream
        self._subjects = subjects
        self._next = 0
        self._again: deque[Delivery] = deque()
        self._open: dict[int, Delivery] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        """Delayed redeliveries, by sequence."""
        self._arrived = asyncio.Event()
        stream.arrived.append(self._arrived)
        self.settled = asyncio.Event()
        """Set after each settled delivery."""

    @property
    def idle(self) -> bool:
        """Return whether all stored messages were settled for good."""
        return not self._open and not self._again and not self._timers and self._next >= len(self._stream.stored)

    async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Yield redeliveries first, then new messages."""
        while True:
            batch: list[Delivery] = []
            while self._again and len(batch) < self.batch:
                batch.append(self._again.popleft())
            while self._next < len(self._stream.stored) and len(batch) < self.batch:
                delivery = self._stream.stored[self._next]
                self._next += 1
                if any(matches(pattern, delivery.subject) for pattern in self._subjects):
                    batch.append(delivery._replace(token=str(self._next)))
            if batch:
                for delivery in batch:
                    self._open[_sequence(delivery)] = delivery
                yield batch
                continue
            self._arrived.clear()
            self.settled.set()
            await self._arrived.wait()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle deliveries for good."""
        for delivery in deliveries:
            self._open.pop(_sequence(delivery), None)
        self.settled.set()

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Redeliver after `delay` seconds, with a higher delivery count."""
        opened = self._open.pop(_sequence(delivery), None)
        if opened is None or opened.arrival is None:
            return
        position = opened.arrival._replace(delivery=opened.arrival.delivery + 1)
        again = opened._replace(arrival=position)
        sequence = _sequence(delivery)

        def redeliver() -> None:
            del self._timers[sequence]
            self._again.append(again)
            self._arrived.set()

        self._timers[sequence] = asyncio.get_running_loop().call_later(delay, redeliver)

    def rewind(self) -> None:
        """Forget all acknowledgements and deliver everything again, like a server that lost its consumers' state."""
        self._next = 0
        self._arrived.set()

    def lapse(self) -> None:
        """Redeliver unsettled messages now, like a server whose `ack_wait` is over."""
        for delivery in list(self._open.values()):
            self.retry(delivery, 0.0)

    def term(self, delivery: Delivery) -> None:
        """End the delivery for good, even if its redelivery is delayed."""
        if (timer := self._timers.pop(_sequence(delivery), None)) is not None:
            timer.cancel()
        self.ack([delivery])

    def working(self, delivery: Delivery) -> None:
        """Do nothing: in memory no time limit causes a redelivery."""

    async def load(self) -> ConsumerLoad:
        """Return the number of redeliveries that wait; the bound `most` is reported, and not enforced."""
        return ConsumerLoad(unsettled=len(self._again) + len(self._timers), most=self.most)


def _sequence(delivery: Delivery) -> int:
    if delivery.arrival is None:
        raise ValueError("a core message has no sequence")
    return delivery.arrival.sequence
