"""Targets: bytes of a NATS server, and what it says of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fuzz.loop import run
from fuzz.targets import Target, check_refusal
from nats.errors import ProtocolError

from sealbus.bus.audit.spool_files import HEAD_BYTES, BadFrame, parse_frame, parse_head
from sealbus.bus.nats.acks import AckSubjects
from sealbus.bus.nats.api import parse_time
from sealbus.bus.nats.connection.frames import header_value, status_of
from sealbus.bus.nats.connection.parser import ProtocolParser
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.message.freshness import check_header_block


class _Receiver:
    """What a parser hands on."""

    def __init__(self) -> None:
        self.received: list[tuple[object, ...]] = []

    async def _process_msg(self, *message: object) -> None:
        self.received.append(message)

    async def _process_err(self, text: str) -> None:
        self.received.append((text,))

    async def _process_ping(self) -> None:
        self.received.append(("ping",))

    async def _process_pong(self) -> None:
        self.received.append(("pong",))

    async def _process_info(self, info: dict[str, object]) -> None:
        self.received.append(("info", repr(info)))

    def sink_failed(self, error: Exception) -> None:
        raise error


async def _parsed(*pieces: bytes) -> list[tuple[object, ...]]:
    receiver = _Receiver()
    parser = ProtocolParser(cast("Any", receiver), {})
    try:
        for piece in pieces:
            await parser.parse(piece)
    except ProtocolError:
        pass
    return receiver.received


def protocol(data: bytes) -> None:
    """What a server writes, which means the same in whatever pieces it comes."""
    whole = run(_parsed(data))
    assert run(_parsed(*(data[at : at + 1] for at in range(min(len(data), 4_096))), data[4_096:])) == whole


def headers(data: bytes) -> None:
    """A header block of a message."""
    status_of(data)
    header_value(data, "Nats-Msg-Id")
    try:
        check_header_block(data, bytes(16))
    except EnvelopeError as error:
        check_refusal(error)


def ack_subject(data: bytes) -> None:
    """The subject on which a delivery is acknowledged."""
    AckSubjects("TASKS", "inventory").parse(data)
    AckSubjects("TASKS", "inventory").parse(b"$JS.ACK.TASKS.inventory." + data)


def time(data: bytes) -> None:
    """A time of the server."""
    try:
        parse_time(data.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        check_refusal(error)


def spool(data: bytes) -> None:
    """A frame of a spool."""
    if len(data) < HEAD_BYTES:
        return
    try:
        parse_frame(parse_head(data[:HEAD_BYTES]), data[HEAD_BYTES:], None)
    except BadFrame as error:
        check_refusal(error)


TARGETS: Mapping[str, Target] = {
    "protocol": protocol,
    "headers": headers,
    "ack_subject": ack_subject,
    "time": time,
    "spool": spool,
}
