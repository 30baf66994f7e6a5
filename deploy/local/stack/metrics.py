"""One counter of a process, from its `/metrics`."""

from __future__ import annotations

import asyncio
from typing import Final

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["counter", "counter_in"]

_SECONDS: Final = 5.0
_MOST_BYTES: Final = 1_048_576


async def counter(port: int, name: str) -> int:
    """Return the value of the counter `name`, summed over its labels, of the process with its health at `port`."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                await writer.drain()
                answer = await reader.read(_MOST_BYTES)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ConfigurationError(f"no metrics at port {port}: {type(error).__name__}") from error
    return counter_in(answer.partition(b"\r\n\r\n")[2].decode(), name)


def counter_in(text: str, name: str) -> int:
    """Return the value of `name` in a page of metrics, summed over its labels; 0 if it is not there."""
    total = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head == name or head.startswith(f"{name}{{"):
            total += float(value)
    return int(total)
