"""Shows how much room the file system of the log has left."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from sealbus.agents.identity.threads import in_thread
from sealbus.bus.telemetry import Counters

_logger: Final = logging.getLogger(__name__)

LOOK_EVERY: Final = 15.0
"""Seconds between two looks, as between two scrapes."""


async def watch_volume(folder: Path, counters: Counters, *, every: float = LOOK_EVERY) -> None:
    """Show in `counters` the size of the file system of `folder` and what is free of it, until cancelled.

    Until `folder` is made, its next parent that exists counts. What cannot be read is not shown.
    """
    size: dict[tuple[str, ...], float] = {}
    free: dict[tuple[str, ...], float] = {}
    counters.gauges("sealbus_notary_volume_bytes", (), lambda: size)
    counters.gauges("sealbus_notary_volume_free_bytes", (), lambda: free)
    while True:
        try:
            # In a thread, because a disk that hangs would stop the process.
            size[()], free[()] = await in_thread(lambda: _room(folder))
        except OSError as error:
            size.clear()
            free.clear()
            _logger.debug("the room for the log in %s cannot be read: %s", folder, error.strerror)
        await asyncio.sleep(every)


def _room(folder: Path) -> tuple[int, int]:
    """Return the bytes of the file system, and of these what a process without privileges may still use."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    state = os.statvfs(there)
    return state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize
