"""`SourceFiles`: notices that a `.py` file of some folders was changed, made or removed, by looking from time to time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sealbus.envelopes.errors import ConfigurationError

__all__ = ["SourceFiles"]

LOOK_EVERY: Final = 0.5
"""Seconds between two looks."""
MOST_FILES: Final = 10_000
"""More than an agent has: whoever watches so many has named the wrong folder."""
_NOT_ENTERED: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

Stamps = Mapping[Path, tuple[int, int]]
"""When each file was changed, in nanoseconds, and its size in bytes."""


class SourceFiles:
    """The `.py` files of `folders` and of the folders in them, except hidden ones, caches and environments.

    Raises `ConfigurationError` if there are more than `most`.
    """

    def __init__(self, folders: Sequence[Path], *, every: float = LOOK_EVERY, most: int = MOST_FILES) -> None:
        self.folders = tuple(dict.fromkeys(folders))
        self._every = every
        self._most = most
        self._seen = self._stamps()

    async def changed(self) -> str:
        """Wait until something has changed and nothing changes any more; return one such file, and how many others."""
        seen, before = self._seen, self._seen
        while True:
            await asyncio.sleep(self._every)
            now = await asyncio.to_thread(self._stamps)
            if now == before and now != seen:
                self._seen = now
                return _told(seen, now)
            before = now

    def _stamps(self) -> Stamps:
        found: dict[Path, tuple[int, int]] = {}
        for folder in self.folders:
            for path in _files(folder):
                try:
                    stat = path.stat()
                except OSError:
                    # Gone since it was listed, as editors do it.
                    continue
                found[path] = (stat.st_mtime_ns, stat.st_size)
                if len(found) > self._most:
                    raise ConfigurationError(
                        f"{folder} and its folders hold over {self._most} .py files, too many to watch: run the agent "
                        "from a folder of its own, or without --reload"
                    )
        return found


def _files(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [one for one in folders if not one.startswith(".") and one not in _NOT_ENTERED]
        yield from (Path(path, one) for one in files if one.endswith(".py"))


def _told(before: Stamps, now: Stamps) -> str:
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    others = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
    return f"{changed[0]}{others}"
