"""Publishes to streams in bulk: many frames in one write, all PubAcks through one inbox, and one wait for all of them.

nats-py's publish costs a future, an inbox subject and a task switch per message, and its asynchronous form leaks futures when
the server dies. Here a batch has one event to wait for, and a lost link fails its outstanding answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence

from sealbus.bus.nats.connection.connection import (
    NO_RESPONDER_PAUSE,
    NO_RESPONDER_RETRIES,
    Connection,
    NoResponder,
)
from sealbus.bus.nats.connection.frames import publish_parts, status_of
from sealbus.bus.nats.connection.inbox import tokens
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.ports import NotAcknowledged, Outgoing, PubAck, StreamRefused
from sealbus.envelopes.errors import BusUnavailable

IN_FLIGHT = 4_096
"""Messages that may wait for their PubAcks at a time. No other bound matters as much for speed."""

IN_FLIGHT_BYTES = 16_777_216
"""Payload bytes in flight; half of what may wait for the network on a link."""

BATCH = 1_024
"""Messages that are written and awaited together."""

TOO_LARGE = 10_054
"""JetStream's error code for a message that is too large; the server would close the connection instead."""

_Answer = PubAck | BusUnavailable


class _Batch:
    """Messages in flight on one link, and their answers in the order of the messages."""

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self._messages = messages
        self._answers: list[_Answer | None] = [None] * len(messages)
        self._owed = len(messages)
        self._tokens: list[bytes] = []
        self.done = asyncio.Event()

    def write(self, link: Link) -> None:
        """Write all messages that the server accepts; fail messages that are too large."""
        parts: list[bytes] = []
        inbox = link.replies.inbox
        fresh = tokens(len(self._messages))
        for index, message in enumerate(self._messages):
            before, after, size = publish_parts(message, replied=True)
            if size > link.max_payload:
                text = f"{message.subject}: {size} bytes, the server takes at most {link.max_payload}"
                self._settle(index, StreamRefused(text, TOO_LARGE))
                continue
            self._tokens.append(link.replies.expect(self, index, fresh[index]))
            parts += (before, inbox, fresh[index], after, message.payload, b"\r\n")
        if parts:
            link.write(b"".join(parts))

    def end(self, link: Link, error: BusUnavailable) -> Sequence[_Answer]:
        """Take no more answers; messages without one get `error`."""
        if self._owed:
            for token in self._tokens:
                link.replies.forget(token)
        return [error if answer is None else answer for answer in self._answers]

    def subject_of(self, index: int) -> str:
        return self._messages[index].subject

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        self._settle(index, _parsed(self._messages[index].subject, block, payload))

    def failed(self, index: int, error: BusUnavailable) -> None:
        self._settle(index, error)

    def _settle(self, index: int, answer: _Answer) -> None:
        self._answers[index] = answer
        self._owed -= 1
        if not self._owed:
            self.done.set()


class BulkPublisher:
    """Publishes through the current link. A rotation keeps the link of a batch until the batch is answered."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._in_flight = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish all `messages` and return the answer to each, in order (`Transport.publish`).

        An answer is a `PubAck`, `StreamRefused` or `BusUnavailable`. Only messages that no stream took are written again,
        `NO_RESPONDER_RETRIES` times: they were not stored. A message that could not be written within `deadline` seconds,
        for lack of room or connection, also gets `BusUnavailable`. Raises `ConfigurationError` for a subject or header that
        may not be written; messages before it may be published.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        answers = await self._publish_once(messages, until, deadline)
        for _ in range(NO_RESPONDER_RETRIES):
            untaken = [index for index, answer in enumerate(answers) if isinstance(answer, NoResponder)]
            if not untaken or loop.time() + NO_RESPONDER_PAUSE >= until:
                break
            await asyncio.sleep(NO_RESPONDER_PAUSE)
            again = await self._publish_once([messages[index] for index in untaken], until, deadline)
            for index, answer in zip(untaken, again, strict=True):
                answers[index] = answer
        return answers

    async def _publish_once(
        self, messages: Sequence[Outgoing], until: float, deadline: float
    ) -> list[PubAck | Exception]:
        answers: list[PubAck | Exception] = []
        for batch in batches_of(messages):
            answers += await self._publish(batch, until, deadline)
        return answers

    async def _publish(self, messages: Sequence[Outgoing], until: float, deadline: float) -> Sequence[_Answer]:
        loop = asyncio.get_running_loop()
        size = sum(len(message.payload) for message in messages)
        if not await self._admit(len(messages), size, until):
            return [BusUnavailable(f"{IN_FLIGHT} messages wait for acknowledgement already")] * len(messages)
        batch = _Batch(messages)
        error: BusUnavailable = NotAcknowledged(f"not acknowledged within {deadline:g} s")
        try:
            link = await self._connection.ready(max(0.0, until - loop.time()))
        except BusUnavailable as gone:
            return [gone] * len(messages)
        else:
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(until):
                        batch.write(link)
                        await batch.done.wait()
            except BusUnavailable as gone:
                error = gone
            finally:
                answers = batch.end(link, error)
            return answers
        finally:
            self._in_flight -= len(messages)
            self._bytes -= size
            self._room.set()

    async def _admit(self, count: int, size: int, until: float) -> bool:
        """Wait in turn for room; return whether there was room before `until`."""
        if self._turn.locked() or not self._has_room(count, size):
            try:
                async with asyncio.timeout_at(until), self._turn:
                    while not self._has_room(count, size):
                        self._room.clear()
                        await self._room.wait()
            except TimeoutError:
                return False
        self._in_flight += count
        self._bytes += size
        return True

    def _has_room(self, count: int, size: int) -> bool:
        """Return whether a batch fits into the window; any batch fits if none is in flight."""
        within = self._in_flight + count <= IN_FLIGHT and self._bytes + size <= IN_FLIGHT_BYTES
        return within or not self._in_flight


def batches_of(messages: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """Split `messages` into runs of at most `BATCH` and `IN_FLIGHT_BYTES`; a larger message is a run of its own."""
    start = 0
    size = 0
    for place, message in enumerate(messages):
        length = len(message.payload)
        if place > start and (place - start == BATCH or size + length > IN_FLIGHT_BYTES):
            yield messages[start:place]
            start, size = place, 0
        size += length
    if start < len(messages):
        yield messages[start:]


def _parsed(subject: str, block: bytes, payload: bytes) -> _Answer:
    status, text = status_of(block) if block else (0, "")
    if status == 503:
        return NoResponder(f"{subject}: no stream stores this subject, or JetStream is not available")
    if status:
        return BusUnavailable(f"{subject}: {status} {text}")
    try:
        answer = json.loads(payload)
        if "error" in answer:
            refusal = answer["error"]
            code = int(refusal.get("err_code", 0))
            return StreamRefused(f"{subject}: {refusal.get('description', 'refused')} ({code})", code)
        return PubAck(
            stream=str(answer["stream"]), sequence=int(answer["seq"]), duplicate=answer.get("duplicate") is True
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return BusUnavailable(f"{subject}: the acknowledgement is malformed")
