"""How the garbage collector is set in a process that serves messages for a long time."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["settle_collector"]

YOUNG: Final = 20_000
"""New containers until the young ones are looked at: a batch of messages makes a few thousand, all short-lived."""


def settle_collector() -> None:
    """Set what start-up made aside, and look at the young less often than Python does unasked (every 700).

    Modules, compiled policies and models live as long as the process; looking at them again and again took a tenth of the
    gate's time. Call once, in a process of ours, when it is ready; never in a library's user's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
