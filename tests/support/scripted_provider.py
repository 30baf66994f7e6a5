"""An identity provider on loopback that answers forms as a test says, and shows what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict, deque
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

__all__ = ["ENDLESS", "SECRETS", "ScriptedProvider", "given"]

ENDLESS = b"endless"
"""A body that is sent again and again, until the other side hangs up."""

SECRETS = {name: f"{name}-that-nobody-may-see" for name in ("access", "refresh", "device", "code", "renewed")}


def given(**changed: Any) -> dict[str, Any]:
    """Return a good answer of a token endpoint; what is `None` is left out."""
    good = {
        "access_token": SECRETS["access"],
        "refresh_token": SECRETS["refresh"],
        "token_type": "Bearer",
        "expires_in": 600,
        **changed,
    }
    return {name: value for name, value in good.items() if value is not None}


class ScriptedProvider:
    """A provider, started by `async with`. `metadata` has more members of its metadata, `None` to leave one out."""

    def __init__(self, **metadata: Any) -> None:
        self.more = metadata
        self._answers: dict[str, deque[tuple[int, object, asyncio.Event | None]]] = defaultdict(deque)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.issuer = ""
        self.forms: list[tuple[str, dict[str, str]]] = []
        """Path and fields of each form, in order."""
        self.asked = asyncio.Event()
        """Set by each form; clear it to wait for the next."""

    def says(self, path: str, answer: object, status: int = 200, *, after: asyncio.Event | None = None) -> None:
        """Answer the next form at `path` with JSON or bytes, once `after` is set."""
        self._answers[path].append((status, answer, after))

    def fields(self, path: str) -> list[dict[str, str]]:
        """Return the forms that came to `path`."""
        return [fields for place, fields in self.forms if place == path]

    @property
    def metadata(self) -> dict[str, Any]:
        """What it says of itself."""
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "device_authorization_endpoint": f"{self.issuer}/device",
            "revocation_endpoint": f"{self.issuer}/revoke",
            **self.more,
        }
        return {name: value for name, value in said.items() if value is not None}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.issuer = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    def _answer(self, path: str) -> tuple[int, object, asyncio.Event | None]:
        return self._answers[path].popleft() if self._answers[path] else (500, b"", None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        path = head.split()[1]
        status, answer, after = self._answer(path)
        if head.startswith("get"):
            status = 200 if path == "/.well-known/openid-configuration" else 404
            answer = self.metadata
        else:
            length = int(head.partition("content-length:")[2].split()[0])
            body = await reader.readexactly(length)
            self.forms.append((path, dict(parse_qsl(body.decode(), strict_parsing=True))))
            self.asked.set()
        if after is not None:
            await after.wait()
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        start = f"HTTP/1.1 {status} X\r\nConnection: close\r\nLocation: {self.issuer}/elsewhere\r\n"
        if body == ENDLESS:
            writer.write(f"{start}\r\n".encode())
            while True:
                writer.write(b" " * 65_536)
                await writer.drain()
        writer.write(f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
