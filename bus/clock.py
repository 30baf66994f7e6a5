"""Where the bus reads time and makes ids; both are passed to whatever needs them, so that tests can pass their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

__all__ = ["Clock", "NewId", "uuid7", "wall_clock"]

Clock = Callable[[], int]
"""Returns microseconds since the Unix epoch."""

NewId = Callable[[int], bytes]
"""Returns a fresh UUIDv7 of 16 bytes for a time in microseconds."""


def wall_clock() -> int:
    """Return the host's clock in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


def uuid7(now: int) -> bytes:
    """Return a UUIDv7 (RFC 9562 section 5.7) whose 48-bit time is `now` in milliseconds and whose rest is random."""
    random = bytearray(os.urandom(10))
    random[0] = 0x70 | (random[0] & 0x0F)
    random[2] = 0x80 | (random[2] & 0x3F)
    return (now // 1_000).to_bytes(6, "big") + bytes(random)
