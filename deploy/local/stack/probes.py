"""Whether something that was started answers yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

__all__ = ["http_well", "is_there", "listens"]

_SECONDS = 2.0
_MOST_BYTES = 65_536


def listens(port: int) -> Callable[[], Awaitable[bool]]:
    """Return a probe that says yes once something on this machine accepts connections at `port`."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(_SECONDS):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True

    return probe


def is_there(path: Path) -> Callable[[], Awaitable[bool]]:
    """Return a probe that says yes once there is a file."""

    async def probe() -> bool:
        return await asyncio.to_thread(path.exists)

    return probe


def http_well(port: int, path: str = "/readyz") -> Callable[[], Awaitable[bool]]:
    """Return a probe that says yes once `path` is answered with 200 on `port` of this machine."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
                    await writer.drain()
                    answer = await reader.read(_MOST_BYTES)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 "))

    return probe
