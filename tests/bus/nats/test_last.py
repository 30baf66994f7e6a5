"""The last message of one subject: found, absent, or an answer that is not about this subject."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sealbus.bus.nats.api import parse_time
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.inbox import Replies
from sealbus.bus.nats.reach import NatsCell
from sealbus.bus.nats.reader import last
from sealbus.bus.ports import StoredValue
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

SUBJECT = "state.edge.request.1"
STORED = "2026-11-27T02:38:01.096254561Z"


class FakeConnection:
    """A connection that is its own link, and answers every question alike."""

    def __init__(self, block: bytes, payload: bytes = b"") -> None:
        self.replies = Replies("_INBOX.a.")
        self.asked: list[bytes] = []
        self._answer = (block, payload)

    async def ready(self, seconds: float) -> FakeConnection:
        assert 0 <= seconds <= 5
        return self

    def write(self, frames: bytes) -> None:
        _, subject, reply, size = frames.split(b"\r\n")[0].split(b" ")
        assert size == b"0"
        self.asked.append(subject)
        asyncio.get_running_loop().call_soon(self.replies.take_answer, reply, b"", *self._answer)


def found(subject: str = SUBJECT, sequence: str = "7", time: str = STORED, start: str = "NATS/1.0\r\n") -> bytes:
    lines = f"Nats-Stream: STATE\r\nNats-Subject: {subject}\r\nNats-Sequence: {sequence}\r\nNats-Time-Stamp: {time}\r\n"
    return f"{start}{lines}\r\n".encode()


async def of(block: bytes, payload: bytes = b"", subject: str = SUBJECT) -> StoredValue | None:
    connection = FakeConnection(block, payload)
    answer = await last(NatsCell(cast("Connection", connection)), "STATE", subject, within=5)
    assert connection.asked == [f"$JS.API.DIRECT.GET.STATE.{SUBJECT}".encode()]
    return answer


async def test_sequence_payload_and_time() -> None:
    value = await of(found(), b"value")
    assert value == StoredValue(7, b"value", parse_time(STORED))
    assert "value" not in repr(value).removeprefix("StoredValue")


@pytest.mark.parametrize(
    "planted",
    [
        found("state.edge.request.2", "99", "2000-01-01T00:00:00Z").decode().removesuffix("\r\n"),
        "NATS/1.0 404 Message Not Found\r\n",
        "NATS/1.0 503\r\n",
    ],
)
async def test_what_the_server_adds_counts_and_not_what_is_stored_like_an_answer(planted: str) -> None:
    """Any agent can have the server store an answer of its own under anybody's subject (SECURITY.md)."""
    assert await of(found(start=planted), b"x") == StoredValue(7, b"x", parse_time(STORED))


async def test_none_where_there_is_no_message() -> None:
    assert await of(b"NATS/1.0 404 Message Not Found\r\n\r\n") is None


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0 408 Bad Request\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        found(subject="state.edge.request.2"),
        found(subject=SUBJECT + "x"),
        found(sequence=""),
        found(sequence="-1"),
        found(sequence="1e3"),
        found(time=""),
        found(time="now"),
    ],
)
async def test_any_other_answer_is_none_at_all(block: bytes) -> None:
    with pytest.raises(BusUnavailable):
        await of(block, b"value")


@pytest.mark.parametrize("subject", ["state.*", "state.>", "", "state..x", "state.x 1\r\nPUB y"])
async def test_only_one_subject_can_be_asked_for(subject: str) -> None:
    connection = FakeConnection(found())
    with pytest.raises(ConfigurationError):
        await last(NatsCell(cast("Connection", connection)), "STATE", subject, within=5)
    assert connection.asked == []
