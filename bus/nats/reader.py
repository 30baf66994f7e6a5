"""Reads a stream in order, for audit and replay, without gaps or repetitions through restarts and rotations.

Each attempt has its own consumer in the server's memory, without acknowledgements. After any failure (a gap in the count, a
lost link, a deleted consumer) a new attempt starts after the last sequence that was yielded. A message with a malformed
header block is yielded like any other.

The last message of one subject is read by JetStream's direct get, which permissions can limit to a subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from sealbus.bus.nats.acks import AckSubjects
from sealbus.bus.nats.api import STREAM_NOT_FOUND, StreamState, existing_stream, make_reader, no_stream, parse_time
from sealbus.bus.nats.connection.connection import Connection, ask
from sealbus.bus.nats.connection.frames import check_pattern, check_subject, header_value, status_of
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.pull_requests import PULLS, Care, PullRequest, PullRequests
from sealbus.bus.nats.reach import NatsCell
from sealbus.bus.ports import Delivery, StoredValue, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.message.freshness import StreamArrival

_logger = logging.getLogger(__name__)

BATCH = 500
HEARTBEAT = 2.5
"""Seconds between the server's signs of life. A reader is current no longer than `pull_requests.LATE` after one was due."""
READY_SECONDS = 30.0
MOVED = "moved to a new connection"
CUT = "an empty message ended a request"
AT_ONCE = (MOVED, CUT)
"""Reasons to begin again at once: nothing failed, and the reader stays current."""
PASSING = (404, 408)
"""Statuses of a request that ran out without an error."""

_NOT_FOUND = 404


