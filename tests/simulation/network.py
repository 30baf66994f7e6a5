"""What hosts see of a broker: the `Transport` port through a network that delays, loses and is cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeVar

from sealbus.agents.dev.memory.broker import delivery_of, stored_values
from sealbus.agents.dev.memory.jetstream import Consumer, Delivered, Stored
from sealbus.bus.cells import DEFAULT
from sealbus.bus.nats.api import StreamState
from sealbus.bus.nats.consumer_binding import ConsumerBinding
from sealbus.bus.nats.durable_consumer import DurableSpec
from sealbus.bus.ports import (
    AckFloors,
    ConsumerLoad,
    Delivery,
    NotAcknowledged,
    Outgoing,
    PubAck,
    StoredValue,
    Transport,
)
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, InfrastructureError
from sealbus.envelopes.limits import SECOND
from simulation import consumer_api
from simulation.broker import Follower, Listener, PullRequest, SimulatedBroker, Unanswered
from simulation.loop import WORLD, Host, SimulatedLoop

__all__ = ["Link", "Published", "SimulatedTransport"]

_T = TypeVar("_T")

_CAPTURED: Final = 256
"""Most messages of a host that somebody has captured."""
LATENCY: Final = 0.02
"""Most seconds that a packet takes, unless a fault makes a host slow."""
REQUEST_SECONDS: Final = 5.0
"""Seconds after which a request without an answer fails."""
BIND_AGAIN: Final = 1.0
"""Seconds between two tries to bind a consumer."""
LOOK_SECONDS: Final = 30.0
"""Seconds after which a reader looks again, in case it missed that something was stored."""
CURRENT_SECONDS: Final = 3.0
"""The same for a reader that says whether it knows everything (`Transport.read`): the heartbeats of a consumer."""


class Published(NamedTuple):
    """A message that a host has published: when, and to which broker."""

    at: float
    broker: SimulatedBroker
    message: Outgoing


@dataclass(slots=True, eq=False)
class Link:
    """The one connection of a host, by which it reaches the brokers of all cells.

    Packets of one direction arrive in their order, or not at all.
    """

    host: Host
    loop: SimulatedLoop
    latency: float = LATENCY
    """Most seconds that a packet takes."""
    lost: float = 0.0
    """The share of packets that are lost."""
    cut: bool = False
    published: deque[Published] = field(default_factory=lambda: deque(maxlen=_CAPTURED))
    """What the host has published of late."""
    _outward: deque[Callable[[], None]] = field(default_factory=deque)
    _inward: deque[Callable[[], None]] = field(default_factory=deque)

    def send(self, then: Callable[[], None]) -> None:
        """Run `then` at a broker."""
        self._travel(self._outward, WORLD, then)

    def answer(self, then: Callable[[], None]) -> None:
        """Run `then` on the host."""
        self._travel(self._inward, self.host, then)

    def drop(self) -> None:
        """Lose what is under way to the brokers."""
        for index in range(len(self._outward)):
            self._outward[index] = _nothing

    def _travel(self, way: deque[Callable[[], None]], to: Host, then: Callable[[], None]) -> None:
        loop = self.loop
        if self.cut or loop.random.random() < self.lost:
            return
        way.append(then)
        loop.call_later(loop.random.random() * self.latency, self._arrive, way, context=to.context())

    def _arrive(self, way: deque[Callable[[], None]]) -> None:
        then = way.popleft()
        if not self.cut:
            then()


class SimulatedTransport:
    """The `Transport` port of one host, to the `broker` of one cell.

    If that is another than the host's own, `home` is its own cell's, and `cell` the name of the other.
    """

    def __init__(
        self, link: Link, broker: SimulatedBroker, home: SimulatedBroker | None = None, cell: str = ""
    ) -> None:
        self._cell = cell
        self.broker = self._broker = broker
        self._link = link
        self._home = home or broker

    @property
    def host(self) -> Host:
        """The host."""
        return self._link.host

    def carry(self, then: Callable[[], None]) -> None:
        """Run `then` at the broker, if it can be reached when the packet arrives there."""
        self._link.send(lambda: then() if self._is_reached() else None)

    def bring(self, then: Callable[[], None]) -> None:
        """Run `then` on the host, if the broker can be reached."""
        if self._is_reached():
            self._link.answer(then)

    def tell(self, then: Callable[[], None]) -> None:
        """Run `then` on the host, which has noticed something by itself."""
        self._link.answer(then)

    def _is_reached(self) -> bool:
        return self._broker.is_reached(by_others=self._home is not self._broker)

    async def _ask(self, apply: Callable[[], _T], *, within: float = REQUEST_SECONDS) -> _T:
        """Have the broker apply something and return its answer; raise `TimeoutError` if none comes."""
        answer = self._broker.loop.create_future()

        def applied() -> None:
            result: _T | Exception
            try:
                result = apply()
            except Unanswered:
                return
            except Exception as error:  # noqa: BLE001  it is the answer
                result = error
            if self._broker.loop.now >= self._broker.silent_until:
                self.bring(lambda: answered(result))

        def answered(result: _T | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def expired() -> None:
            if not answer.done():
                answer.set_exception(TimeoutError())

        self.carry(applied)
        timer = self._broker.loop.call_later(within, expired)
        try:
            found: _T = await answer
        finally:
            timer.cancel()
        return found

    async def ask_api(self, name: str, apply: Callable[[], _T]) -> _T:
        try:
            return await self._ask(apply)
        except TimeoutError as error:
            raise BusUnavailable(f"{name}: no answer") from error

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish, and await each acknowledgement."""

        async def published(message: Outgoing) -> PubAck | Exception:
            answers: list[PubAck | Exception] = []
            self._link.published.append(Published(self._broker.loop.now, self._broker, message))
            try:
                await self._ask(lambda: answers.append(self._broker.publish(message)), within=deadline)
            except TimeoutError:
                return NotAcknowledged(f"{message.subject}: no acknowledgement")
            return answers[0]

        if len(messages) == 1:
            return [await published(messages[0])]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(published(message), name="publish") for message in messages]
        return [one.result() for one in asked]

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Send core messages."""
        for message in messages:
            self.carry(partial(self._broker.deliver, message, self._home.listeners))

    async def listen(
        self, subject: str, *, queue: str = "", pending: int = 4096, live: asyncio.Event | None = None
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Subscribe on core subjects."""
        waiting, arrived = deque[Delivery](), asyncio.Event()

        def arrive(message: Outgoing, block: bytes) -> None:
            delivery = Delivery(subject=message.subject, payload=message.payload, header_block=block)

            def received() -> None:
                waiting.append(delivery)
                arrived.set()

            self.bring(received)

        listener = Listener(self._link.host, subject, queue, arrive)
        self._broker.listeners.append(listener)
        if live is not None:
            live.set()
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                batch = list(waiting)
                waiting.clear()
                yield batch
        finally:
            if listener in self._broker.listeners:
                self._broker.listeners.remove(listener)

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
    ) -> SimulatedPull:
        """Bind a durable consumer."""
        spec = DurableSpec(
            stream=stream,
            name=consumer,
            subjects=tuple(subjects),
            ack_wait=ack_wait,
            max_ack_pending=max_ack_pending,
            one_replica=one_replica,
            cell=self._cell,
        )
        return SimulatedPull(self, spec, floors, batch)

    async def api(self, subject: str, payload: bytes) -> bytes:
        """Ask the API about a consumer. Raises `BusUnavailable`."""
        return await self.ask_api(subject, partial(consumer_api.answer, self._broker, subject, payload))

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
        arrived, place = asyncio.Event(), max(start, 1)
        broker = self._broker
        follower = Follower(self._link.host, stream, subjects, lambda: self.bring(arrived.set))
        self._broker.followers.append(follower)
        try:
            while True:
                arrived.clear()
                try:
                    found, last = await self._ask(partial(_stored_from, broker, stream, place, subjects))
                except TimeoutError as error:
                    if current is not None:
                        current.clear()
                    if not follow:
                        raise BusUnavailable(f"{stream}: not read") from error
                    continue
                place = last + 1
                batch = [delivery_of(source, message) for message in found if message.time >= since]
                if headers_only:
                    batch = [delivery._replace(payload=b"") for delivery in batch]
                if batch:
                    yield batch
                if not follow:
                    return
                if current is not None:
                    current.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS if current is None else CURRENT_SECONDS):
                        await arrived.wait()
        finally:
            if follower in self._broker.followers:
                self._broker.followers.remove(follower)

    async def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        """Read the values in a stream once."""
        async with aclosing(self.read(stream, [pattern], since=since)) as batches:
            async for batch in batches:
                yield stored_values(batch)

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject`. Any replica answers, also without a leader."""
        source = self._broker.streams[stream]
        try:
            found = await self._ask(lambda: source.get(source.last_of(subject)), within=min(within, REQUEST_SECONDS))
        except TimeoutError as error:
            raise BusUnavailable(f"{subject}: not read") from error
        return StoredValue(found.sequence, found.payload, found.time) if found is not None else None

    def is_at_home(self, delivery: Delivery, identifier: str) -> bool:
        """Return True: there is one cell."""
        del delivery, identifier
        return True

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        """Return itself, as the one cell's."""
        return {DEFAULT: self}

    async def audit_stream(self) -> tuple[str, int]:
        """Return the stream that takes records, and its creation time."""
        return await self.ask_api("audit stream", lambda: ("AUDIT", self._broker.led("AUDIT").created))

    async def created(self, stream: str) -> int:
        """Return when the stream was created."""
        return await self.ask_api(f"created {stream}", lambda: self._broker.led(stream).created)

    async def broker_time(self, stream: str) -> int:
        """Return the broker's time."""
        return await self.ask_api("time", partial(_time_of, self._broker, stream))


class SimulatedPull:
    """The `Pull` port of one host on one durable consumer."""

    def __init__(self, transport: SimulatedTransport, spec: DurableSpec, floors: AckFloors | None, batch: int) -> None:
        self._transport = transport
        self._broker = transport.broker
        self._stream = spec.stream
        self._spec = spec
        self._binding = ConsumerBinding(transport.api, spec, floors)
        self._batch = batch
        self._buffer: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._open: set[str] = set()
        self._is_bound = False
        self._settled = 0
        self._kept = (-1, -1)

    async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Ask for messages, again when nothing came for a while."""
        stream, name = self._stream, self._spec.name
        while True:
            if not self._is_bound:
                await self._bind()
            request = PullRequest(self._transport.host, self._batch, self._send, self._unserved)

            def asked(request: PullRequest = request) -> None:
                self._broker.request(stream, name, request)

            self._transport.carry(asked)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._arrived.wait()
            finally:
                self._transport.carry(partial(self._broker.withdraw, stream, name, request))
            self._arrived.clear()
            batch = list(self._buffer)
            self._buffer.clear()
            if batch:
                yield batch

    async def _bind(self) -> None:
        while not self._is_bound:
            try:
                stream = await self._transport.ask_api("stream", partial(_described, self._broker, self._stream))
                await self._binding.bind(stream, 0)
                self._is_bound, self._kept = True, (-1, -1)
            except InfrastructureError:
                await asyncio.sleep(BIND_AGAIN)

    def _unserved(self) -> None:
        """Tell the host that nobody serves the consumer."""

        def told() -> None:
            self._is_bound = False
            self._arrived.set()

        self._transport.tell(told)

    async def keep_floor(self) -> None:
        """Store how far the consumer is acknowledged."""
        settled = self._settled
        if self._kept != (settled, settled):
            await self._binding.keep_floor()
            self._kept = self._kept[1], settled

    def _send(self, taken: Sequence[Delivered]) -> None:
        """Send deliveries to the host."""
        source = self._broker.streams[self._stream]
        cell = self._spec.cell
        batch = [
            delivery_of(source, one.message, one.count, f"{self._spec.prefix}{one.message.sequence}.{one.number}", cell)
            for one in taken
        ]

        def arrived() -> None:
            self._buffer.extend(batch)
            self._open.update(one.token for one in batch)
            self._arrived.set()

        self._transport.bring(arrived)

    def _settle(self, delivery: Delivery, change: Callable[[Consumer, int], None]) -> None:
        if delivery.arrival is None:
            raise ValueError("a core message has no sequence")
        stream, name, sequence = self._stream, self._spec.name, delivery.arrival.sequence
        self._transport.carry(
            lambda: self._broker.settle(stream, name, lambda consumer: change(consumer, sequence)),
        )

    def _acknowledge(self, delivery: Delivery) -> None:
        self._settled += 1
        stream, name, sequence = self._stream, self._spec.name, delivery.sequence
        self._transport.carry(partial(self._broker.acknowledge, stream, name, sequence))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge for good."""
        for delivery in deliveries:
            if delivery.token in self._open:
                self._open.discard(delivery.token)
                self._acknowledge(delivery)

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Ask for redelivery after `delay` seconds."""
        if delivery.token in self._open:
            self._open.discard(delivery.token)
            wait, clock = int(delay * SECOND), self._broker.clock
            self._settle(delivery, lambda consumer, sequence: consumer.nak(sequence, delay=wait, now=clock()))

    def term(self, delivery: Delivery) -> None:
        """End the delivery for good."""
        self._open.discard(delivery.token)
        self._acknowledge(delivery)

    def working(self, delivery: Delivery) -> None:
        """Say that it is being handled."""
        if delivery.token in self._open:
            self._settle(delivery, lambda consumer, sequence: consumer.working(sequence, now=self._broker.clock()))

    async def load(self) -> ConsumerLoad:
        """Ask what the consumer holds, apart from what this host has in hand."""
        pending = await self._transport.ask_api(
            "load", lambda: self._broker.consumer(self._stream, self._spec.name).pending
        )
        return ConsumerLoad(max(0, pending - len(self._open)), self._spec.max_ack_pending)


def _described(broker: SimulatedBroker, name: str) -> StreamState:
    """Return what its leader says of a stream, which has three replicas."""
    led = broker.led(name)
    return StreamState(name=name, config={"num_replicas": 3}, created=led.created, messages=0, bytes=0, last=led.last)


def _nothing() -> None:
    """Do what a lost packet does."""


def _time_of(broker: SimulatedBroker, stream: str) -> int:
    broker.led(stream)
    return broker.clock()


def _stored_from(broker: SimulatedBroker, stream: str, place: int, subjects: Sequence[str]) -> tuple[list[Stored], int]:
    source = broker.led(stream)
    return [*source.after(place, subjects)], source.last
