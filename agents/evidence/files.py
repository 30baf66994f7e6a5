"""Access to a log's files: those of an export, in a folder or in memory, and those of the running deployment.

Links are not followed: files elsewhere are not in the export.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.errors import ConfigurationError


class ExportFiles(Protocol):
    """A reader of an export; pickled, it reads the same one in another process."""

    def paths(self) -> Iterator[str]:
        """Yield every file's path, with slashes; anything that is neither file nor folder is named too."""
        ...

    def read(self, path: str, most: int) -> bytes | None:
        """Return a file's first `most` bytes and at most one more, which shows that it is too long; None if missing."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """Open a file for reading; None if it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files under a folder. Raises `ConfigurationError` if there is no such folder."""

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise ConfigurationError(f"{self.folder} is not a folder")

    def paths(self) -> Iterator[str]:
        """Yield every file's path."""
        waiting = [""]
        while waiting:
            below = waiting.pop()
            with os.scandir(self.folder / below) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    else:
                        yield path

    def read(self, path: str, most: int) -> bytes | None:
        """Return a file's first `most` bytes and at most one more."""
        opened = self.open(path)
        if opened is None:
            return None
        with opened as file:
            return file.read(most + 1)

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """Open a file."""
        found = self.folder / path
        # Otherwise a pipe in the folder could block for ever, or a link lead somewhere else.
        if found.is_symlink() or not found.is_file():
            return None
        try:
            return found.open("rb")
        except OSError as error:
            raise ConfigurationError(f"{found} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class MemoryFiles:
    """Files in memory, by path."""

    files: Mapping[str, bytes] = field(repr=False)

    def paths(self) -> Iterator[str]:
        """Yield every file's path."""
        return iter(self.files)

    def read(self, path: str, most: int) -> bytes | None:
        """Return a file's first `most` bytes and at most one more."""
        data = self.files.get(path)
        return None if data is None else data[: most + 1]

    def open(self, path: str) -> AbstractContextManager[BinaryIO] | None:
        """Open a file."""
        data = self.files.get(path)
        return None if data is None else nullcontext(io.BytesIO(data))


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The folder of a log, its stream, and the previous log's checkpoint if it begins with one."""

    folder: Path
    stream: str = AUDIT
    previous: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, settings: Settings, folder: Path | None) -> LogPlace:
        """Return the places in `control.notary`, with `folder` instead of the configured one if given.

        Raises `ConfigurationError` if neither names a folder, or the previous checkpoint cannot be read.
        """
        table = settings.control.notary
        chosen = folder or table.folder
        if chosen is None:
            raise ConfigurationError("control.notary.folder is not set: name the folder of the log with --log DIR")
        if table.previous is None:
            return cls(chosen, table.stream)
        try:
            return cls(chosen, table.stream, table.previous.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"{table.previous} cannot be read: {error.strerror}") from error
