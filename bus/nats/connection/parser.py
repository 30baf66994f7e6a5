"""The parser of the server's protocol stream, which replaces nats-py's and passes raw messages on at once.

There are three reasons for it. Messages of raw subscriptions reach their sink without a task, queue or object in between,
which would take half the time of a fast pull. Arguments are split at single spaces, as the server writes them; nats-py
splits at any white space, so that a peer's subject with a form feed reads as a subject and the number of another
subscription. Header blocks are passed on unparsed, so that a message with a malformed block is an ordinary delivery.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

Sink = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes the subject, reply subject, raw header block (empty if none) and payload of one message; must not block."""

LONGEST_LINE = 262_144
"""Most bytes of a control line. An INFO line lists the servers of a cluster."""
_DIGITS = 19
"""Most digits of a number: those of the largest that 64 bits hold with a sign."""


class _Receiver(Protocol):
    """Receives all operations of the server but messages of raw subscriptions."""

    def sink_failed(self, error: Exception) -> None: ...
    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None: ...
    async def _process_err(self, err_msg: str) -> None: ...
    async def _process_ping(self) -> None: ...
    async def _process_pong(self) -> None: ...
    async def _process_info(self, info: dict[str, object]) -> None: ...


class ProtocolParser(Parser):
    """Parses bytes as they come. Raises nats-py's `ProtocolError`, which is final, for bytes that no server writes."""

    def __init__(self, receiver: _Receiver, sinks: dict[int, Sink]) -> None:
        super().__init__(receiver)
        self._receiver = receiver
        self._sinks = sinks

    def reset(self) -> None:
        """Discard an incomplete frame."""
        super().reset()
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Handle every complete frame read so far, and keep the rest."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        place = 0
        size = len(data)
        need = 0
        sinks = self._sinks
        while place < size:
            end = data.find(b"\r\n", place)
            if end < 0:
                if size - place > LONGEST_LINE:
                    raise ProtocolError
                break
            words = data[place:end].split(b" ")
            head_size = 0
            if words[0] == b"HMSG":
                head_size = _number(words[-2] if len(words) > 1 else b"")
            elif words[0] != b"MSG":
                await self._control(words[0].upper(), data[place:end])
                place = end + 2
                continue
            count = len(words) - (4 if not head_size else 5)
            total = _number(words[-1])
            if count not in (0, 1) or head_size > total:
                raise ProtocolError
            start = end + 2
            stop = start + total
            if stop + 2 > size:
                need = stop + 2 - place
                break
            if data[stop : stop + 2] != b"\r\n":
                raise ProtocolError
            place = stop + 2
            head_end = start + head_size
            sid = _number(words[2])
            sink = sinks.get(sid)
            reply = words[3] if count else b""
            if sink is None:
                await self._receiver._process_msg(sid, words[1], reply, data[head_end:stop], data[start:head_end])
                continue
            try:
                sink(words[1], reply, data[start:head_end], data[head_end:stop])
            except Exception as error:  # noqa: BLE001 - one message must not stop the connection from receiving all others
                self._receiver.sink_failed(error)
        if place < size:
            self._parts.append(data[place:])
            self._have = size - place
            self._need = need

    async def _control(self, operation: bytes, line: bytes) -> None:
        receiver = self._receiver
        if operation == b"PING":
            await receiver._process_ping()
        elif operation == b"PONG":
            await receiver._process_pong()
        elif operation == b"-ERR":
            await receiver._process_err(line[5:].decode("utf-8", "replace"))
        elif operation == b"INFO":
            await receiver._process_info(_info(line[5:]))
        elif operation != b"+OK":
            raise ProtocolError


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > _DIGITS:
        raise ProtocolError
    return int(word)


def _info(text: bytes) -> dict[str, object]:
    try:
        info = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError from error
    if not isinstance(info, dict):
        raise ProtocolError
    return info
