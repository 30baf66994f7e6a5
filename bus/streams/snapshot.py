"""Takes and restores snapshots of whole streams, by JetStream's API over our connection.

A snapshot holds a stream's messages with sequences, times and headers, its configuration, and its consumers with their
acknowledgements. It does not hold the time at which the stream was created. The server sends it in chunks, and each chunk is
acknowledged once it is written, so that memory holds no more than the server's window.

A restored stream forgets its message ids until the server is started again (seen with nats-server 2.15.1). Until then a
copy of a message is stored as a new message. `refuses_copies` asks the server, and stores nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from sealbus.bus.nats.api import STREAM_NOT_FOUND, StreamState, api, existing_stream, parse_time, stream_state
from sealbus.bus.nats.connection.connection import Answer, Connection, NoResponder, ask
from sealbus.bus.nats.connection.frames import check_subject, header_value, publish_frame, status_of
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.publisher import BulkPublisher
from sealbus.bus.ports import JsonObject, Outgoing, PubAck, Request, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

CHUNK: Final = 131_072
"""Bytes asked for at a time."""
SENT: Final = 8_192
"""Bytes sent at a time: the server stores message by message, and gives up after five seconds for one chunk."""
READ: Final = 1_048_576
"""Bytes read from a file at a time."""
SILENCE: Final = 30.0
"""Seconds without a chunk, or without an answer to a chunk, after which the transfer fails."""
HEARD: Final = 5.0
"""Seconds within which a server must receive a chunk; a server that waits for a chunk gives up after that."""
UNHEARD: Final = 0.05
"""Seconds until a chunk that no server received is sent again, or a stream is read again."""
RESTORING: Final = 600.0
"""Seconds that a server may take to build a stream after its last chunk."""
LED: Final = 60.0
"""Seconds that the servers of a cluster may take to elect a leader of a restored stream."""
_WAITING: Final = 67_108_864
"""Most bytes that wait to be written. The server's window is smaller."""
_NO_MESSAGE: Final = 10_037
_EXPECTED_LAST_ID: Final = "Nats-Expected-Last-Msg-Id"
_NOT_THE_LAST_ID: Final = 10_070
_ID: Final = re.compile("[0-9a-f]{32}")
_OK: Final = frozenset({0, 100, 200, 204})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The server's description of a stream as it takes a snapshot, which it needs again to restore the stream."""

    config: JsonObject = field(repr=False)
    state: JsonObject = field(repr=False)

    @property
    def messages(self) -> int:
        """How many messages the stream held."""
        return _number(self.state, "messages")

    @property
    def first(self) -> int:
        """The first sequence."""
        return _number(self.state, "first_seq")

    @property
    def last(self) -> int:
        """The last sequence."""
        return _number(self.state, "last_seq")


def _number(state: JsonObject, name: str) -> int:
    value = state.get(name)
    if type(value) is not int or value < 0:
        raise BusUnavailable(f"a snapshot's state without a valid {name}")
    return value


