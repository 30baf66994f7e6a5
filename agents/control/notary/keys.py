"""Key files that sign checkpoints, and checkpoints of other logs, held where the notaries of those logs cannot reach them.

A key file holds one private key, readable by its owner alone. Held checkpoints make a rewritten log evident::

    <folder>/<first 32 hex digits of H(origin)>/<size, 16 digits>      the note, unchanged
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from sealbus.agents.control.notary.log.folder_store import write_durably
from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.files import PRIVATE, create_file, file_errors
from sealbus.envelopes.errors import ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.log.checkpoint import SignedCheckpoint, open_checkpoint, parse_checkpoint, verify_extension
from sealbus.envelopes.log.note import KEY_BYTES, NoteSigner, NoteVerifier, leave_out_cosignatures, parse_note
from sealbus.envelopes.log.tiles import ReadTile, TiledTree

_BYTES = 1_024

_SIZE_DIGITS: Final = 16


def make_key_file(path: Path, origin: str) -> NoteSigner:
    """Make a key for the log `origin`, write it to `path`, which must not exist, with mode 0600, and return it.

    Raises `ConfigurationError` if the file cannot be made, or `origin` cannot be the name of a key.
    """
    try:
        signer = NoteSigner(origin, secrets.token_bytes(KEY_BYTES))
    except LogError as error:
        raise ConfigurationError(f"{origin!r} cannot be the origin of a log: {error.detail}") from error
    if path.exists():
        raise ConfigurationError(f"{path} exists already: keys are never overwritten")
    with file_errors(f"{path} cannot be written"):
        create_file(path, f"{signer.secret_text()}\n".encode(), mode=PRIVATE)
    return signer


def load_signers(paths: Sequence[Path], origin: str) -> tuple[NoteSigner, ...]:
    """Return the keys in `paths`, all of the log `origin`: one key, or two while a new key replaces the old.

    A key belongs to the log that it is named after, and to logs whose origins continue that name after a slash. So one key
    may serve the logs of several periods. Raises `ConfigurationError` without a path, for a file that cannot be read or that
    others can read, and for a file that is no such key.
    """
    if not paths:
        raise ConfigurationError("control.notary.keys is not set: make a key with `sealbus notary keygen`")
    signers = tuple(_load(path) for path in paths)
    for signer, path in zip(signers, paths, strict=True):
        if not f"{origin}/".startswith(f"{signer.verifier.name}/"):
            raise ConfigurationError(f"{path} is a key of {signer.verifier.name!r}, and the log is {origin!r}")
    if len({signer.verifier for signer in signers}) != len(signers):
        raise ConfigurationError("control.notary.keys: one key is listed twice")
    return signers


def previous_checkpoint(path: Path) -> bytes:
    """Return the last checkpoint of the previous period's log in the file `path`, as the next log's 0x04 entry has it.

    Cosignatures are left out. Raises `ConfigurationError` for a file that cannot be read or is not a checkpoint.
    """
    with file_errors(f"control.notary.previous: {path} cannot be read"):
        note = path.read_bytes()
    try:
        parse_checkpoint(parse_note(note).text)
        return leave_out_cosignatures(note)
    except LogError as error:
        raise ConfigurationError(f"control.notary.previous: {path} is not a checkpoint: {error.detail}") from error


def _load(path: Path) -> NoteSigner:
    try:
        return NoteSigner.parse(read_private(path, name="the key", most=_BYTES).decode("utf-8").removesuffix("\n"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not a key of a log") from error
    except LogError as error:
        raise ConfigurationError(f"{path} is not a key of a log: {error.detail}") from error


class CheckpointHolder:
    """The held checkpoints of one other log, each of which must extend the former. Calls block.

    `verifiers` are the keys of that log, known from another source. Raises `StateUnavailable` if the folder cannot be used.
    """

    def __init__(self, folder: Path, *, origin: str, verifiers: Sequence[NoteVerifier]) -> None:
        self._folder = folder / sha256(origin.encode()).hexdigest()[:32]
        self._origin = origin
        self._verifiers = tuple(verifiers)

    def latest(self) -> SignedCheckpoint | None:
        """Return the largest held checkpoint, `None` before the first. Raises `LogError` for a file that is no checkpoint."""
        try:
            names = sorted(file.name for file in self._folder.iterdir() if len(file.name) == _SIZE_DIGITS)
            note = (self._folder / names[-1]).read_bytes() if names else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be read: {error.strerror}") from error
        return self._open(note) if note is not None else None

    def hold(self, note: bytes, path: Sequence[bytes] = ()) -> SignedCheckpoint:
        """Keep `note` and return its checkpoint; `path` proves that it extends the latest held checkpoint.

        A checkpoint of the same size is kept once. Raises the `LogError`s of `open_checkpoint` and `verify_extension`;
        `inconsistent_log` proves that the other log was rewritten: keep both notes.
        """
        signed, held = self._open(note), self.latest()
        if held is not None:
            verify_extension(held.checkpoint, signed.checkpoint, path)
            if held.checkpoint.size == signed.checkpoint.size:
                return held
        try:
            under_way = self._folder / "under-way"
            under_way.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_durably(self._folder, {f"{signed.checkpoint.size:0{_SIZE_DIGITS}d}": note}, under_way)
        except OSError as error:
            raise StateUnavailable(f"{self._folder} cannot be written: {error.strerror}") from error
        return signed

    def hold_from(self, note: bytes, read: ReadTile) -> SignedCheckpoint:
        """Keep `note` as `hold` does, with a proof made from that log's own tiles, which `read` returns.

        Tiles that are wrong or missing raise `LogError` (`bad_tile`, `bad_proof`), and the note is not kept.
        """
        signed, held = self._open(note), self.latest()
        path: Sequence[bytes] = ()
        if held is not None and 0 < held.checkpoint.size < signed.checkpoint.size:
            path = TiledTree(signed.checkpoint.size, read).consistency(held.checkpoint.size)
        return self.hold(note, path)

    def _open(self, note: bytes) -> SignedCheckpoint:
        return open_checkpoint(note, origin=self._origin, verifiers=self._verifiers)
