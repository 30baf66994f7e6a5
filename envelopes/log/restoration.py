"""Restorations: that a log's stream was restored from a backup, as a note signed by the log's key (SPEC.md section 13).

A restored stream is created anew, and ends where the backup did. The log goes on over it only with such a note, in which the
operator who restored is named; the note is the log's entry 0x05, and shows for ever what may be missing. The note may also
name the other streams of the backup: what was waiting in these is handled only then (step 6).
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
"""No checkpoint begins so, unless a log were named so, whose second line would have to be a number."""
_FIRST_OF_STREAMS: Final = "sealbus.restored.v2"
"""The first line of a note that names other streams as well."""
FOLDER: Final = "restored"
_LINES: Final = 7
_MAX: Final = DEFAULT_LIMITS.max_integer
_ROW: Final = 4
"""Columns of a stream's line."""
_MANIFEST: Final = re.compile("[0-9a-f]{64}")
_MOST_STREAMS: Final = 64
"""Streams that one note names: with their numbers they fit into a note that is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """One restoration. Raises `LogError` (`bad_note`) for values that none can have.

    `before` and `created` are when the stream was created, before it and by it; `last` is the last sequence that the stream
    held then; `by` the operator; `time` when, by the notary's clock. All times are microseconds. `manifest` is the SHA-256 of
    the backup's signed manifest, and `streams` are its other streams, by name; either both are there, or neither.
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

    Raises `LogError` as `open_strictly` does for a checkpoint, and `bad_note` for a note that is none.
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
    """Return the path of the note of a restoration at `time` in a log's folder."""
    return f"{FOLDER}/{time:016d}"


def restoration_entry(note: bytes, restoration: Restoration) -> Entry:
    """Return the entry of a restoration: after it the stream's next sequence is the one after `last`."""
    return Entry(EntryKind.RESTORED, restoration.last, restoration.time, sha256(note).digest(), 0)
