"""Checkpoints of other logs, kept where their own notary cannot reach them: what makes a rewritten log evident.

::

    <folder>/<first 32 hex digits of H(origin)>/<size, 16 digits>      the note as it came
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from sealbus.agents.control.notary.durable import write_durably
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_checkpoint, verify_extension
from sealbus.envelopes.log.note_keys import NoteVerifier
from sealbus.envelopes.log.tiled_tree import ReadTile, TiledTree

__all__ = ["CheckpointHolder"]

_DIGITS: Final = 16


class CheckpointHolder:
    """Holds the checkpoints of one other log, each of which must extend the one before. Calls block.

    `verifiers` are the keys of that log, known from elsewhere. Raises `StateUnavailable` if the folder cannot be used.
    """

    def __init__(self, folder: Path, *, origin: str, verifiers: Sequence[NoteVerifier]) -> None:
        self._folder = folder / sha256(origin.encode()).hexdigest()[:32]
        self._origin = origin
        self._verifiers = tuple(verifiers)

    def latest(self) -> SignedCheckpoint | None:
        """Return the largest checkpoint that is held, `None` before the first. Raises `LogError` if it is not one."""
        try:
            names = sorted(one.name for one in self._folder.iterdir() if len(one.name) == _DIGITS)
            note = (self._folder / names[-1]).read_bytes() if names else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be read: {error.strerror}") from error
        return self._open(note) if note is not None else None

    def hold(self, note: bytes, path: Sequence[bytes] = ()) -> SignedCheckpoint:
        """Keep `note` and return its checkpoint; `path` proves that it extends the one that is held last.

        The same size again is kept once. Raises `LogError`: what `open_checkpoint` and `verify_extension` say;
        `inconsistent_log` is the proof that somebody rewrote that log: keep both notes.
        """
        found, held = self._open(note), self.latest()
        if held is not None:
            verify_extension(held.checkpoint, found.checkpoint, path)
            if held.checkpoint.size == found.checkpoint.size:
                return held
        try:
            under_way = self._folder / "under-way"
            under_way.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_durably(self._folder, {f"{found.checkpoint.size:0{_DIGITS}d}": note}, under_way)
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be written: {error.strerror}") from error
        return found

    def hold_from(self, note: bytes, read: ReadTile) -> SignedCheckpoint:
        """Keep `note` as `hold` does, the proof being made from that log's own tiles, which `read` gives.

        Tiles that are wrong or missing raise `LogError` (`bad_tile`, `bad_proof`), and the note is not kept.
        """
        found, held = self._open(note), self.latest()
        path: Sequence[bytes] = ()
        if held is not None and 0 < held.checkpoint.size < found.checkpoint.size:
            path = TiledTree(found.checkpoint.size, read).consistency(held.checkpoint.size)
        return self.hold(note, path)

    def _open(self, note: bytes) -> SignedCheckpoint:
        return open_checkpoint(note, origin=self._origin, verifiers=self._verifiers)