class _Chunks:
    """The chunks of one snapshot that have arrived and are not written yet."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, bytes, bytes]] = deque()
        self.arrived = asyncio.Event()
        self.refused = ""
        self._bytes = 0

    def take(self, _: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        self._bytes += len(payload)
        if self._bytes > _WAITING:
            self.refused = "the server sends more than was acknowledged"
        else:
            self.waiting.append((reply, block, payload))
        self.arrived.set()

    def refuse(self, text: str) -> None:
        self.refused = text
        self.arrived.set()

    async def next(self) -> tuple[bytes, bytes, bytes]:
        while not self.waiting:
            if self.refused:
                raise BusUnavailable(f"a snapshot was cut off: {self.refused}")
            self.arrived.clear()
            try:
                async with asyncio.timeout(SILENCE):
                    await self.arrived.wait()
            except TimeoutError as error:
                raise BusUnavailable(f"a snapshot was cut off: nothing came for {SILENCE:g} s") from error
        reply, block, payload = self.waiting.popleft()
        self._bytes -= len(payload)
        return reply, block, payload


async def take_snapshot(connection: Connection, stream: str, write: Callable[[bytes], object]) -> Snapshot:
    """Pass the snapshot of `stream` to `write`, chunk by chunk in a thread; return the server's description of it.

    Messages that are stored meanwhile may be in it or not. Raises `StreamRefused` for a refusal, and `BusUnavailable` if the
    snapshot is cut off: the bytes written are then no snapshot.
    """
    link = await connection.ready(SILENCE)
    to, chunks = f"{connection.inbox_prefix}snapshot.{secrets.token_hex(12)}", _Chunks()
    ended = partial(chunks.refuse, "the connection is gone")
    sid = link.subscribe(to, chunks.take, refused=chunks.refuse)
    link.watchers.append(ended)
    try:
        body = {"deliver_subject": to, "chunk_size": CHUNK, "jsck": True}
        answer = await api(_asking(connection), f"STREAM.SNAPSHOT.{stream}", body)
        config, state = answer.get("config"), answer.get("state")
        if not isinstance(config, dict) or not isinstance(state, dict):
            raise BusUnavailable(f"stream {stream}: the server's answer is not about a snapshot")
        while True:
            reply, block, payload = await chunks.next()
            status, text = status_of(block)
            if status not in _OK:
                raise BusUnavailable(f"the snapshot of {stream} was cut off: {status} {text}".rstrip())
            if not payload:
                return Snapshot(config=config, state=state)
            await asyncio.to_thread(write, payload)
            if reply:
                link.write(publish_frame(Outgoing(subject=reply.decode("ascii", "backslashreplace"), payload=b"")))
    finally:
        if ended in link.watchers:
            link.watchers.remove(ended)
        link.end(sid)


async def put_snapshot(
    connection: Connection, stream: str, snapshot: Snapshot, read: Callable[[int], bytes]
) -> StreamState:
    """Restore `stream`, which must not exist, from the bytes that `read` returns; return the restored stream.

    In a cluster other replicas may not have it yet. Raises `StreamRefused` if the server does not begin, for instance because
    there is such a stream. Raises `ConfigurationError` with the server's reason if it refuses the bytes, and
    `BusUnavailable`: after either the stream may exist in part. The caller compares and removes.
    """
    link = await connection.ready(SILENCE)
    body = {"config": snapshot.config, "state": snapshot.state}
    answer = await api(_asking(connection), f"STREAM.RESTORE.{stream}", body)
    to = answer.get("deliver_subject")
    if not isinstance(to, str):
        raise BusUnavailable(f"stream {stream}: the server does not say where to send it")
    check_subject(to)
    while block := await asyncio.to_thread(read, READ):
        for start in range(0, len(block), SENT):
            chunk = block[start : start + SENT]
            _accepted(stream, (await _offer(link, to, chunk)).payload)
    _accepted(stream, (await ask(link, to, b"", deadline=RESTORING)).payload)
    return await _led(connection, stream)


async def _led(connection: Connection, stream: str) -> StreamState:
    """Return a restored stream once a leader answers for it. Raises `BusUnavailable` if none does within `LED` seconds."""
    until = asyncio.get_running_loop().time() + LED
    while True:
        try:
            return await existing_stream(connection.jetstream, stream)
        except BusUnavailable:
            if asyncio.get_running_loop().time() > until:
                raise
        await asyncio.sleep(UNHEARD)


async def _offer(link: Link, to: str, chunk: bytes) -> Answer:
    """Send a chunk and return its answer. It is sent again for `HEARD` seconds while no server receives it.

    In a cluster another server may restore the stream. Our server learns a moment later where the chunks are awaited.
    """
    until = asyncio.get_running_loop().time() + HEARD
    while True:
        try:
            return await ask(link, to, chunk, deadline=SILENCE)
        except NoResponder:
            if asyncio.get_running_loop().time() > until:
                raise
            await asyncio.sleep(UNHEARD)


def _accepted(stream: str, payload: bytes) -> None:
    """Raise the error in the answer to a chunk, if there is one; most are empty."""
    if not payload:
        return
    try:
        answer = json.loads(payload)
    except ValueError as error:
        raise BusUnavailable(f"stream {stream}: the answer is not JSON") from error
    refused = answer.get("error") if isinstance(answer, dict) else None
    if refused is not None:
        text = str(refused.get("description", ""))[:200] if isinstance(refused, dict) else ""
        raise ConfigurationError(f"stream {stream}: the server refused the snapshot: {text or 'no reason given'}")


async def delete_stream(request: Request, stream: str) -> None:
    """Remove a stream and all of it, if it exists. Raises `StreamRefused`, `BusUnavailable`."""
    try:
        await api(request, f"STREAM.DELETE.{stream}")
    except StreamRefused as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise


async def list_streams(request: Request) -> list[StreamState]:
    """Return all streams of the account. Raises `BusUnavailable`."""
    names: list[str] = []
    while True:
        answer = await api(request, "STREAM.NAMES", {"offset": len(names)} if names else None)
        listed, total = answer.get("streams") or [], answer.get("total")
        if not isinstance(listed, list) or type(total) is not int:
            raise BusUnavailable("the server's answer is not a list of streams")
        names += [str(name) for name in listed]
        if not listed or len(names) >= total:
            break
    return [state for name in names if (state := await stream_state(request, name)) is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredId:
    """The last message of a stream: subject, id (empty unless it is an id of ours), and time of storing, in microseconds."""

    stream: str
    subject: str
    id: str = field(repr=False)
    stored: int


async def last_id(request: Request, stream: str, subject: str) -> StoredId | None:
    """Return the last message of `subject`, a filter, in a stream; None if there is none. Raises `BusUnavailable`."""
    message = await _stored_message(request, stream, {"last_by_subj": subject})
    if message is None:
        return None
    try:
        block = b64decode(str(message.get("hdrs", "")), validate=True)
        stored = parse_time(str(message.get("time")))
    except ValueError as error:
        raise _no_message(stream) from error
    id_ = header_value(block, "Nats-Msg-Id")
    return StoredId(
        stream=stream, subject=str(message.get("subject")), id=id_ if _ID.fullmatch(id_) else "", stored=stored
    )


class StoredMessage(NamedTuple):
    """The sequence of a message, and the time at which it was stored, in microseconds."""

    sequence: int
    stored: int


async def stored_from(request: Request, stream: str, sequence: int) -> StoredMessage | None:
    """Return the first message at or after `sequence`, whatever its subject; None if there is none.

    Raises `BusUnavailable`.
    """
    message = await _stored_message(request, stream, {"seq": max(sequence, 1), "next_by_subj": ">"})
    if message is None:
        return None
    try:
        stored = parse_time(str(message.get("time")))
    except ValueError as error:
        raise _no_message(stream) from error
    number = message.get("seq")
    if type(number) is not int:
        raise _no_message(stream)
    return StoredMessage(number, stored)


async def _stored_message(request: Request, stream: str, query: JsonObject) -> JsonObject | None:
    try:
        answer = await api(request, f"STREAM.MSG.GET.{stream}", query)
    except StreamRefused as error:
        if error.err_code != _NO_MESSAGE:
            raise
        return None
    message = answer.get("message")
    return message if isinstance(message, dict) else {}


def _no_message(stream: str) -> BusUnavailable:
    return BusUnavailable(f"stream {stream}: the server's answer is not a message")


async def refuses_copies(connection: Connection, stored: StoredId) -> bool:
    """Return whether the server refuses another message with this id; nothing is stored either way.

    The copy is empty, and names a last message id that no message of ours has, so that it cannot be stored. The server looks
    for duplicates first. Raises `BusUnavailable` for an answer other than "duplicate" or "not the last id".
    """
    message = Outgoing(
        subject=stored.subject,
        payload=b"",
        message_id=stored.id,
        headers={_EXPECTED_LAST_ID: "none"},
    )
    [answer] = await BulkPublisher(connection).publish([message], deadline=SILENCE)
    if isinstance(answer, PubAck) and answer.duplicate:
        return True
    if isinstance(answer, StreamRefused) and answer.err_code == _NOT_THE_LAST_ID:
        return False
    if isinstance(answer, Exception):
        raise answer
    raise BusUnavailable(f"stream {stored.stream}: the server stored a message that it had to refuse")


def _asking(connection: Connection) -> Request:
    async def request(subject: str, payload: bytes) -> bytes:
        # The server reads the whole stream before it answers.
        return (await connection.request(subject, payload, deadline=RESTORING)).payload

    return request
