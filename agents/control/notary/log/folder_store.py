"""A log in a folder: each file is written whole, made durable and renamed, the checkpoint last.

If the process or the machine stops, each file is complete and durable, or missing.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sealbus.agents.files import sync_folder
from sealbus.envelopes.errors import Code, LogError, StateUnavailable

CHECKPOINT: Final = "checkpoint"
"""Path of the checkpoint (C2SP tlog-tiles)."""
COSIGNED: Final = "cosigned"
"""Path of the last checkpoint that a quorum of witnesses has cosigned."""
TRUST: Final = "trust"
"""Folder of the `bundle` records in the log so far, one per file."""

_LOCK: Final = "notary.lock"
_PLACE: Final = "notary.place"
_FENCE: Final = "notary.fence"
_UNDER_WAY: Final = "under-way"
"""Folder of incomplete files; leftovers of a killed process are removed."""
_PLACE_BYTES: Final = 16
_FULL_TILE: Final = re.compile(r"tile/[^.]+", re.ASCII)


class FolderStore:
    """One log's files in a local folder, which other programs may read or serve as it is (C2SP tlog-tiles).

    Calls block, and come from one thread at a time. Failures raise `StateUnavailable`, and may be tried again after `enter`;
    `LogError` (`log_mismatch`) if another notary has taken over. The kernel keeps a second process on the same machine out,
    and releases the lock of a dead process. A missing folder is made. Notaries on several machines must not share a folder:
    give each its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None
        self._place = b""

    @property
    def place(self) -> bytes:
        """16 bytes unique to this folder, made when it was first used; empty before `enter`."""
        return self._place

    def enter(self) -> None:
        """Take the folder's lock; raise `StateUnavailable` if another process holds it, or the folder cannot be used."""
        self.leave()
        try:
            self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.folder / _UNDER_WAY, ignore_errors=True)
            (self.folder / _UNDER_WAY).mkdir()
            if (place := self.get(_PLACE)) is None or len(place) != _PLACE_BYTES:
                place = secrets.token_bytes(_PLACE_BYTES)
                write_durably(self.folder, {_PLACE: place}, self.folder / _UNDER_WAY)
            self._place = place
        except BlockingIOError as error:
            self.leave()
            raise StateUnavailable(f"another notary writes to {self.folder}") from error
        except OSError as error:
            self.leave()
            raise StateUnavailable(f"{self.folder} cannot be used: {error.strerror}") from error

    def leave(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def get(self, path: str) -> bytes | None:
        """Return the file at `path`, `None` if there is none. Raises `StateUnavailable` if it cannot be read."""
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StateUnavailable(f"{self.folder / path} cannot be read: {error.strerror}") from error

    def names(self, folder: str) -> Sequence[str]:
        """Return the paths of the files in `folder`, sorted."""
        try:
            return sorted(f"{folder}/{file.name}" for file in (self.folder / folder).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StateUnavailable(f"{self.folder / folder} cannot be read: {error.strerror}") from error

    def fence(self) -> int:
        """Return the highest claimed number; raise `LogError` (`log_mismatch`) if the file does not hold a number."""
        data = self.get(_FENCE)
        if data is None:
            return 0
        if not data.isdigit() or len(data) > 16:
            raise LogError(Code.LOG_MISMATCH, f"{self.folder / _FENCE} does not hold a number")
        return int(data)

    def claim(self, fence: int) -> None:
        """Store `fence`, and refuse every change under a smaller number from now on."""
        self._check(fence)
        self._store({_FENCE: str(fence).encode()})

    def keep(self, fence: int, files: Mapping[str, bytes]) -> None:
        """Store `files` durably, without a checkpoint."""
        self._check(fence)
        self._store(files)

    def forget(self, fence: int, paths: Iterable[str]) -> None:
        """Remove the files at `paths`, on which no checkpoint depends; missing files are ignored."""
        self._check(fence)
        try:
            for path in paths:
                (self.folder / path).unlink(missing_ok=True)
        except OSError as error:
            raise StateUnavailable(f"{self.folder} cannot be written: {error.strerror}") from error

    def commit(self, fence: int, files: Mapping[str, bytes], note: bytes) -> None:
        """Store all `files` durably, and only then `note` as the checkpoint, atomically.

        If a step fails, the checkpoint is the old or the new one, and its files are there. At the end the partial tiles are
        removed whose full tiles are among `files`.
        """
        self._check(fence)
        self._store(files)
        self._check(fence)
        self._store({CHECKPOINT: note})
        for path in files:
            if _FULL_TILE.fullmatch(path):
                shutil.rmtree(self.folder / f"{path}.p", ignore_errors=True)

    def keep_cosigned(self, fence: int, signed: bytes, cosigned: bytes, *, quorum: bool) -> None:
        """Store a checkpoint with cosignatures: in the place of its own note `signed`, if that is the last checkpoint still.

        With a `quorum` it is first stored as the last one that has one, and replaces what has fewer cosignatures, too.
        """
        self._check(fence)
        if quorum:
            self._store({COSIGNED: cosigned})
        last = self.get(CHECKPOINT) or b""
        if last == signed or (quorum and last.startswith(signed)):
            self._store({CHECKPOINT: cosigned})

    def _check(self, fence: int) -> None:
        if self._lock is None:
            raise StateUnavailable(f"{self.folder} is not entered")
        if self.fence() > fence:
            raise LogError(Code.LOG_MISMATCH, "another notary has taken this log over")

    def _store(self, files: Mapping[str, bytes]) -> None:
        try:
            write_durably(self.folder, files, self.folder / _UNDER_WAY)
        except OSError as error:
            raise StateUnavailable(f"{self.folder} cannot be written: {error.strerror}") from error


def write_durably(folder: Path, files: Mapping[str, bytes], under_way: Path) -> None:
    """Write `files`, by path under `folder`: all are complete and durable before the first has its name.

    `under_way` is a folder of the same file system for incomplete files, which only this call uses. Missing folders are
    made. When this returns, all files are durable. Raises `OSError`.
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
    for parent in changed:
        sync_folder(parent)


def _make(folder: Path, changed: dict[Path, None]) -> None:
    """Make `folder` and its missing parents, and note which folders have changed entries."""
    if folder.is_dir():
        return
    _make(folder.parent, changed)
    folder.mkdir(exist_ok=True)
    changed[folder.parent] = None
