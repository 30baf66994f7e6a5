"""The last cosigned checkpoint of each log, in a folder that one process has at a time.

::

    <folder>/witness.lock
    <folder>/<SHA-256 of the origin, hex>                     the checkpoint's note, with signatures of log and witness
    <folder>/<SHA-256 of the origin, hex>.cosigned, .refused  two notes of one size with two roots, the first that came

A file is on the disk before its cosignature is given out, so that a witness that is killed does not forget what it signed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.control.witness.submission import (
    Submission,
    SubmissionRefused,
    WitnessedLog,
    check_extension,
)
from sealbus.agents.files import PUBLIC, file_errors, replace_file, sync_folder
from sealbus.envelopes.errors import Code, ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.log.checkpoint import Checkpoint, parse_foreign_checkpoint
from sealbus.envelopes.log.cosignature import CosignatureSigner, verify_cosignatures
from sealbus.envelopes.log.note import parse_note

_LOCK: Final = "witness.lock"


class CosignedLog:
    """One log and its last cosigned checkpoint. `add` blocks; call it while `lock` is held."""

    def __init__(self, log: WitnessedLog, folder: Path, signers: Sequence[CosignatureSigner]) -> None:
        """Read the log's file. Raises `ConfigurationError` if there is one that is damaged, or that cannot be read."""
        self.log = log
        self.lock = asyncio.Lock()
        self._file = folder / log.origin_hash
        self._signers = tuple(signers)
        self.note, self.checkpoint, self.time = self._read()
        """The note as monitors get it, its checkpoint, and when it was cosigned; before the first: empty, `None` and 0."""

    def add(self, submission: Submission, now: int) -> str:
        """Keep the submitted checkpoint if it extends the last one, and return the lines of its cosignatures.

        `now` is in seconds since 1970. The checkpoint is on the disk when this returns. Raises `SubmissionRefused` as
        `check_extension` does, and `StateUnavailable` if the file cannot be written: then nothing has changed.
        """
        try:
            checkpoint = check_extension(submission, self.checkpoint)
        except SubmissionRefused as error:
            if error.proves_fork:
                self._keep_fork(submission.note)
            raise
        message = submission.text.encode()
        cosignatures = "".join(signer.cosign(message, now) for signer in self._signers)
        note = submission.note + cosignatures.encode()
        self._write(self._file, note)
        self.note, self.checkpoint, self.time = note, checkpoint, now
        return cosignatures

    def _keep_fork(self, refused: bytes) -> None:
        """Keep the first pair of notes by which the log's own key proves that the log has two histories."""
        if not (kept := self._file.with_suffix(".refused")).exists():
            self._write(self._file.with_suffix(".cosigned"), self.note)
            self._write(kept, refused)

    def _write(self, file: Path, note: bytes) -> None:
        try:
            replace_file(file, note, mode=PUBLIC)
            sync_folder(file.parent)
        except OSError as error:
            raise StateUnavailable(f"{file} cannot be written: {error.strerror}") from error

    def _read(self) -> tuple[bytes, Checkpoint | None, int]:
        try:
            note = self._file.read_bytes()
        except FileNotFoundError:
            return b"", None, 0
        except OSError as error:
            raise ConfigurationError(f"{self._file} cannot be read: {error.strerror}") from error
        try:
            checkpoint, time = _open_stored(note, self.log, self._signers)
        except LogError as error:
            raise ConfigurationError(
                f"{self._file} is damaged: {error.detail}; it says what this witness cosigned last for "
                f"{self.log.origin!r}, so restore it, or make a witness with a new key and folder"
            ) from error
        return note, checkpoint, time


def _open_stored(note: bytes, log: WitnessedLog, signers: Sequence[CosignatureSigner]) -> tuple[Checkpoint, int]:
    """Return the checkpoint of a stored note, and when it was cosigned: 0 if all keys of the witness are new since."""
    parsed = parse_note(note)
    checkpoint = parse_foreign_checkpoint(parsed.text)
    if checkpoint.origin != log.origin:
        raise LogError(Code.WRONG_LOG, "a checkpoint of another log")
    times = verify_cosignatures(parsed, [signer.verifier for signer in signers])
    # All keys cosigned at once.
    return checkpoint, next(iter(times.values()), 0)


@contextmanager
def locked_folder(folder: Path) -> Generator[None, None, None]:
    """Keep other processes of this machine out of `folder` while entered; remove what a killed process left half written.

    A missing folder is made. Raises `ConfigurationError` if another process is in it, or it cannot be used.
    """
    with file_errors(f"control.witness.folder: {folder} cannot be used"):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with file_errors(f"control.witness.folder: {folder} cannot be used"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(f"control.witness.folder: another witness uses {folder}") from error
            for leftover in folder.glob(".*"):
                leftover.unlink()
        yield
    finally:
        os.close(descriptor)
