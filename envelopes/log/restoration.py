"""Restorations: that a log's stream was restored from a backup, as a note signed by the log's key (SPEC.md section 13).

A restored stream is created anew, and ends where the backup did. The log goes on over it only with such a note, in which the
operator who restored is named; the note is the log's entry 0x05, and shows for ever what may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.entries import Entry, EntryKind
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier, parse_note, parse_number, sign_note, verify_note
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "FOLDER",
    "Restoration",
    "open_restoration",
    "parse_restoration",
    "restoration_entry",
    "restoration_path",
    "sign_restoration",
]

_FIRST: Final = "sealbus.restored.v1"
"""No checkpoint begins so, unless a log were named so, whose second line would have to be a number."""
FOLDER: Final = "restored"
_LINES: Final = 7
_MAX: Final = DEFAULT_LIMITS.max_integer


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """One restoration. Raises `LogError` (`bad_note`) for values that none can have.

    `before` and `created` are when the stream was created, before it and by it; `last` is the last sequence that the stream
    held then; `by` the operator; `time` when, by the notary's clock. All times are microseconds.
    """

    origin: str
    before: int
    created: int
    last: int
    by: SpiffeId
    time: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.origin.encode(errors="replace")) <= DEFAULT_LIMITS.log_name_bytes or "\n" in self.origin:
            raise LogError(Code.BAD_NOTE, "origin")
        if not all(0 <= one <= _MAX for one in (self.before, self.created, self.last, self.time)):
            raise LogError(Code.BAD_NOTE, "a number")

    @property
    def text(self) -> str:
        """The text of its note."""
        rows = (_FIRST, self.origin, self.before, self.created, self.last, self.by, self.time)
        return "".join(f"{one}\n" for one in rows)


def sign_restoration(restoration: Restoration, signers: Sequence[NoteSigner]) -> bytes:
    """Return the note of `restoration`, signed by the log's keys."""
    return sign_note(restoration.text, signers)


def open_restoration(note: bytes, *, origin: str, verifiers: Iterable[NoteVerifier]) -> Restoration:
    """Verify `note` as a restoration of the log `origin`: every signature by one of `verifiers`, at most one by each.

    Raises `LogError` as `open_strictly` does for a checkpoint, and `bad_note` for a note that is none.
    """
    keys = tuple(verifiers)
    verified = verify_note(note, keys)
    by = [(one.name, one.key_id) for one in parse_note(note).signatures]
    if not {(key.name, key.key_id) for key in keys}.issuperset(by):
        raise LogError(Code.UNTRUSTED_NOTE, "signed by an unknown key as well")
    if len(set(by)) != len(by):
        raise LogError(Code.BAD_NOTE, "signed twice by one key")
    found = parse_restoration(verified.text)
    if found.origin != origin:
        raise LogError(Code.WRONG_LOG, "a restoration of another log's stream")
    return found


def parse_restoration(text: str) -> Restoration:
    """Parse the text of a note as a restoration; raise `LogError` (`bad_note`) for any other text. Nothing is verified."""
    lines = text.split("\n")
    if len(lines) != _LINES + 1 or lines[0] != _FIRST or lines[-1]:
        raise LogError(Code.BAD_NOTE, "not a restoration")
    try:
        who = SpiffeId.parse(lines[5])
    except EnvelopeError as error:
        raise LogError(Code.BAD_NOTE, "by") from error
    return Restoration(
        origin=lines[1],
        before=parse_number(lines[2], "before"),
        created=parse_number(lines[3], "created"),
        last=parse_number(lines[4], "last"),
        by=who,
        time=parse_number(lines[6], "time"),
    )


def restoration_path(time: int) -> str:
    """Return the path of the note of a restoration at `time` in a log's folder."""
    return f"{FOLDER}/{time:016d}"


def restoration_entry(note: bytes, restoration: Restoration) -> Entry:
    """Return the entry of a restoration: after it the stream's next sequence is the one after `last`."""
    return Entry(EntryKind.RESTORED, restoration.last, restoration.time, sha256(note).digest(), 0)
