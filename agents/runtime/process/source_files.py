"""`SourceFiles`: notices by polling that a `.py` file of some folders was changed, made or removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from sealbus.envelopes.errors import ConfigurationError

LOOK_EVERY: Final = 0.5
"""Seconds between two polls."""
MOST_FILES: Final = 10_000
"""More than any agent has: with so many files, the folder is the wrong one."""
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
        """Wait until files have changed and then stay unchanged; return the first of them and the number of others."""
        seen, last = self._seen, self._seen
        while True:
            await asyncio.sleep(self._every)
            now = await asyncio.to_thread(self._stamps)
            if now == last and now != seen:
                self._seen = now
                return _describe_changes(seen, now)
            last = now

    def _stamps(self) -> Stamps:
        stamps: dict[Path, tuple[int, int]] = {}
        for folder in self.folders:
            for path in _files(folder):
                try:
                    stat = path.stat()
                except OSError:
                    # It was removed after it was listed, as editors do.
                    continue
                stamps[path] = (stat.st_mtime_ns, stat.st_size)
                if len(stamps) > self._most:
                    raise ConfigurationError(
                        f"{folder} and its folders hold over {self._most} .py files, too many to watch: run the agent "
                        "from a folder of its own, or without --reload"
                    )
        return stamps


def _files(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_ENTERED]
        yield from (Path(path, name) for name in files if name.endswith(".py"))


def _describe_changes(before: Stamps, now: Stamps) -> str:
    changed = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
    others = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
    return f"{changed[0]}{others}"
