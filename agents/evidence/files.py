"""Access to a log's files: those of an export, in a folder or in memory, and those of the running deployment.

Links are not followed: files elsewhere are not in the export.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from sealbus.agents.control.notary.keys import previous_checkpoint
from sealbus.agents.files import file_errors
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.format import Frame, messages_path, read_frames


class ExportFiles(Protocol):
    """A reader of an export; pickled, it reads the same export in another process."""

    def paths(self) -> Iterator[str]:
        """Yield every file's path, with slashes, and that of all else that is no folder."""
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
        target = self.folder / path
        # A pipe in the folder could block forever, and a link could lead out of the export.
        if target.is_symlink() or not target.is_file():
            return None
        with file_errors(f"{target} cannot be read"):
            return target.open("rb")


def frames_of(files: ExportFiles, index: int) -> Iterator[Frame]:
    """Yield the messages of tile `index`, none if their file is missing. Raises `LogError` for a file that is cut."""
    opened = files.open(messages_path(index))
    if opened is not None:
        with opened as file:
            yield from read_frames(file.read)


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The folder of a log, its stream, and the previous log's checkpoint if the log begins with it."""

    folder: Path
    stream: str = AUDIT
    previous: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, settings: Settings, folder: Path | None) -> LogPlace:
        """Return the place in `control.notary`, with `folder` in place of the configured folder if it is given.

        Raises `ConfigurationError` if neither names a folder, or the previous checkpoint cannot be read.
        """
        table = settings.control.notary
        chosen = folder or table.folder
        if chosen is None:
            raise ConfigurationError("control.notary.folder is not set: name the folder of the log with --log DIR")
        if table.previous is None:
            return cls(chosen, table.stream)
        return cls(chosen, table.stream, previous_checkpoint(table.previous))
