"""What JetStream does with streams and pull consumers: a model without I/O, clock or randomness, held to a real server.

It models streams with retention by limits and pull consumers with explicit acknowledgement, as `bus/streams/declared` and
`bus/nats/durable_consumer` declare them. It refuses an operation whose result it does not know (`NotModelled`), and never
guesses. Times are microseconds, and `now` never goes back.

A stream of several replicas checks a message before it is proposed, a stream of one replica when it is stored. The two do
not check alike (nats-server 2.15, `checkMsgHeadersPreClusteredProposal` and `processJetStreamMsg`):

- Several replicas look for the message id first, one replica looks at the expected sequence first.
- In a full stream that discards new messages, one replica still takes a value that replaces one of its size. Several
  replicas refuse it.

`make model-operations` compares the model with a server.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Literal, NamedTuple, Self

from sealbus.bus.streams.declared import Stream as DeclaredStream
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.subjects import matches

EXPECTED_OF_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID: Final = "Nats-Msg-Id"

WRONG_SEQUENCE: Final = 10_071
MAXIMUM_BYTES: Final = 10_077

_new: Final = tuple.__new__
"""Makes a named tuple without a call of a Python function: one or two are made for each message."""
_OF_SERVER: Final = "Nats-"
"""The beginning of headers to which a server gives a meaning."""
_FRAME: Final = 30
"""Bytes that a file store adds to each message: lengths, sequence, time and checksum."""
_HEADER_LENGTH: Final = 4
"""Bytes that a file store adds to a header block."""
_SPARE: Final = 64
"""Deadlines that no longer hold, and that a consumer keeps at most beside those that do and as many again."""


class NotModelled(Exception):
    """An operation whose result this model does not know."""


class PublishRefused(Exception):
    """An error answer, with JetStream's `code` and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Stored(NamedTuple):
    """One stored message; `block` is its raw header block, `time` when it was stored."""

    sequence: int
    subject: str
    block: bytes
    payload: bytes
    time: int


