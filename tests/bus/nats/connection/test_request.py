"""One question to the broker: its answer, its deadline, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sealbus.bus.nats.connection.connection import Answer, ask
from sealbus.bus.nats.connection.inbox import Replies
from sealbus.bus.nats.connection.link import Link
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

API = "$JS.API.STREAM.INFO.TASKS"


class FakeLink:
    """Answers each frame as it is written, under the reply subject of the frame."""

    def __init__(self, block: bytes = b"", payload: bytes | None = b"{}") -> None:
        self.replies = Replies("_INBOX.a.")
        self.written: list[bytes] = []
        self._answer = (block, payload)
        self.alive = True

    def write(self, frames: bytes) -> None:
        if not self.alive:
            raise BusUnavailable("the connection is gone")
        self.written.append(frames)
        block, payload = self._answer
        if payload is not None:
            reply = frames.split(b"\r\n")[0].split(b" ")[2]
            asyncio.get_running_loop().call_soon(self.replies.take_answer, reply, b"", block, payload)

    def as_link(self) -> Link:
        return cast("Link", self)


async def test_the_answer_comes_under_a_subject_of_its_own() -> None:
    link = FakeLink(b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n", b'{"a":1}')
    first = await ask(link.as_link(), API, b"{}", deadline=5)
    await ask(link.as_link(), API, b"question", deadline=5)
    assert first == Answer(header_block=b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n", payload=b'{"a":1}')
    heads = [frame.split(b"\r\n") for frame in link.written]
    assert [(head[0].split(b" ")[:2], head[0].split(b" ")[3], head[1]) for head in heads] == [
        ([b"PUB", API.encode()], b"2", b"{}"),
        ([b"PUB", API.encode()], b"8", b"question"),
    ]
    assert len({head[0].split(b" ")[2] for head in heads}) == 2
    assert link.replies.pending == 0


async def test_silence_ends_at_the_deadline() -> None:
    link = FakeLink(payload=None)
    with pytest.raises(BusUnavailable, match="no answer within 0 s"):
        await ask(link.as_link(), API, b"", deadline=0)
    assert link.replies.pending == 0


async def test_a_lost_link_ends_the_wait() -> None:
    link = FakeLink(payload=None)
    asking = asyncio.create_task(ask(link.as_link(), API, b"", deadline=60))
    await asyncio.sleep(0)
    assert link.replies.pending == 1
    link.replies.fail_all(BusUnavailable("the link is gone"))
    with pytest.raises(BusUnavailable, match="the link is gone"):
        await asking
    assert link.replies.pending == 0


async def test_a_refused_subject_ends_the_wait() -> None:
    link = FakeLink(payload=None)
    asking = asyncio.create_task(ask(link.as_link(), API, b"", deadline=60))
    await asyncio.sleep(0)
    link.replies.refuse("$JS.API.STREAM.INFO.EVENTS", BusUnavailable("another one"))
    link.replies.refuse(API, BusUnavailable("no permission"))
    with pytest.raises(BusUnavailable, match="no permission"):
        await asking


async def test_cancelling_leaves_nothing_waiting() -> None:
    link = FakeLink(payload=None)
    asking = asyncio.create_task(ask(link.as_link(), API, b"", deadline=60))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert link.replies.pending == 0


async def test_what_cannot_be_written_is_not_waited_for() -> None:
    link = FakeLink()
    link.alive = False
    with pytest.raises(BusUnavailable, match="gone"):
        await ask(link.as_link(), API, b"", deadline=60)
    assert link.replies.pending == 0


async def test_a_subject_cannot_end_the_line() -> None:
    link = FakeLink()
    with pytest.raises(ConfigurationError):
        await ask(link.as_link(), "a 1\r\nPUB b", b"", deadline=5)
    assert link.written == []


async def test_nobody_there_is_said_in_words() -> None:
    link = FakeLink(b"NATS/1.0 503\r\n\r\n", b"")
    with pytest.raises(BusUnavailable, match="no responder"):
        await ask(link.as_link(), API, b"", deadline=5)


def test_the_payload_stays_out_of_a_repr() -> None:
    assert "secret" not in repr(Answer(header_block=b"", payload=b"secret"))
