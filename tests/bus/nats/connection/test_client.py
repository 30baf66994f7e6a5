"""The client as it opens: a cancellation that comes with the server's line is not lost, nor the end of the connection."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import pytest
from nats.errors import StaleConnectionError, UnexpectedEOF
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.client import SafeClient, TlsStream
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId

CA = ThrowawayCa("example.org")
INFO = b'INFO {"server_id":"S","max_payload":1048576,"headers":true,"proto":1}\r\n'


class ScriptedStream:
    """Plays a server's greeting; with its PONG, in the same turn of the loop, the opener is cancelled if `cancels`."""

    _context = ssl.create_default_context()

    def __init__(self, *, cancels: bool = False, answer: bytes = b"PONG\r\n") -> None:
        self._cancels = cancels
        self._lines = [INFO, answer]
        self._silence = asyncio.Event()
        self.opener: asyncio.Task[None] | None = None
        self.aborted = False

    async def connect(self, *_: object) -> None: ...

    async def connect_tls(self, *_: object) -> None: ...

    async def readline(self) -> bytes:
        line = self._lines.pop(0)
        if self._cancels and not self._lines and self.opener is not None:
            self.opener.cancel()
        return line

    async def read(self, _: int) -> bytes:
        await self._silence.wait()
        return b""

    def at_eof(self) -> bool:
        return False

    def write(self, _: bytes) -> None: ...

    def writelines(self, _: list[bytes]) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True
        self._silence.set()


def client_on(stream: ScriptedStream) -> SafeClient:
    client = SafeClient(
        ScriptedStream._context,
        ConnectionOptions(name="a", ping=60.0),
        on_lost=lambda _: None,
        on_violation=lambda _: None,
        on_dropped=lambda _: None,
    )
    client._stream = cast("TlsStream", stream)
    return client


async def open_on(stream: ScriptedStream) -> SafeClient:
    client = client_on(stream)
    stream.opener = asyncio.create_task(client.open("tls://127.0.0.1:1"))
    await asyncio.wait({stream.opener})
    return client


async def test_it_opens_and_closes() -> None:
    stream = ScriptedStream()
    client = await open_on(stream)
    assert client.is_connected
    await client.close()
    assert client.is_closed


class Heard(SafeClient):
    """A client whose server is heard in each interval, or in none; it counts intervals and PINGs, which get no PONG."""

    def __init__(self, heard: bool) -> None:
        self.lost: list[Exception] = []
        self.intervals = 0
        super().__init__(
            ScriptedStream._context,
            ConnectionOptions(name="a", ping=0.0),
            on_lost=lambda _: None,
            on_violation=lambda _: None,
            on_dropped=lambda _: None,
        )
        self._stream = cast("TlsStream", ScriptedStream())
        self._each = heard
        self.pinged: list[int] = []

    @property
    def _heard(self) -> bool:
        return self._each

    @_heard.setter
    def _heard(self, value: bool) -> None:
        if not value:
            self.intervals += 1

    async def _send_ping(self, future: object = None) -> None:
        self.pinged.append(self.intervals)

    async def _process_op_err(self, e: Exception) -> None:
        self.lost.append(e)


@pytest.mark.parametrize(("heard", "pinged", "gone"), [(False, [1, 2], 3), (True, [10, 20], 30)])
async def test_a_server_is_asked_whether_it_is_there_seldom_if_it_is_heard(
    heard: bool, pinged: list[int], gone: int
) -> None:
    """One that is heard and never answers is gone in the end, too: no byte of ours reaches it."""
    client = Heard(heard)
    before = client.intervals
    async with asyncio.timeout(60):
        await client._ping_interval()
    assert [number - before for number in client.pinged] == pinged
    assert client.intervals - before == gone
    assert [type(error) for error in client.lost] == [StaleConnectionError]


async def test_a_server_that_ends_the_connection_instead_of_answering_has_let_nobody_in() -> None:
    stream = ScriptedStream(answer=b"")
    client = await open_on(stream)
    assert stream.opener is not None
    assert isinstance(stream.opener.exception(), UnexpectedEOF)
    assert stream.aborted
    assert client.is_closed


@pytest.mark.parametrize("answer", [b"-ERR\r\n", b"-ERR '\xff'\r\n"])
async def test_a_line_that_no_server_writes_is_a_server_that_cannot_be_used(answer: bytes) -> None:
    link = Link(
        url="tls://127.0.0.1:1",
        material=StaticIdentity(CA, "spiffe://example.org/agent/a").x509(),
        expected=frozenset({SpiffeId("spiffe://example.org/nats")}),
        inbox_prefix="_INBOX.a.",
        options=ConnectionOptions(),
        on_lost=lambda _: None,
        on_dropped=lambda _: None,
        on_lame_duck=lambda _: None,
    )
    link._client = client_on(ScriptedStream(answer=answer))
    with pytest.raises(BusUnavailable):
        await link.open()


async def test_a_cancellation_that_comes_with_the_last_line_is_not_lost() -> None:
    """Whoever waits for the cancelled task would wait for ever: seen at the end of a connection that was rotating."""
    stream = ScriptedStream(cancels=True)
    client = await open_on(stream)
    assert stream.opener is not None
    assert stream.opener.cancelled()
    assert stream.aborted
    assert client.is_closed