class Ack(NamedTuple):
    """The acknowledgement of a publish."""

    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """The settings of a stream that decide what it does."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int = -1
    """-1 for no limit."""
    max_age: int = 0
    """Microseconds; 0 for no limit."""
    per_subject: int = -1
    """Messages kept per subject; -1 for no limit."""
    discard: Literal["new", "old"] = "new"
    window: int = 120 * SECOND
    """Microseconds for which message ids are remembered."""
    replicas: int = 1

    @classmethod
    def of_declared(cls, stream: DeclaredStream) -> Self:
        """Return the settings of a stream as a deployment has it."""
        return cls(
            name=stream.name,
            subjects=stream.subjects,
            max_bytes=stream.max_bytes,
            max_age=stream.max_age * SECOND,
            per_subject=stream.per_subject,
            discard=stream.discard,
            window=stream.duplicate_window * SECOND,
            replicas=stream.replicas,
        )


def stored_size(subject: str, block: bytes, payload: bytes) -> int:
    """Return how many bytes of `max_bytes` a message takes."""
    return _FRAME + len(subject) + (len(block) + _HEADER_LENGTH if block else 0) + len(payload)


class Stream:
    """One stream, as its leader has it."""

    def __init__(self, config: StreamConfig, *, created: int) -> None:
        self.config = config
        self.created = created
        self.last = 0
        """The sequence of the message that was stored last."""
        self.bytes = 0
        """How much of `max_bytes` is taken."""
        self._stored: dict[int, Stored] = {}
        self._lowest = 1
        """No message has a lower sequence."""
        self._of_subject: dict[str, list[int]] = {}
        self._ids: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """The time and the sequence of each message id within the window, by time."""
        self._consumers: dict[str, Consumer] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def attach(self, consumer: Consumer) -> None:
        """Tell `consumer` of messages that leave the stream; it replaces the consumer that had its name."""
        self._consumers[consumer.config.name] = consumer

    def detach(self, name: str) -> None:
        """Forget the consumer of this name."""
        del self._consumers[name]

    def publish(self, subject: str, block: bytes, payload: bytes, headers: Mapping[str, str], *, now: int) -> Ack:
        """Store one message.

        `headers` are those in `block`. A message id that the stream remembers gives the acknowledgement of the message that
        had it. Raises `PublishRefused`: 10071 if the last message of the subject is not the expected one, 10077 if the
        stream is full. Raises `NotModelled` for other headers with a meaning to the server.
        """
        identifier, expected = headers.get(MESSAGE_ID, ""), headers.get(EXPECTED_OF_SUBJECT)
        for name in headers:
            if name.startswith(_OF_SERVER) and name not in (MESSAGE_ID, EXPECTED_OF_SUBJECT):
                raise NotModelled(name)
        self.expire(now)
        if expected is not None and self.config.replicas == 1:
            self._check_expected(subject, expected)
        if identifier in self._ids:
            return Ack(self._ids[identifier][1], duplicate=True)
        if expected is not None and self.config.replicas > 1:
            self._check_expected(subject, expected)
        size = stored_size(subject, block, payload)
        if self.config.discard == "new" and 0 < self.config.max_bytes < self.bytes + size:
            self._check_replaced(subject, size)
        self.last += 1
        self._stored[self.last] = _new(Stored, (self.last, subject, block, payload, now))
        self._of_subject.setdefault(subject, []).append(self.last)
        self.bytes += size
        if identifier:
            self._ids[identifier] = (now, self.last)
        if self.config.per_subject > 0 or 0 < self.config.max_bytes < self.bytes:
            self._drop_old(subject)
        return _new(Ack, (self.last, False))

    def _check_expected(self, subject: str, expected: str) -> None:
        if not expected.isdecimal():
            raise NotModelled(f"{EXPECTED_OF_SUBJECT}: {expected}")
        if int(expected) != (last := self.last_of(subject)):
            raise PublishRefused(WRONG_SEQUENCE, f"wrong last sequence: {last}")

    def _check_replaced(self, subject: str, size: int) -> None:
        """Raise `PublishRefused` unless the oldest message of the subject leaves for one of `size` bytes, and has as many."""
        kept = self._of_subject.get(subject, [])
        if self.config.replicas == 1 and 0 < self.config.per_subject <= len(kept):
            oldest = self._stored[kept[0]]
            if stored_size(oldest.subject, oldest.block, oldest.payload) >= size:
                return
        raise PublishRefused(MAXIMUM_BYTES, "maximum bytes exceeded")

    def _drop_old(self, subject: str) -> None:
        kept = self._of_subject[subject]
        while 0 < self.config.per_subject < len(kept):
            self.remove(kept[0])
        # A stream that refuses the new is not beyond its limit by now.
        while 0 < self.config.max_bytes < self.bytes:
            self.remove(self.first())

    def expire(self, now: int) -> None:
        """Forget message ids older than the window, and remove messages older than `max_age`."""
        ids, before = self._ids, now - self.config.window
        while ids and ids[next(iter(ids))][0] <= before:
            ids.popitem(last=False)
        if self.config.max_age:
            before = now - self.config.max_age
            while self._stored and self._stored[self.first()].time <= before:
                self.remove(self.first())

    def remove(self, sequence: int) -> None:
        """Take one message out of the stream. A consumer that waits for its acknowledgement no longer does."""
        message = self._stored.pop(sequence)
        self.bytes -= stored_size(message.subject, message.block, message.payload)
        kept = self._of_subject[message.subject]
        del kept[bisect_left(kept, sequence)]
        if not kept:
            del self._of_subject[message.subject]
        for consumer in self._consumers.values():
            consumer.ack(sequence)

    def damage(self, message: Stored) -> None:
        """Put `message` in the place of the one with its sequence, as bytes change on a disk: nothing else is told."""
        self._stored[message.sequence] = message

    def get(self, sequence: int) -> Stored | None:
        """Return the message with this sequence, if the stream has it."""
        return self._stored.get(sequence)

    def last_of(self, subject: str) -> int:
        """Return the sequence of the last message of `subject`, 0 if there is none."""
        kept = self._of_subject.get(subject)
        return kept[-1] if kept else 0

    def first(self) -> int:
        """Return the lowest sequence that the stream has; if it is empty, the sequence after the last."""
        while self._lowest <= self.last and self._lowest not in self._stored:
            self._lowest += 1
        return self._lowest

    def after(self, sequence: int, filters: Sequence[str]) -> Iterator[Stored]:
        """Yield the messages from `sequence` on whose subject one of `filters` matches.

        A message that is stored or removed meanwhile may be left out or yielded.
        """
        wanted: dict[str, bool] = {}
        for number in range(max(sequence, self.first()), self.last + 1):
            if (message := self._stored.get(number)) is None:
                continue
            subject = message.subject
            if subject not in wanted:
                wanted[subject] = any(matches(pattern, subject) for pattern in filters)
            if wanted[subject]:
                yield message

    def truncate(self, last: int) -> list[Stored]:
        """Lose all messages after `last`, as a server that had not synced them; return them.

        Raises `NotModelled` for several replicas if a consumer is further than `last`: such a consumer is not set back.
        """
        if self.config.replicas > 1 and any(consumer.reached > last for consumer in self._consumers.values()):
            raise NotModelled("a replicated consumer that is ahead of its stream")
        numbers = range(max(last + 1, self.first()), self.last + 1)
        lost = [self._stored[number] for number in numbers if number in self._stored]
        for consumer in self._consumers.values():
            consumer.reconcile(last)
        for message in lost:
            self.remove(message.sequence)
        self.last = min(self.last, last)
        self._lowest = min(self._lowest, self.last + 1)
        # The server reads message ids from what is stored.
        self._ids = OrderedDict((key, at) for key, at in self._ids.items() if at[1] <= last)
        return lost


class Delivered(NamedTuple):
    """One delivery: the message, how often it was delivered, and the delivery's number in the consumer."""

    message: Stored
    count: int  # type: ignore[assignment]  # it replaces a tuple's method
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """The settings of a durable pull consumer."""

    name: str
    filters: tuple[str, ...]
    ack_wait: int
    """Microseconds after which a delivery that is not acknowledged is repeated."""
    max_ack_pending: int
    """How many deliveries may be pending before nothing new is delivered."""
    start: int = 1
    """The sequence of the first message to deliver."""


