"""The two clocks of a process: the time of its host, and the time that it has agreed on with the broker.

`HostClock` measures: deadlines, waits, how old a message is when it is verified, how long a handler ran. `BusClock` dates
and is compared: the times in a message or stored value that others read, and the times at which the broker stored something.
The two differ by what `sealbus.bus.nats.clock_difference` measured; a worker takes nothing where they differ too much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final


def wall_clock() -> int:
    """Return the host's clock in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


class HostClock:
    """Returns the host's time in microseconds since the Unix epoch, as `read` gives it."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], int] = wall_clock) -> None:
        self._read = read

    def __call__(self) -> int:
        """Return the time."""
        return self._read()


class BusClock:
    """Returns the time agreed with the broker in microseconds since the Unix epoch, as `read` gives it."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read

    def __call__(self) -> int:
        """Return the time."""
        return self._read()


HOST_CLOCK: Final = HostClock()
"""The clock of this host."""
