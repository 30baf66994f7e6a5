"""The storage of a log: files by path, and one checkpoint that says how far they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

CHECKPOINT: Final = "checkpoint"
"""Path of the checkpoint (C2SP tlog-tiles)."""
TRUST: Final = "trust"
"""Folder of the `bundle` records in the log so far, one per file."""


class LogStore(Protocol):
    """One log's files. Calls block, and come from one thread at a time.

    Failures raise `StateUnavailable`, which may be tried again after `enter`; `LogError` (`log_mismatch`) if another notary
    has taken over.
    """

    @property
    def place(self) -> bytes:
        """16 bytes unique to this store, made when it was first used."""

    def enter(self) -> None:
        """Make sure that nothing else writes here while this process lives; raise if something may."""

    def leave(self) -> None:
        """Let others write."""

    def get(self, path: str) -> bytes | None:
        """Return the file at `path`, `None` if there is none."""

    def names(self, folder: str) -> Sequence[str]:
        """Return the paths of the files in `folder`, sorted."""

    def fence(self) -> int:
        """Return the highest number ever claimed; 0 before the first."""

    def claim(self, fence: int) -> None:
        """Refuse every commit under a smaller number from now on."""

    def keep(self, fence: int, files: Mapping[str, bytes]) -> None:
        """Store `files` durably, whatever happens to the checkpoint."""

    def forget(self, fence: int, paths: Sequence[str]) -> None:
        """Remove files that no checkpoint depends on; those that are not there are not looked for."""

    def commit(self, fence: int, files: Mapping[str, bytes], note: bytes) -> None:
        """Store all `files` durably, and only then `note` as the checkpoint, atomically.

        Whatever fails on the way, the checkpoint is the old one or the new one, and its files are there.
        """
