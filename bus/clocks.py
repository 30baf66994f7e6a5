"""The two clocks of a process: the time of its host, and the time that it has agreed on with the broker.

`HostClock` measures: deadlines, waits, how old a message is when it is verified, how long a handler ran. `BusClock` dates
and is compared: the times in a message or stored value that others read, and the times at which the broker stored something.
The two differ by what `sealbus.bus.nats.clock_difference` measured; a worker takes nothing where they differ too much.
"""

from __future__ import annotations

import time
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
