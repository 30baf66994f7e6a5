"""Notices that a file was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["LOOK_EVERY", "Mark", "changes", "mark"]

LOOK_EVERY: Final = 0.05
"""Seconds between two looks: a quarter of what a change may take to reach every process."""

Mark: TypeAlias = tuple[int, int, int, int]


def mark(file: Path) -> Mark | None:
    """Return what tells two files at one path apart, None where there is none; takes microseconds."""
    try:
        there = file.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino, there.st_mtime_ns, there.st_size


async def changes(file: Path, since: Mark | None, *, every: float = LOOK_EVERY) -> AsyncGenerator[Mark, None]:
    """Yield the mark of `file` whenever another one stands there than `since`, then than the one yielded last.

    Take `since` before reading the file, so that no change in between is lost. A file that is missing is no change.
    Looks every `every` seconds for as long as it is iterated.
    """
    while True:
        there = mark(file)
        if there is not None and there != since:
            since = there
            yield there
        await asyncio.sleep(every)
