"""The byte stream of a connection is TLS from its first byte, or it is none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlparse

import pytest
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.client import READ_BYTES, TlsStream
from sealbus.bus.nats.connection.tls import client_context, server_context
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

CA = ThrowawayCa("example.org")
SERVER = "spiffe://example.org/nats/server"
CONTEXT = client_context(
    StaticIdentity(CA, "spiffe://example.org/agent/a").x509(), expected=frozenset({SpiffeId(SERVER)})
)


class Server:
    """Says hello to whoever comes, in the clear or over TLS as `server_id`, and keeps what it read before that."""

    def __init__(self, server_id: str | None) -> None:
        self.first = asyncio.Queue[bytes]()
        self.then = b""
        self.port = 0
        self._context: ssl.SSLContext | None = None
        if server_id is not None:
            self._context = server_context(
                StaticIdentity(CA, server_id).x509(), trust_domain=TrustDomain("example.org")
            )

    async def serve(self) -> asyncio.Server:
        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"INFO {}\r\n" + self.then)
            self.first.put_nowait(await reader.read(5))
            writer.close()

        server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        return server


@pytest.fixture
async def good() -> AsyncIterator[Server]:
    made = Server(SERVER)
    async with await made.serve():
        yield made


async def connect(server: Server, seconds: float = 5.0) -> TlsStream:
    stream = TlsStream(CONTEXT, seconds)
    await stream.connect(urlparse(f"tls://127.0.0.1:{server.port}"), READ_BYTES, seconds)
    return stream


async def test_a_server_that_proves_itself_is_read_and_written(good: Server) -> None:
    stream = await connect(good)
    assert await stream.readline() == b"INFO {}\r\n"
    await stream.connect_tls("", CONTEXT, READ_BYTES, 1.0)
    stream.write(b"PING!")
    await stream.drain()
    assert await good.first.get() == b"PING!"
    assert stream.buffered() == 0
    stream.close()
    await stream.wait_closed()


async def test_a_ping_before_the_answer_to_ours_is_answered_and_passed_over(good: Server) -> None:
    good.then = b"PING\r\nPONG\r\n"
    stream = await connect(good)
    assert await stream.readline() == b"INFO {}\r\n"
    assert await stream.readline() == b"PONG\r\n"
    assert await good.first.get() == b"PONG\r"
    stream.close()
    await stream.wait_closed()


async def test_what_is_written_in_one_turn_is_sent_as_one_piece(good: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await connect(good)
    writes = list[bytes]()
    assert stream._io_writer is not None
    send = stream._io_writer.write

    def write(data: bytes) -> None:
        writes.append(data)
        send(data)

    monkeypatch.setattr(stream._io_writer, "write", write)
    stream.write(b"PI")
    stream.writelines([b"N", b"G"])
    assert (writes, stream.buffered()) == ([], 4)
    await asyncio.sleep(0)
    assert writes == [b"PING"]
    stream.write(b"!")
    stream.close()
    assert await good.first.get() == b"PING!"
    await stream.wait_closed()
    assert writes == [b"PING", b"!"]


async def test_what_was_not_sent_when_a_connection_is_cut_is_dropped(good: Server) -> None:
    stream = await connect(good)
    stream.write(b"PING!")
    stream.abort()
    assert stream.buffered() == 0
    assert await good.first.get() == b""
    await stream.wait_closed()


async def test_nothing_is_read_from_a_server_in_the_clear() -> None:
    plain = Server(None)
    async with await plain.serve():
        with pytest.raises(ssl.SSLError):
            await connect(plain)
        # What it saw of us is the start of a handshake: a record of type 22.
        assert (await plain.first.get())[:1] == b"\x16"


async def test_a_server_of_another_name_is_left_in_the_handshake() -> None:
    other = Server("spiffe://example.org/agent/b")
    async with await other.serve():
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(other)


async def test_a_server_that_never_answers_is_left_in_time() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        stream = TlsStream(CONTEXT, 0.05)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((TimeoutError, OSError)):
            await stream.connect(urlparse(f"tls://127.0.0.1:{port}"), READ_BYTES, 5.0)
        await asked.wait()


async def test_what_is_not_encrypted_is_refused_whoever_says_that_it_is() -> None:
    stream = TlsStream(CONTEXT, 1.0)
    with pytest.raises(ConnectionError, match="not encrypted"):
        await stream.connect_tls("", CONTEXT, READ_BYTES, 1.0)
    plain = Server(None)
    async with await plain.serve():
        reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
        stream._io_reader, stream._io_writer = reader, writer
        with pytest.raises(ConnectionError, match="not encrypted"):
            await stream.connect_tls("", CONTEXT, READ_BYTES, 1.0)
        stream.abort()
        await stream.wait_closed()


async def test_a_stream_that_was_never_opened_has_nothing_to_cut() -> None:
    stream = TlsStream(CONTEXT, 1.0)
    assert stream.buffered() == 0
    stream.abort()


async def test_who_waits_for_the_end_is_not_ended_with_another_who_did(good: Server) -> None:
    stream = await connect(good)
    first, second = (asyncio.create_task(stream.wait_closed()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first, second})
    assert first.cancelled()
    assert not second.cancelled()
    assert second.exception() is None
