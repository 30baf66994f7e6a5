"""A bare NATS client over mTLS for tests: it sends what it is told, and hears what the server says about it.

Not nats-py, so that a test of permissions sees the server's own words, and nothing is retried or smoothed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, cast

from support.x509 import IssuedSvid, ThrowawayCa

__all__ = ["RawNats"]

_SECONDS = 60.0


class RawNats:
    """One connection with the certificate `svid`, TLS first. `folder` is a folder of the test for its PEM files.

    The server's certificate is checked against `ca` only. Answers come in order: what was sent before a `PING` was
    dealt with when its `PONG` is here, so that a refusal is an event and not a matter of waiting. `says` is what stands in
    its CONNECT on top. The server's own `PING` is answered at once, whatever the test does meanwhile.
    """

    def __init__(
        self,
        port: int,
        ca: ThrowawayCa,
        svid: IssuedSvid,
        folder: Path,
        *,
        inbox: str = "_INBOX.x.",
        says: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._port = port
        self._inbox = inbox
        self._says = says
        self._numbers = 0
        self.errors: list[str] = []
        self.messages: list[tuple[str, bytes]] = []
        self.pinged = asyncio.Event()
        """Set once the server has sent a PING."""
        pem = folder / f"raw-{svid.certificate.serial_number}.pem"
        pem.write_bytes(svid.cert_pem + svid.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.load_verify_locations(cadata=ca.cert_pem.decode())
        self._context.load_cert_chain(pem)
        self._frames: asyncio.Queue[tuple[bytes, bytes] | Exception] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(_SECONDS):
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
            assert (await self._reader.readline()).startswith(b"INFO ")
            options: dict[str, object] = {
                "verbose": False,
                "pedantic": False,
                "headers": True,
                "no_responders": True,
                "protocol": 1,
            }
            options |= self._says
            self._writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
            self._reading = asyncio.create_task(self._read())
            try:
                await self.settle()
            except BaseException:
                self._reading.cancel()
                self._writer.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()
        await asyncio.wait([self._reading])
        if not self._reading.cancelled():
            self._reading.result()

    async def closed(self) -> None:
        """Wait until the server ends the connection."""
        async with asyncio.timeout(_SECONDS):
            while await self._frame():
                pass

    async def settle(self) -> list[str]:
        """Return the errors that the server reports for everything that was sent so far since the last call."""
        self._writer.write(b"PING\r\n")
        async with asyncio.timeout(_SECONDS):
            while (line := await self._frame()) != b"PONG":
                if not line:
                    raise ConnectionError(f"the server closed the connection: {self.errors}")
        found, self.errors = self.errors, []
        return found

    def publish(self, subject: str, payload: bytes = b"", *, reply: str = "", block: bytes = b"") -> None:
        """Send one message; `block` is its raw header block."""
        words = [subject, *([reply] if reply else []), *([str(len(block))] if block else [])]
        start = f"{'HPUB' if block else 'PUB'} {' '.join(words)} {len(block) + len(payload)}\r\n"
        self._writer.write(start.encode() + block + payload + b"\r\n")

    def subscribe(self, subject: str) -> None:
        self._numbers += 1
        self._writer.write(f"SUB {subject} {self._numbers}\r\n".encode())

    async def may_publish(self, subject: str) -> bool:
        """Tell whether the server lets an empty message to `subject` through."""
        self.publish(subject)
        return not _violations(await self.settle())

    async def may_subscribe(self, subject: str) -> bool:
        """Tell whether the server lets us subscribe to `subject`."""
        self.subscribe(subject)
        return not _violations(await self.settle())

    async def request(self, subject: str, payload: bytes = b"", *, block: bytes = b"") -> bytes:
        """Return the first answer; raise `PermissionError` if the server refuses the request."""
        self._numbers += 1
        inbox = f"{self._inbox}{self._numbers}"
        self.subscribe(inbox)
        self.publish(subject, payload, reply=inbox, block=block)
        async with asyncio.timeout(_SECONDS):
            while not any(one == inbox for one, _ in self.messages):
                assert await self._frame(), "the server closed the connection"
                if found := _violations(self.errors):
                    self.errors = []
                    raise PermissionError(found[0])
        return next(payload for one, payload in self.messages if one == inbox)

    async def ask(self, subject: str, content: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the JSON answer of a JetStream API request."""
        payload = json.dumps(content).encode() if content is not None else b""
        return cast("dict[str, object]", json.loads(await self.request(subject, payload)))

    async def _frame(self) -> bytes:
        """Take one line of the protocol in, with its payload if it has one; empty when the connection has ended."""
        frame = await self._frames.get()
        if isinstance(frame, Exception):
            self._frames.put_nowait(frame)
            raise frame
        line, payload = frame
        verb, _, rest = line.partition(b" ")
        if verb == b"-ERR":
            self.errors.append(rest.decode())
        elif verb in (b"MSG", b"HMSG"):
            self.messages.append((rest.split()[0].decode(), payload))
        elif not line:
            self._frames.put_nowait(frame)
        return line

    async def _read(self) -> None:
        """Queue what the server sends, the end of the connection last, and answer its pings."""
        try:
            line = b"begin"
            while line:
                line = (await self._reader.readline()).rstrip(b"\r\n")
                verb, _, rest = line.partition(b" ")
                payload = b""
                if verb in (b"MSG", b"HMSG"):
                    payload = (await self._reader.readexactly(int(rest.split()[-1]) + 2))[:-2]
                if verb == b"PING":
                    self.pinged.set()
                    self._writer.write(b"PONG\r\n")
                else:
                    self._frames.put_nowait((line, payload))
        except (OSError, EOFError) as error:
            self._frames.put_nowait(error)


def _violations(errors: list[str]) -> list[str]:
    return [error for error in errors if "Permissions Violation" in error]
