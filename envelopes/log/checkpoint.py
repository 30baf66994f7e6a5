"""Checkpoints: signed notes that commit a log to its size and root (C2SP tlog-checkpoint).

A C2SP verifier ignores signatures by unknown keys. In an export, `open_strictly` refuses them: every byte counts there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.note import (
    NoteSigner,
    NoteVerifier,
    base64_text,
    check_all_signers,
    parse_base64,
    parse_number,
    sign_note,
    verify_note,
)
from sealbus.envelopes.log.tree_proofs import verify_consistency

_LINES: Final = 3
_EMPTY_ROOT: Final = sha256().digest()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Origin, number of entries, root. Raises `LogError` (`bad_note`) for values that no checkpoint can have."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not 1 <= len(self.origin.encode(errors="replace")) <= DEFAULT_LIMITS.log_name_bytes:
            raise LogError(Code.BAD_NOTE, "origin: length")
        if any(character < " " or "\ud800" <= character <= "\udfff" for character in self.origin):
            raise LogError(Code.BAD_NOTE, "origin: character")
        if not 0 <= self.size <= DEFAULT_LIMITS.max_integer or len(self.root) != len(_EMPTY_ROOT):
            raise LogError(Code.BAD_NOTE, "size or root")
        if self.size == 0 and self.root != _EMPTY_ROOT:
            raise LogError(Code.BAD_NOTE, "not the root of an empty log")

    @property
    def text(self) -> str:
        """The text of its note."""
        return f"{self.origin}\n{self.size}\n{base64_text(self.root)}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose note a known key has signed. `open_checkpoint` and `open_cosigned` alone make it."""

    checkpoint: Checkpoint
    note: bytes = field(repr=False)
    """Exactly as received."""
    signers: tuple[NoteVerifier, ...]
    cosigners: tuple[str, ...] = ()
    """The witnesses whose cosignatures hold, by their names in a witness policy."""


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a note as a checkpoint; raise `LogError` (`bad_note`) for any other text.

    Extension lines are refused: nothing in sealbus writes them, and nothing could check them.
    """
    if text.count("\n") != _LINES:
        raise LogError(Code.BAD_NOTE, "a checkpoint has three lines")
    return parse_foreign_checkpoint(text)


def parse_foreign_checkpoint(text: str) -> Checkpoint:
    """Parse the checkpoint of any C2SP log, which may have extension lines; raise `LogError` (`bad_note`) for other text."""
    return Checkpoint(*read_lines(text))


def read_lines(text: str) -> tuple[str, int, bytes]:
    """Return origin, size and root from the lines of a checkpoint; raise `LogError` (`bad_note`) for other text.

    Their values are not checked: a `Checkpoint` checks them.
    """
    *lines, end = text.split("\n")
    if len(lines) < _LINES or end or not all(lines):
        raise LogError(Code.BAD_NOTE, "a checkpoint has three lines, and further lines that are not empty")
    return lines[0], parse_number(lines[1], "size"), parse_base64(lines[2], "root")


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[NoteSigner]) -> bytes:
    """Return the note of `checkpoint`. The caller ensures that it extends every checkpoint that was signed before."""
    return sign_note(checkpoint.text, signers)


def open_checkpoint(note: bytes, *, origin: str, verifiers: Iterable[NoteVerifier]) -> SignedCheckpoint:
    """Verify `note` as a checkpoint of the log `origin`, signed by one of `verifiers`, the keys of that log.

    Raises `LogError` as `verify_note` does, `bad_note` for a text that is not a checkpoint, and `wrong_log` for a checkpoint
    of another log. `verify_extension` checks that it extends earlier checkpoints.
    """
    verified = verify_note(note, verifiers)
    checkpoint = parse_checkpoint(verified.text)
    if checkpoint.origin != origin:
        raise LogError(Code.WRONG_LOG, "a checkpoint of another log")
    return SignedCheckpoint(checkpoint, note, verified.signers)


def verify_extension(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> None:
    """Raise `LogError` unless the log at `new` begins with the whole log at `old`.

    `wrong_log`: the origins differ. `inconsistent_log` and `bad_proof`: as for `verify_consistency`.
    """
    if old.origin != new.origin:
        raise LogError(Code.WRONG_LOG, "checkpoints of two logs")
    verify_consistency(old.size, old.root, new.size, new.root, path)


def open_strictly(note: bytes, origin: str, keys: Sequence[NoteVerifier]) -> SignedCheckpoint:
    """Verify `note` as a checkpoint of the log `origin`, with every signature by one of `keys`, and at most one by each.

    Raises `LogError` as `open_checkpoint` and `check_all_signers` do.
    """
    signed = open_checkpoint(note, origin=origin, verifiers=keys)
    check_all_signers(note, keys)
    return signed