class Consumer:
    """One durable pull consumer, as its leader has it."""

    def __init__(self, stream: Stream, config: ConsumerConfig) -> None:
        self.config = config
        self._stream = stream
        self._next = max(config.start, 1)
        """The lowest sequence that was not looked at."""
        self._delivered = 0
        self._pending: dict[int, int] = {}
        """What was delivered and not acknowledged: when it is to be delivered again, unless it is queued already."""
        self._repeated: dict[int, int] = {}
        """How often a pending message was delivered again, if it was."""
        self._queue: OrderedDict[int, None] = OrderedDict()
        """What is to be delivered again, in that order; all of it is pending."""
        self._deadlines: list[tuple[int, int]] = []
        """A heap of times and sequences. An entry holds only if the pending message is due then and not queued."""
        stream.attach(self)

    @property
    def pending(self) -> int:
        """How many messages were delivered and not acknowledged (`num_ack_pending`)."""
        return len(self._pending)

    @property
    def undelivered(self) -> int:
        """How many messages of the stream were never delivered (`num_pending`)."""
        return sum(1 for _ in self._stream.after(self._next, self.config.filters))

    @property
    def queued(self) -> tuple[int, ...]:
        """The sequences that are to be delivered again now, in that order."""
        return tuple(self._queue)

    @property
    def reached(self) -> int:
        """The highest sequence that was looked at."""
        return self._next - 1

    @property
    def floor(self) -> int:
        """The highest sequence up to which nothing is left to acknowledge; a server may say a lower one (`ack_floor`)."""
        return min(self._pending) - 1 if self._pending else self.reached

    def take(self, most: int, *, now: int) -> list[Delivered]:
        """Return up to `most` deliveries: first the repeated ones, which `max_ack_pending` does not limit, then new."""
        self.expire(now)
        taken: list[Delivered] = []
        while self._queue and len(taken) < most:
            sequence, _ = self._queue.popitem(last=False)
            if (message := self._stream.get(sequence)) is not None:
                self._repeated[sequence] = self._repeated.get(sequence, 0) + 1
                taken.append(self._deliver(message, now))
        room = min(most - len(taken), self.config.max_ack_pending - len(self._pending))
        if room <= 0:
            return taken
        for message in self._stream.after(self._next, self.config.filters):
            self._next = message.sequence + 1
            taken.append(self._deliver(message, now))
            room -= 1
            if not room:
                return taken
        self._next = max(self._next, self._stream.last + 1)
        return taken

    def _deliver(self, message: Stored, now: int) -> Delivered:
        self._delivered += 1
        self._wait(message.sequence, now + self.config.ack_wait)
        return _new(Delivered, (message, self._repeated.get(message.sequence, 0) + 1, self._delivered))

    def _wait(self, sequence: int, due: int) -> None:
        self._pending[sequence] = due
        heappush(self._deadlines, (due, sequence))
        if len(self._deadlines) > 2 * len(self._pending) + _SPARE:
            self._deadlines = [deadline for deadline in self._deadlines if self._holds(*deadline)]
            heapify(self._deadlines)

    def _holds(self, due: int, sequence: int) -> bool:
        return self._pending.get(sequence) == due and sequence not in self._queue

    def ack(self, sequence: int) -> None:
        """Settle a message for good, by any of its deliveries. A message that was not delivered yet is not settled."""
        self._pending.pop(sequence, None)
        self._repeated.pop(sequence, None)
        self._queue.pop(sequence, None)

    def nak(self, sequence: int, *, delay: int = 0, now: int) -> None:
        """Deliver a pending message again, after `delay` microseconds; a queued one without delay keeps its place."""
        if sequence not in self._pending:
            return
        if delay:
            self._queue.pop(sequence, None)
            self._wait(sequence, now + delay)
        else:
            self._queue.setdefault(sequence)

    def lose_ack(self, sequence: int) -> None:
        """Queue a delivered message, as a server that had not synced its acknowledgement; one that left stays away."""
        if self._stream.get(sequence) is not None and sequence <= self.reached:
            self._pending.setdefault(sequence, 0)
            self._queue.setdefault(sequence)

    def working(self, sequence: int, *, now: int) -> None:
        """Wait for another `ack_wait`; a message that is queued is delivered again all the same."""
        if sequence in self._pending:
            self._wait(sequence, now + self.config.ack_wait)

    def expire(self, now: int) -> None:
        """Queue the messages whose acknowledgement is overdue, by when it was due, then by sequence."""
        while (due := self.due()) is not None and due <= now:
            self._queue[heappop(self._deadlines)[1]] = None

    def due(self) -> int | None:
        """Return when the next message is to be queued, if any is pending that is not."""
        while self._deadlines and not self._holds(*self._deadlines[0]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def reconcile(self, last: int) -> None:
        """Go back to where the stream ends, at `last`, as a server that finds at its start that messages were lost.

        What lies between the highest pending message and `last` is delivered again, also if it was acknowledged.
        """
        if self.reached <= last:
            return
        for sequence in [sequence for sequence in self._pending if sequence > last]:
            self.ack(sequence)
        self._next = max(self._pending, default=last) + 1
