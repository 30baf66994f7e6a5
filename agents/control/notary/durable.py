"""Files that are there for good, or not at all, whatever ends the process or the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_durably"]


def write_durably(folder: Path, files: Mapping[str, bytes], under_way: Path) -> None:
    """Write `files`, by path under `folder`: all are complete and durable before the first has its name.

    `under_way` is a folder of the same file system for what is not complete; nobody else writes there. Folders that are
    missing are made. When this returns, nothing of it can be lost any more. Raises `OSError`.
    """
    written: list[tuple[Path, Path]] = []
    for number, (path, data) in enumerate(files.items()):
        temporary = under_way / str(number)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        written.append((temporary, folder / path))
    changed: dict[Path, None] = {}
    for temporary, target in written:
        _make(target.parent, changed)
        temporary.replace(target)
        changed[target.parent] = None
    for one in changed:
        _sync(one)


def _make(folder: Path, changed: dict[Path, None]) -> None:
    """Make `folder` and those above it that are missing, and note whose entries have changed."""
    if folder.is_dir():
        return
    _make(folder.parent, changed)
    folder.mkdir(exist_ok=True)
    changed[folder.parent] = None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
