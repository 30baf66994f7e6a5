"""The broker of a simulation: streams and consumers as their leaders have them, and faults that Jepsen found in real ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sealbus.agents.dev.memory.broker import header_block
from sealbus.agents.dev.memory.jetstream import (
    Consumer,
    ConsumerConfig,
    Delivered,
    PublishRefused,
    Stored,
    Stream,
    StreamConfig,
)
from sealbus.bus.ports import Outgoing, PubAck, StreamRefused
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.subjects import matches
from simulation.loop import WORLD, Host, SimulatedLoop

__all__ = ["Listener", "PullRequest", "SimulatedBroker"]

_ROOM: Final = 1 << 26
"""Bytes of each stream, unless a fault makes it full."""
_NO_RESPONDERS: Final = b"NATS/1.0 503\r\n\r\n"


@dataclass(slots=True, eq=False)
class PullRequest:
    """A request that waits for messages of a consumer."""

    host: Host
    most: int
    arrive: Callable[[Sequence[Delivered]], None]


@dataclass(slots=True, eq=False)
class Listener:
    """A subscription on core subjects."""

    host: Host
    pattern: str
    queue: str
    arrive: Callable[[Outgoing, bytes], None]


@dataclass(slots=True)
class _Served:
    """A consumer, and the requests that wait for it."""

    consumer: Consumer
    requests: deque[PullRequest] = field(default_factory=deque)


class SimulatedBroker:
    """Streams, consumers and subscriptions. Each operation is applied at once, in a step of the broker's own host."""

    def __init__(self, loop: SimulatedLoop, *, start: int, replicas: int = 3) -> None:
        self.loop = loop
        self.streams: dict[str, Stream] = {}
        self.listeners: list[Listener] = []
        self.followers: list[tuple[Host, str, Callable[[], None]]] = []
        """Hosts that are told when a stream has stored something."""
        self.on_stored: Callable[[Stream, Stored], None] = lambda *_: None
        self.silent_until = 0.0
        """Nothing is answered before, as between two leaders. What was published is stored all the same."""
        self._start = start
        self._served: dict[tuple[str, str], _Served] = {}
        for stream in declared_streams({"TASKS": _ROOM, "AUDIT": _ROOM}, replicas=replicas):
            config = StreamConfig.of_declared(stream)
            self.streams[stream.name] = Stream(replace(config, max_bytes=_ROOM), created=self.clock())

    def clock(self) -> int:
        """Return the broker's time in microseconds."""
        return self._start + int(self.loop.now * SECOND)

    def stream_of(self, subject: str) -> Stream | None:
        """Return the stream that stores `subject`, if any does."""
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.config.subjects):
                return stream
        return None

    def publish(self, message: Outgoing) -> PubAck | Exception:
        """Store a message, and return what its sender is told."""
        stream = self.stream_of(message.subject)
        if stream is None:
            return BusUnavailable(f"{message.subject}: no stream stores this subject")
        headers = {**({"Nats-Msg-Id": message.message_id} if message.message_id else {}), **message.headers}
        try:
            ack = stream.publish(message.subject, header_block(message), message.payload, headers, now=self.clock())
        except PublishRefused as refused:
            return StreamRefused(f"{stream.config.name}: {refused}", refused.code)
        if not ack.duplicate and (stored := stream.get(ack.sequence)) is not None:
            self.on_stored(stream, stored)
            self._announce(stream.config.name)
        return PubAck(stream=stream.config.name, sequence=ack.sequence, duplicate=ack.duplicate)

    def _announce(self, name: str) -> None:
        for stream, consumer in self._served:
            if stream == name:
                self.serve(stream, consumer)
        for _, stream, announce in list(self.followers):
            if stream == name:
                announce()

    def bind(self, stream: str, config: ConsumerConfig) -> None:
        """Create a durable consumer, unless there is one of this name."""
        key = (stream, config.name)
        if key not in self._served:
            self._served[key] = _Served(Consumer(self.streams[stream], config))

    def request(self, stream: str, consumer: str, request: PullRequest) -> None:
        """Let `request` wait for messages of a consumer."""
        self._served[stream, consumer].requests.append(request)
        self.serve(stream, consumer)

    def withdraw(self, stream: str, consumer: str, request: PullRequest) -> None:
        """End a request, if it still waits."""
        served = self._served.get((stream, consumer))
        if served is not None and request in served.requests:
            served.requests.remove(request)

    def settle(self, stream: str, consumer: str, change: Callable[[Consumer], None]) -> None:
        """Change a consumer by an acknowledgement of some kind, and deliver what may be delivered then."""
        if (served := self._served.get((stream, consumer))) is not None:
            change(served.consumer)
            self.serve(stream, consumer)

    def consumer(self, stream: str, name: str) -> Consumer:
        """Return a consumer."""
        return self._served[stream, name].consumer

    def serve(self, stream: str, name: str) -> None:
        """Answer the requests that wait, and look again when a delivery is over."""
        served = self._served[stream, name]
        while served.requests:
            taken = served.consumer.take(served.requests[0].most, now=self.clock())
            if not taken:
                break
            served.requests.popleft().arrive(taken)
        if served.requests and (due := served.consumer.due()) is not None:
            with WORLD.entered():
                self.loop.call_later(max(0.001, (due - self.clock()) / SECOND), self.serve, stream, name)

    def deliver(self, message: Outgoing) -> None:
        """Hand a core message to the subscriptions, once to each queue group."""
        block = header_block(message)
        groups: dict[tuple[str, str], list[Listener]] = {}
        for number, listener in enumerate(self.listeners):
            if matches(listener.pattern, message.subject):
                groups.setdefault((listener.pattern, listener.queue or f" {number}"), []).append(listener)
        for members in groups.values():
            self.loop.random.choice(members).arrive(message, block)
        if message.reply and not groups:
            for listener in self.listeners:
                if matches(listener.pattern, message.reply):
                    listener.arrive(Outgoing(subject=message.reply, payload=b""), _NO_RESPONDERS)

    def disconnect(self, host: Host) -> None:
        """Forget the subscriptions and requests of a host whose connections have ended."""
        self.listeners = [one for one in self.listeners if one.host is not host]
        self.followers = [one for one in self.followers if one[0] is not host]
        for served in self._served.values():
            served.requests = deque(one for one in served.requests if one.host is not host)

    def redeliver(self) -> None:
        """Deliver again, at once, everything that is not acknowledged, as if `ack_wait` were over for all of it."""
        for (stream, name), served in self._served.items():
            served.consumer.expire(self.clock() + served.consumer.config.ack_wait)
            self.serve(stream, name)

    def forget_consumers(self) -> None:
        """Lose what consumers knew: they begin again at the first message."""
        for (stream, name), served in self._served.items():
            served.consumer = Consumer(self.streams[stream], served.consumer.config)
            self.serve(stream, name)

    def fill(self, stream: str) -> Callable[[], None]:
        """Make a stream full, and return what gives it its room back."""
        full = self.streams[stream]
        full.config = replace(full.config, max_bytes=max(1, full.bytes))

        def emptied() -> None:
            full.config = replace(full.config, max_bytes=_ROOM)

        return emptied

    def lose(self, stream: str, count: int) -> list[Stored]:
        """Lose the last `count` messages, as replicas that had not synced may (nats-server#7564); return them."""
        source = self.streams[stream]
        lost = source.truncate(max(0, source.last - count))
        for name, consumer in self._served:
            if name == stream:
                self.serve(name, consumer)
        return lost
