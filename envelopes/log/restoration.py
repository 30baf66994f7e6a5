"""Restorations: notes, signed by a log's key, that the log's stream was restored from a backup (SPEC.md section 13).

A restored stream has a new creation time and ends where the backup ended. The log continues over it only with such a note,
which names the operator. The note becomes an entry of kind 0x05, so that the log always shows which messages may be missing.
The note may also name the other streams of the backup. Messages that wait in these are handled only if it does (step 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.entries import Entry, EntryKind
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier, check_all_signers, parse_number, sign_note, verify_note
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_FIRST: Final = "sealbus.restored.v1"
"""The first line of a note. A checkpoint of a log with this name would differ in its second line, which is a number."""
_FIRST_OF_STREAMS: Final = "sealbus.restored.v2"
"""The first line of a note that also names other streams."""
FOLDER: Final = "restored"
_LINES: Final = 7
_MAX: Final = DEFAULT_LIMITS.max_integer
_ROW: Final = 4
"""Number of columns in a stream's line."""
_MANIFEST: Final = re.compile("[0-9a-f]{64}")
_MOST_STREAMS: Final = 64
"""Most streams in a note. Their lines fit into a note of the size that may be published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """One restoration. Raises `LogError` (`bad_note`) for values that no restoration can have.

    `before` is the creation time of the stream in the backup, `created` that of the restored stream. `last` is the last
    restored sequence, `by` the operator, and `time` the time of the note by the notary's clock. All times are microseconds.
    `manifest` is the SHA-256 of the backup's signed manifest, in hex, and `streams` are the backup's other streams, in the
    order of their names. Either both are present, or neither.
    """

    origin: str
    before: int
    created: int
    last: int
    by: SpiffeId
    time: int
    manifest: str = ""
    streams: tuple[RestoredStream, ...] = field(default=())

    def __post_init__(self) -> None:
        if not 1 <= len(self.origin.encode(errors="replace")) <= DEFAULT_LIMITS.log_name_bytes or "\n" in self.origin:
            raise LogError(Code.BAD_NOTE, "origin")
        if not all(0 <= number <= _MAX for number in (self.before, self.created, self.last, self.time)):
            raise LogError(Code.BAD_NOTE, "a number")
        names = [stream.stream for stream in self.streams]
        if names != sorted(set(names)) or len(names) > _MOST_STREAMS:
            raise LogError(Code.BAD_NOTE, "streams that are not in order")
        if bool(self.manifest) is not bool(names) or (names and not _MANIFEST.fullmatch(self.manifest)):
            raise LogError(Code.BAD_NOTE, "a manifest's hash")

    @property
    def text(self) -> str:
        """The text of its note."""
        first = _FIRST_OF_STREAMS if self.streams else _FIRST
        rows = [first, self.origin, self.before, self.created, self.last, self.by, self.time]
        if self.streams:
            rows.append(self.manifest)
        rows += [stream.line for stream in self.streams]
        return "".join(f"{row}\n" for row in rows)


def sign_restoration(restoration: Restoration, signers: Sequence[NoteSigner]) -> bytes:
    """Return the note of `restoration`, signed by the log's keys."""
    return sign_note(restoration.text, signers)


def open_restoration(note: bytes, *, origin: str, verifiers: Iterable[NoteVerifier]) -> Restoration:
    """Verify `note` as a restoration of the log `origin`: every signature by one of `verifiers`, at most one by each.

    Raises `LogError` as `open_strictly` does for a checkpoint, and `bad_note` for a text that is not a restoration.
    """
    keys = tuple(verifiers)
    verified = verify_note(note, keys)
    check_all_signers(note, keys)
    restoration = parse_restoration(verified.text)
    if restoration.origin != origin:
        raise LogError(Code.WRONG_LOG, "a restoration of another log's stream")
    return restoration


def parse_restoration(text: str) -> Restoration:
    """Parse the text of a note as a restoration; raise `LogError` (`bad_note`) for any other text. Nothing is verified."""
    lines = text.split("\n")
    further = lines[_LINES:-1]
    if lines[-1] or lines[0] != (_FIRST_OF_STREAMS if further else _FIRST) or len(lines) <= _LINES or len(further) == 1:
        raise LogError(Code.BAD_NOTE, "not a restoration")
    try:
        operator = SpiffeId.parse(lines[5])
    except EnvelopeError as error:
        raise LogError(Code.BAD_NOTE, "by") from error
    return Restoration(
        origin=lines[1],
        before=parse_number(lines[2], "before"),
        created=parse_number(lines[3], "created"),
        last=parse_number(lines[4], "last"),
        by=operator,
        time=parse_number(lines[6], "time"),
        manifest=further[0] if further else "",
        streams=tuple(parse_stream(line) for line in further[1:]),
    )


def parse_stream(line: str) -> RestoredStream:
    """Parse the line of a restored stream; raise `LogError` (`bad_note`) for any other text."""
    row = line.split(" ")
    if len(row) != _ROW:
        raise LogError(Code.BAD_NOTE, "a stream")
    return RestoredStream(
        stream=row[0],
        before=parse_number(row[1], "before"),
        created=parse_number(row[2], "created"),
        last=parse_number(row[3], "last"),
    )


def restoration_path(time: int) -> str:
    """Return the path, in a log's folder, of the note of a restoration at `time`."""
    return f"{FOLDER}/{time:016d}"


def restoration_entry(note: bytes, restoration: Restoration) -> Entry:
    """Return the entry of a restoration. The sequence after `last` comes next."""
    return Entry(EntryKind.RESTORED, restoration.last, restoration.time, sha256(note).digest(), 0)
