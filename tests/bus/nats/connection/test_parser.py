"""The protocol parser: the same messages however the bytes are cut, and an error for what no server writes."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from sealbus.bus.nats.connection.parser import LONGEST_LINE, ProtocolParser

Message = tuple[int, bytes, bytes, bytes, bytes]


class Server:
    """Takes what the parser finds; subscriptions 1 to 9 are raw."""

    def __init__(self) -> None:
        self.raw: list[Message] = []
        self.plain: list[Message] = []
        self.other: list[object] = []
        self.failed: list[Exception] = []
        self.parser = ProtocolParser(self, {sid: self.sink(sid) for sid in range(1, 10)})

    def sink(self, sid: int):  # type: ignore[no-untyped-def]
        def take(subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
            self.raw.append((sid, subject, reply, block, payload))
            if payload == b"fail":
                raise ValueError

        return take

    def sink_failed(self, error: Exception) -> None:
        self.failed.append(error)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.plain.append((sid, subject, reply, headers, data))

    async def _process_err(self, err_msg: str) -> None:
        self.other.append(err_msg)

    async def _process_ping(self) -> None:
        self.other.append("ping")

    async def _process_pong(self) -> None:
        self.other.append("pong")

    async def _process_info(self, info: dict[str, object]) -> None:
        self.other.append(info)


STREAM = (
    b'INFO {"server_id":"x"}\r\nPING\r\nMSG a.b 1 2\r\nhi\r\nMSG a.b 2 r.1 0\r\n\r\n+OK\r\n'
    b"HMSG a.b 3 12 14\r\nNATS/1.0\r\n\r\nhi\r\nHMSG a.b 3 r.1 1 1\r\n\xff\r\npong\r\n"
    b"MSG call.x\x0c7 4 3\r\n\r\n\r\r\n-ERR 'Some Thing'\r\nMSG a.b 77 r 3\r\nxyz\r\nHMSG a 77 2 4\r\nhhxy\r\n"
)
RAW = [
    (1, b"a.b", b"", b"", b"hi"),
    (2, b"a.b", b"r.1", b"", b""),
    (3, b"a.b", b"", b"NATS/1.0\r\n\r\n", b"hi"),
    (3, b"a.b", b"r.1", b"\xff", b""),
    (4, b"call.x\x0c7", b"", b"", b"\r\n\r"),
]
PLAIN = [(77, b"a.b", b"r", b"", b"xyz"), (77, b"a", b"", b"hh", b"xy")]
OTHER = [{"server_id": "x"}, "ping", "pong", "'Some Thing'"]


async def fed(parts: list[bytes]) -> Server:
    server = Server()
    for part in parts:
        await server.parser.parse(part)
    return server


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
async def test_however_the_bytes_are_cut(size: int) -> None:
    server = await fed([STREAM[at : at + size] for at in range(0, len(STREAM), size)])
    assert (server.raw, server.plain, server.other) == (RAW, PLAIN, OTHER)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
async def test_however_the_bytes_are_cut_at_random(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    server = await fed([STREAM[a:b] for a, b in pairwise(places)])
    assert (server.raw, server.plain, server.other) == (RAW, PLAIN, OTHER)


async def test_large_payloads() -> None:
    payload = bytes(range(256)) * 4096
    frame = b"MSG a 1 %d\r\n%b\r\n" % (len(payload), payload)
    server = await fed([(frame * 2)[at : at + 65_536] for at in range(0, 2 * len(frame), 65_536)])
    assert [message[4] for message in server.raw] == [payload, payload]


@pytest.mark.parametrize(
    "junk",
    [
        b"HELLO\r\n",
        b"\r\n",
        b"MSG a 1\r\n",
        b"MSG a x 1\r\ny\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 1_0\r\n",
        b"MSG a b c d 1\r\nx\r\n",
        b"MSG a 1 1\r\nxyz",
        b"HMSG a 1 5 4\r\nxxxx\r\n",
        b"HMSG a 1 5\r\nxxxxx\r\n",
        b"HMSG\r\n",
        b"HMSG \r\n",
        b"MSG a 1 " + b"1" * 5_000 + b"\r\n",
        b"MSG a " + b"1" * 20 + b" 1\r\nx\r\n",
        b"INFO x\r\n",
        b"INFO " + b"[" * 100_000 + b"\r\n",
        b"INFO []\r\n",
        b"x" * (LONGEST_LINE + 1),
    ],
)
async def test_what_no_server_writes(junk: bytes) -> None:
    server = Server()
    with pytest.raises(ProtocolError):
        await server.parser.parse(b"PING\r\n" + junk)
    assert server.other == ["ping"]


@given(st.binary(max_size=200))
async def test_arbitrary_bytes(junk: bytes) -> None:
    server = Server()
    with contextlib.suppress(ProtocolError):
        await server.parser.parse(junk)


async def test_a_failing_sink_costs_its_message_only() -> None:
    server = await fed([b"MSG a 1 4\r\nfail\r\nMSG a 1 2\r\nok\r\n"])
    assert [message[4] for message in server.raw] == [b"fail", b"ok"]
    assert [type(error) for error in server.failed] == [ValueError]


async def test_reset_forgets_a_half_frame() -> None:
    server = await fed([b"MSG a 1 10\r\nhalf"])
    server.parser.reset()
    await server.parser.parse(b"PING\r\n")
    assert server.other == ["ping"]
