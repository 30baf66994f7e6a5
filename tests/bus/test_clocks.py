"""The clocks of a process."""

from __future__ import annotations

import time
from functools import partial

from sealbus.agents.runtime.node import Host
from sealbus.bus.clocks import ELAPSED


def test_the_time_that_was_agreed_on_goes_on_while_the_machine_sleeps() -> None:
    # A machine that has never slept shows no difference between the two.
    assert isinstance(ELAPSED, partial)
    assert ELAPSED.args == (time.CLOCK_BOOTTIME,)
    assert Host().elapsed is ELAPSED
    assert 0 < ELAPSED() <= ELAPSED()
