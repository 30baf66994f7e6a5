"""The two clocks of a process: the time of its host, and the time that it has agreed on with the broker.

All work on messages goes by `BusClock`: what is dated, verified, decided, waited for and compared with the times at which the
broker stored something. So work that has begun goes on as promised if the host's clock is set meanwhile. `HostClock` is
what the other is measured against (`sealbus.bus.nats.clock_difference`), and the only clock of a process that has no broker
yet: that of its certificates and tokens. A worker takes nothing where the two differ too much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final


def wall_clock() -> int:
    """Return the host's clock in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


# Partial objects: a clock is read several times for each message, and a method of ours would be one more call.


class HostClock(partial[int]):
    """Returns the host's time in microseconds since the Unix epoch: `HostClock(read)`."""


class BusClock(partial[int]):
    """Returns the time agreed with the broker in microseconds since the Unix epoch: `BusClock(read)`."""


HOST_CLOCK: Final = HostClock(wall_clock)
"""The clock of this host."""

UNMEASURED_CLOCK: Final = BusClock(wall_clock)
"""The host's clock as that of the bus, for a process that does not measure the difference."""

_SLEEPLESS: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
"""A clock that counts on while the machine sleeps: the first on Linux, the second on macOS. Elsewhere Python has neither."""

ELAPSED: Final[Callable[[], float]] = (
    partial(time.clock_gettime, _SLEEPLESS) if _SLEEPLESS is not None else time.monotonic
)
"""Returns seconds that pass at the same rate whatever the host's clock is set to, also while the machine sleeps.

`time.monotonic` stands still then. Afterwards work would be begun that has expired for everybody else.
"""
