"""The broker of a simulation: streams and consumers as their leaders have them, and faults that Jepsen found in real ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
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
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.subjects import matches
from simulation.loop import WORLD, Host, SimulatedLoop

__all__ = ["Flipped", "Follower", "Listener", "PullRequest", "SimulatedBroker", "Unanswered"]

_ROOM: Final = 1 << 26
"""Bytes of each stream, unless a fault makes it full."""
_TAKEN_IN: Final = 0.3
"""Seconds after the end of a leader within which its followers may still store what it took in."""
_FLIPPED: Final = 8
"""Of so many last messages one is damaged."""
_REMEMBERED: Final = 64
"""Acknowledgements of each consumer that a change of leader may lose."""
_HEARTBEATS: Final = 5.0
"""Seconds after which a request that is not heard of is made again."""
_NO_RESPONDERS: Final = b"NATS/1.0 503\r\n\r\n"


class Flipped(IntEnum):
    """Where a bit was flipped, which decides what a server makes of it (docs/durability.md)."""

    BODY = 0
    """The message is not there any more."""
    HEADERS = 1
    """In a length that no checksum is over: the message has another body."""
    RECORD = 2
    """In the length of the record: the message and all after it are gone."""


class Unanswered(Exception):
    """A request that nobody answers."""


@dataclass(slots=True, eq=False)
class PullRequest:
    """A request that waits for messages of a consumer."""

    host: Host
    most: int
    arrive: Callable[[Sequence[Delivered]], None]
    unserved: Callable[[], None]
    """Called if nobody serves the consumer."""


@dataclass(slots=True, eq=False)
class Listener:
    """A subscription on core subjects."""

    host: Host
    pattern: str
    queue: str
    arrive: Callable[[Outgoing, bytes], None]


@dataclass(slots=True, eq=False)
class Follower:
    """A host that is told when a stream has stored something on one of `subjects`."""

    host: Host
    stream: str
    subjects: Sequence[str]
    announce: Callable[[], None]


@dataclass(slots=True)
class _Served:
    """A consumer, and the requests that wait for it."""

    consumer: Consumer
    requests: deque[PullRequest] = field(default_factory=deque)
    look_at: float = math.inf
    """When it is looked at again, if it is."""
    acknowledged: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """When messages were acknowledged, and their sequences."""
    away_until: float = 0.0
    """When its only server comes back, if that is away."""
    farewell: bool = False
    """Whether that server was shut down, so that others answer for it, or was killed."""


class SimulatedBroker:
    """Streams, consumers and subscriptions. Each operation is applied at once, in a step of the broker's own host."""

    def __init__(self, loop: SimulatedLoop, *, start: int, replicas: int = 3) -> None:
        self.loop = loop
        self.streams: dict[str, Stream] = {}
        self.listeners: list[Listener] = []
        self.followers: list[Follower] = []
        self.on_stored: Callable[[Stream, Stored], None] = lambda *_: None
        self.silent_until = 0.0
        """Nothing is answered before, as between two leaders. What was published is stored all the same."""
        self.down_until = 0.0
        """Nobody reaches it before: all its servers were killed. What they have stored is there afterwards."""
        self.apart_until = 0.0
        """No host of another cell reaches it before."""
        self._elections: dict[str, tuple[float, float]] = {}
        """When streams lost their leader, and when they have one again."""
        self._start = start
        self._served: dict[tuple[str, str], _Served] = {}
        for stream in declared_streams({"TASKS": _ROOM, "AUDIT": _ROOM}, replicas=replicas):
            config = StreamConfig.of_declared(stream)
            self.streams[stream.name] = Stream(replace(config, max_bytes=_ROOM), created=self.clock())

    def clock(self) -> int:
        """Return the broker's time in microseconds."""
        return self._start + int(self.loop.now * SECOND)

    def is_reached(self, *, by_others: bool) -> bool:
        """Return whether its own hosts, or those `by_others`' cells, reach it now."""
        return self.loop.now >= (max(self.down_until, self.apart_until) if by_others else self.down_until)

    def stream_of(self, subject: str) -> Stream | None:
        """Return the stream that stores `subject`, if any does."""
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.config.subjects):
                return stream
        return None

    def led(self, stream: str) -> Stream:
        """Return a stream; raise `Unanswered` while it has no leader."""
        if self._is_leaderless(stream):
            raise Unanswered(stream)
        return self.streams[stream]

    def _is_leaderless(self, stream: str) -> bool:
        return stream in self._elections and self.loop.now < self._elections[stream][1]

    def _is_absent(self, stream: str, consumer: str) -> bool:
        """Return whether nobody serves a consumer: its stream has no leader, or its only server is away."""
        return self._is_leaderless(stream) or self._is_away(stream, consumer)

    def _is_away(self, stream: str, consumer: str) -> bool:
        served = self._served.get((stream, consumer))
        return served is not None and self.loop.now < served.away_until

    def publish(self, message: Outgoing) -> PubAck | Exception:
        """Store a message, and return what its sender is told. Raises `Unanswered`; the message may be stored then."""
        stream = self.stream_of(message.subject)
        if stream is None:
            return BusUnavailable(f"{message.subject}: no stream stores this subject")
        if self._is_leaderless(stream.config.name):
            return self._publish_leaderless(stream, message)
        return self._store(stream, message)

    def _publish_leaderless(self, stream: Stream, message: Outgoing) -> PubAck | Exception:
        """Handle what comes between two leaders. The old leader may have taken it in; later nobody subscribes to it."""
        chance, name = self.loop.random.random, stream.config.name
        if self.loop.now < self._elections[name][0] + _TAKEN_IN:
            if chance() < 0.5:
                self._store(stream, message)
        elif chance() < 0.5:
            return BusUnavailable(f"{message.subject}: no stream stores this subject, or JetStream is not available")
        raise Unanswered(name)

    def _store(self, stream: Stream, message: Outgoing) -> PubAck | Exception:
        headers = {**({"Nats-Msg-Id": message.message_id} if message.message_id else {}), **message.headers}
        try:
            ack = stream.publish(message.subject, header_block(message), message.payload, headers, now=self.clock())
        except PublishRefused as refused:
            return StreamRefused(f"{stream.config.name}: {refused}", refused.code)
        if not ack.duplicate and (stored := stream.get(ack.sequence)) is not None:
            self.on_stored(stream, stored)
            self._announce(stream.config.name, message.subject)
        return PubAck(stream=stream.config.name, sequence=ack.sequence, duplicate=ack.duplicate)

    def _announce(self, name: str, subject: str | None = None) -> None:
        if self._is_leaderless(name):
            return
        for stream, consumer in self._served:
            if stream == name:
                self.serve(stream, consumer)
        self.tell_followers(name, subject)

    def tell_followers(self, name: str, subject: str | None = None) -> None:
        """Tell those who follow the stream `name` that something was stored on `subject`, or perhaps on any."""
        for follower in list(self.followers):
            if follower.stream == name and (
                subject is None or any(matches(pattern, subject) for pattern in follower.subjects)
            ):
                follower.announce()

    def bind(self, stream: str, config: ConsumerConfig) -> None:
        """Create a durable consumer, unless there is one of this name. Raises `Unanswered`."""
        key = (stream, config.name)
        if self._is_absent(*key):
            raise Unanswered(config.name)
        if key not in self._served:
            self._served[key] = _Served(Consumer(self.streams[stream], config))

    def has_consumer(self, stream: str, name: str) -> bool:
        """Return whether there is a consumer of this name, wherever its server is. Raises `Unanswered`."""
        if self._is_leaderless(stream):
            raise Unanswered(name)
        return (stream, name) in self._served

    def says_offline(self, stream: str, name: str) -> bool:
        """Return whether other servers say of the only server of a consumer that it is away."""
        return not self._is_leaderless(stream) and self._is_away(stream, name) and self._served[stream, name].farewell

    def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer; the requests that wait for it end. Raises `Unanswered`, also if it takes effect."""
        absent = self._is_absent(stream, name) and not self.says_offline(stream, name)
        if not self._is_leaderless(stream) and (served := self._served.pop((stream, name), None)) is not None:
            self.streams[stream].detach(name)
            for request in served.requests:
                request.unserved()
        if absent:
            raise Unanswered(name)

    def request(self, stream: str, consumer: str, request: PullRequest) -> None:
        """Let `request` wait for messages of a consumer, or end if nobody serves it."""
        if (stream, consumer) not in self._served or self._is_away(stream, consumer):
            request.unserved()
            return
        self._served[stream, consumer].requests.append(request)
        self.serve(stream, consumer)

    def withdraw(self, stream: str, consumer: str, request: PullRequest) -> None:
        """End a request, if it still waits."""
        served = self._served.get((stream, consumer))
        if served is not None and request in served.requests:
            served.requests.remove(request)

    def settle(self, stream: str, consumer: str, change: Callable[[Consumer], None]) -> None:
        """Change a consumer by an acknowledgement of some kind, and deliver what may be delivered then."""
        if (served := self._served.get((stream, consumer))) is not None and not self._is_absent(stream, consumer):
            change(served.consumer)
            self.serve(stream, consumer)

    def acknowledge(self, stream: str, consumer: str, sequence: int) -> None:
        """Settle a message for good."""
        if (served := self._served.get((stream, consumer))) is not None and not self._is_absent(stream, consumer):
            served.acknowledged.append((self.loop.now, sequence))
            served.consumer.ack(sequence)
            self.serve(stream, consumer)

    def consumer(self, stream: str, name: str) -> Consumer:
        """Return a consumer; raise `Unanswered` while nobody serves it."""
        if self._is_absent(stream, name) or (stream, name) not in self._served:
            raise Unanswered(name)
        return self._served[stream, name].consumer

    def serve(self, stream: str, name: str) -> None:
        """Answer the requests that wait, and look again when a delivery is over."""
        served = self._served.get((stream, name))
        if served is None or self._is_absent(stream, name):
            return
        while served.requests:
            taken = served.consumer.take(served.requests[0].most, now=self.clock())
            if not taken:
                break
            served.requests.popleft().arrive(taken)
        if served.requests and (due := served.consumer.due()) is not None:
            look_at = self.loop.now + max(0.001, (due - self.clock()) / SECOND)
            if look_at < served.look_at:
                served.look_at = look_at
                with WORLD.entered():
                    self.loop.call_at(look_at, self._look, stream, name)

    def _look(self, stream: str, name: str) -> None:
        if (served := self._served.get((stream, name))) is not None:
            served.look_at = math.inf
            self.serve(stream, name)

    def deliver(self, message: Outgoing, senders: Sequence[Listener]) -> None:
        """Hand a core message to the subscriptions, once to each queue group.

        If there is none, it is said to the subscription on the reply subject among `senders`, those of the sender's cell.
        """
        block = header_block(message)
        groups: dict[tuple[str, str], list[Listener]] = {}
        for number, listener in enumerate(self.listeners):
            if matches(listener.pattern, message.subject):
                groups.setdefault((listener.pattern, listener.queue or f" {number}"), []).append(listener)
        for members in groups.values():
            self.loop.random.choice(members).arrive(message, block)
        if message.reply and not groups:
            for listener in senders:
                if matches(listener.pattern, message.reply):
                    listener.arrive(Outgoing(subject=message.reply, payload=b""), _NO_RESPONDERS)

    def disconnect(self, host: Host) -> None:
        """Forget the subscriptions and requests of a host whose connections have ended."""
        self.listeners = [one for one in self.listeners if one.host is not host]
        self.followers = [one for one in self.followers if one.host is not host]
        for served in self._served.values():
            served.requests = deque(one for one in served.requests if one.host is not host)

    def go_down(self, seconds: float) -> None:
        """Have all servers killed, and back after `seconds`. Requests that wait miss their heartbeats."""
        self.down_until = max(self.down_until, self.loop.now + seconds)
        requests = [request for served in self._served.values() for request in served.requests]
        for served in self._served.values():
            served.requests.clear()

        def missed() -> None:
            for request in requests:
                request.unserved()

        with WORLD.entered():
            self.loop.call_later(_HEARTBEATS, missed)

    def elect(self, stream: str, seconds: float, unreplicated: float) -> None:
        """Have a stream and its consumers without a leader for `seconds`.

        The old leader may not have replicated acknowledgements of the last `unreplicated` seconds: these messages come again.
        What was stored has been replicated before it was acknowledged, and is there.
        """
        now = self.loop.now
        _, until = self._elections.get(stream, (0.0, 0.0))
        self._elections[stream] = now, max(until, now + seconds)
        for (name, _), served in self._served.items():
            if name == stream:
                for at, sequence in served.acknowledged:
                    if at >= now - unreplicated and self.loop.random.random() < 0.5:
                        served.consumer.lose_ack(sequence)
                served.acknowledged.clear()

    def lead(self, stream: str) -> None:
        """Go on with a stream and its consumers, if a leader was elected."""
        self._announce(stream)

    def send_away(self, stream: str, consumer: str, seconds: float) -> Callable[[bool], None]:
        """Have the only server of a consumer away for `seconds`: no delivery, no answer, and no acknowledgement counts.

        Requests that wait miss their heartbeats, and find nobody. Return what brings the server back, without the state of
        the consumer if it is passed `True`; by then the consumer may be on another server.
        """
        served = self._served.get((stream, consumer))
        if served is None:
            return lambda _: None
        served.away_until = max(served.away_until, self.loop.now + seconds)
        served.farewell = self.loop.random.random() < 0.5
        requests, served.requests = served.requests, deque()

        def missed() -> None:
            for request in requests:
                request.unserved()

        with WORLD.entered():
            self.loop.call_later(_HEARTBEATS, missed)

        def back(empty: bool) -> None:
            if self._served.get((stream, consumer)) is served and not self._is_absent(stream, consumer):
                if empty:
                    served.consumer = Consumer(self.streams[stream], served.consumer.config)
                self.serve(stream, consumer)

        return back

    def restore(self) -> list[RestoredStream]:
        """Create all streams again, now, with their messages and consumers; return what was restored, by name."""
        created, restored = self.clock(), []
        for name, stream in sorted(self.streams.items()):
            restored.append(RestoredStream(stream=name, before=stream.created, created=created, last=stream.last))
            stream.created = created
        return restored

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

    def lose_after(self, stream: str, last: int) -> list[Stored]:
        """Lose the messages after `last`, and return them."""
        lost = self.streams[stream].truncate(last)
        for name, consumer in self._served:
            if name == stream:
                self.serve(name, consumer)
        return lost

    def flip(self, stream: str, part: Flipped) -> tuple[list[Stored], list[Stored]]:
        """Flip a bit of one of the last messages; return what a server loses then, and what it has otherwise."""
        source, chance = self.streams[stream], self.loop.random
        message = source.get(source.last - chance.randrange(_FLIPPED))
        if message is None:
            return [], []
        match part:
            case Flipped.BODY:
                source.remove(message.sequence)
                return [message], []
            case Flipped.HEADERS:
                at = chance.randrange(len(message.payload)) if message.payload else 0
                damaged = bytes(byte ^ (place == at) for place, byte in enumerate(message.payload))
                source.damage(message._replace(payload=damaged))
                return [], [message]
            case Flipped.RECORD:
                return self.lose_after(stream, message.sequence - 1), []