class _Reader:
    """One attempt: a consumer on one link, and its deliveries in order."""

    def __init__(self, link: Link, stream: str, created: int, care: Care, prefix: str = "") -> None:
        self.link = link
        self._prefix = prefix
        self.broken = ""
        self.arrived = asyncio.Event()
        self._stream = stream
        self.name = f"read-{secrets.token_hex(8)}"
        self._acks = AckSubjects(stream, self.name)
        self._created = created
        self._made = False
        self._pending = 0
        self._count = 0
        self._buffer: deque[Delivery] = deque()
        self._pulls: PullRequests | None = None
        self._care = care
        self._careful = care.needed

    async def open(
        self,
        cell: NatsCell,
        subjects: tuple[str, ...],
        start: int,
        since: int,
        *,
        headers_only: bool = False,
        once: bool = False,
    ) -> int:
        """Create the consumer, from sequence `start`, or from the time `since` if given; return its message count.

        With `once` no more messages than these are requested.
        """
        self.link.watchers.append(self.arrived.set)
        self._pending = await make_reader(
            cell.request,
            self._stream,
            self.name,
            subjects,
            start,
            since,
            headers_only=headers_only,
        )
        self._made = True
        count = self._pending
        if once and not count:
            return count
        self._pulls = PullRequests(
            f"{self._prefix}$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.name}",
            PullRequest(batch=BATCH, heartbeat=HEARTBEAT),
            cell.connection.inbox_prefix,
            deliver=self.deliver,
            ended=self.ended,
            refused=self._break,
            waiting=lambda: len(self._buffer),
            care=self._care,
        )
        self._pulls.open(self.link, 1 if once and count <= BATCH else PULLS)
        self._pulls.asking = True
        return count

    @property
    def exhausted(self) -> bool:
        """Whether all messages of the consumer were taken."""
        return not self._pending and not self._buffer

    @property
    def silent_at(self) -> float:
        """The loop's time at which the request that has waited longest counts as forgotten."""
        silent = self._pulls.silent_at() if self._pulls is not None else None
        return asyncio.get_running_loop().time() + 1.0 if silent is None else silent

    def ask(self) -> None:
        """Request more if there is room. The server serves requests in order, so two requests keep the order."""
        if self._pulls is not None and not self.broken and self.link.alive:
            self._pulls.ask()

    def take_batch(self, last: int | None) -> list[Delivery]:
        """Return the deliveries that have come, up to stream sequence `last`."""
        batch = list(self._buffer)
        self._buffer.clear()
        if last is not None and batch and batch[-1].sequence > last:
            self._pending = 0
            batch = [delivery for delivery in batch if delivery.sequence <= last]
        return batch

    def close(self) -> None:
        """End the subscriptions, and have the server delete the consumer, which it would otherwise do a little later."""
        if self.arrived.set in self.link.watchers:
            self.link.watchers.remove(self.arrived.set)
        if self._pulls is not None:
            self._pulls.asking = False
            self._pulls.close(self.link)
        if self._made:
            with contextlib.suppress(BusUnavailable):
                _delete(self.link, self._prefix, self._stream, self.name)

    def deliver(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        ack = self._acks.parse(reply)
        if self.broken or ack is None:
            return
        self._count += 1
        if ack.consumer_sequence != self._count:
            self._break("a delivery is missing")
            return
        self._pending = ack.pending
        text = subject.decode("ascii", "backslashreplace")
        self._buffer.append(
            Delivery(
                subject=text,
                payload=payload,
                header_block=block,
                arrival=StreamArrival(
                    subject=text,
                    header_block=block,
                    stream=self._stream,
                    sequence=ack.sequence,
                    stored=ack.stored,
                    created=self._created,
                    delivery=1,
                ),
            )
        )
        self.arrived.set()
        if not block and not payload and not self._careful:
            # Later messages of the request are lost. The next attempt requests one message at a time.
            self._break(CUT)

    def ended(self, status: int, text: str) -> None:
        if status in PASSING:
            if self.exhausted:
                # The caller has nothing to do, as each time while an agent is idle.
                self.ask()
                return
            self._pending = 0  # messages that were there at creation may have expired since
        if status and status not in PASSING and "MaxBytes" not in text and "Batch Completed" not in text:
            self._break(f"{status} {text}")
        self.arrived.set()

    def note_silence(self) -> None:
        """End the attempt if the server shows no sign of life; a heartbeat, which is no delivery, may have been one."""
        if asyncio.get_running_loop().time() >= self.silent_at:
            self._break("the server has forgotten the request")

    def _break(self, reason: str) -> None:
        self.broken = self.broken or reason
        self.arrived.set()


def _delete(link: Link, prefix: str, stream: str, name: str) -> None:
    """Ask for a reader's consumer to be deleted, without waiting for the answer. Raises `BusUnavailable`."""
    # The server treats only messages with a reply subject as requests; no answer is expected under this one.
    reply = link.replies.inbox + b"gone"
    link.write(
        b"PUB %b$JS.API.CONSUMER.DELETE.%b.%b %b 0\r\n\r\n" % (prefix.encode(), stream.encode(), name.encode(), reply)
    )


async def read(
    cell: NatsCell,
    stream: str,
    subjects: Sequence[str],
    *,
    start: int = 1,
    since: int = 0,
    follow: bool = False,
    current: asyncio.Event | None = None,
    headers_only: bool = False,
) -> AsyncGenerator[Sequence[Delivery], None]:
    """Yield the messages of `stream` on `subjects` in order, from sequence `start` or time `since` (`Transport.read`).

    Without `follow` it ends after the last message that was there when it began. `current` is set once all existing messages
    were yielded, and cleared while the server cannot be reached, or is silent for longer than its heartbeats allow (5 s).
    Raises `ConfigurationError` if there is no such stream or, after an interruption, a different stream of that name;
    `BusUnavailable` without a connection for 30 s.
    """
    for subject in subjects:
        check_pattern(subject)
    connection = cell.connection
    first = await existing_stream(cell.request, stream)
    position = start
    failures = 0
    care = Care()
    while True:
        # With a new link, reading continues at once and stays current.
        if current is not None and not connection.connected:
            current.clear()
        link = await connection.ready(READY_SECONDS)
        reader = _Reader(link, stream, first.created, care, cell.prefix)
        try:
            await reader.open(cell, tuple(subjects), position, since, headers_only=headers_only)
            last = None if follow else first.last
            async with contextlib.aclosing(_batches(connection, reader, last, current)) as batches:
                async for batch in batches:
                    failures = 0
                    position, since = batch[-1].sequence + 1, 0
                    yield batch
            if not reader.broken:
                return
        except BusUnavailable as error:
            reader.broken = error.detail
        finally:
            reader.close()
            if current is not None and reader.broken not in AT_ONCE:
                current.clear()
        if reader.broken == MOVED:
            continue
        if reader.broken != CUT:
            failures += 1
            _logger.warning("reading %s: %s; continuing at %d", stream, reader.broken, position)
            await asyncio.sleep(connection.options.backoff.interval(failures, random.random()))  # noqa: S311  # no secret
        if (await _again(cell, stream)).created != first.created:
            raise ConfigurationError(f"stream {stream} was deleted and created again while it was read")


async def _batches(
    connection: Connection, reader: _Reader, last: int | None, current: asyncio.Event | None, *, once: bool = False
) -> AsyncGenerator[Sequence[Delivery], None]:
    """Yield the deliveries of one attempt until it breaks, reaches stream sequence `last`, or, with `once`, has all."""
    loop = asyncio.get_running_loop()
    while True:
        reader.arrived.clear()
        reader.ask()
        if batch := reader.take_batch(last):
            yield batch
            if last is not None and batch[-1].sequence >= last:
                return
        elif reader.broken or ((once or last is not None) and reader.exhausted):
            return
        elif connection.link is not reader.link:
            reader.broken = MOVED
            return
        else:
            if current is not None and reader.exhausted:
                current.set()
            alarm = loop.call_at(reader.silent_at, reader.arrived.set)
            try:
                await reader.arrived.wait()
            finally:
                alarm.cancel()
            reader.note_silence()


async def values(
    cell: NatsCell, stream: str, pattern: str, *, since: int = 0
) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
    """Yield the messages that `stream` has now on the subjects of `pattern`, in order (`Transport.values`).

    The stream is read once and not checked, so that nothing it yields can be accepted as a message. Raises `BusUnavailable`
    if fewer messages come than were there, `ConfigurationError` if there is no such stream.
    """
    check_pattern(pattern)
    connection, care, position = cell.connection, Care(), 1
    while True:
        reader = _Reader(await connection.ready(READY_SECONDS), stream, created=0, care=care, prefix=cell.prefix)
        try:
            left = await reader.open(cell, (pattern,), position, since, once=True)
            async with contextlib.aclosing(_batches(connection, reader, None, None, once=True)) as batches:
                async for batch in batches:
                    # Messages stored from now on would keep the reader of a busy subject forever.
                    wanted, left = batch[:left], max(0, left - len(batch))
                    position, since = batch[-1].sequence + 1, 0
                    yield [
                        (
                            delivery.subject,
                            StoredValue(delivery.arrival.sequence, delivery.payload, delivery.arrival.stored),
                        )
                        for delivery in wanted
                        if delivery.arrival is not None
                    ]
                    if not left:
                        return
            if not left:
                return
            if reader.broken != CUT:
                # The newest version counts: a part of the messages is no answer.
                raise BusUnavailable(f"{stream}: {reader.broken or 'fewer messages came than were there'}")
        except StreamRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise no_stream(stream) from error
            raise
        finally:
            reader.close()


async def _again(cell: NatsCell, stream: str) -> StreamState:
    connection = cell.connection
    while True:
        await connection.ready(READY_SECONDS)
        try:
            return await existing_stream(cell.request, stream)
        except BusUnavailable as error:
            _logger.warning("reading %s: %s", stream, error.detail)
            await asyncio.sleep(connection.options.backoff.maximum_interval / 5)


async def last(cell: NatsCell, stream: str, subject: str, *, within: float) -> StoredValue | None:
    """Return the last message of `subject` in `stream`, or `None` if there is none.

    Any replica may answer, even one that is a little behind. Raises `BusUnavailable` if no answer comes within `within`
    seconds, `ConfigurationError` for an invalid subject.
    """
    check_subject(subject)
    api = f"{cell.prefix}$JS.API.DIRECT.GET.{stream}.{subject}"
    until = asyncio.get_running_loop().time() + within
    link = await cell.connection.ready(within)
    answer = await ask(link, api, b"", deadline=max(0.0, until - asyncio.get_running_loop().time()))
    block = answer.header_block
    if header_value(block, "Nats-Subject") != subject:
        # Checked after the subject: an agent can have the server store an answer, whose header block has a status too.
        status, text = status_of(block)
        if status == _NOT_FOUND:
            return None
        raise BusUnavailable(
            f"{subject}: {status} {text}" if status else f"{subject}: the answer is about another subject"
        )
    sequence = header_value(block, "Nats-Sequence")
    if not sequence.isdecimal():
        raise BusUnavailable(f"{subject}: the answer has no sequence")
    try:
        stored = parse_time(header_value(block, "Nats-Time-Stamp"))
    except ValueError as error:
        raise BusUnavailable(f"{subject}: the answer does not say when it was stored") from error
    return StoredValue(int(sequence), answer.payload, stored)
