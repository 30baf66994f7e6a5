"""The format of an export: the files for a log of a given size, and the frames in its message files.

A frame is `kind || u64(sequence) || u64(stored time) || u32(length) || data`. Its entry follows from it, so that a change of
any byte is noticed. A frame has no subject: the header of a message that opens has it as `to`, and for other messages it
would prove nothing. Any other file is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.entries import Entry, EntryKind
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.log.restoration import parse_restoration, restoration_entry
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName, number_path
from sealbus.envelopes.message.wire import parse_envelope

FRAME_DATA_BYTES: Final = 67_108_864
"""The largest `max_payload` that NATS allows, which bounds a message that does not open."""
_HEAD: Final = 21
_KINDS: Final = {kind.value: kind for kind in EntryKind}
_MAX: Final = DEFAULT_LIMITS.max_integer
_NOTE_BYTES: Final = DEFAULT_LIMITS.published_note_bytes
_COUNT_BYTES: Final = 8
_STREAM: Final = re.compile(rb"[A-Za-z0-9_-]{1,255}")

CHECKPOINT: Final = "checkpoint"
_MESSAGES: Final = re.compile(r"messages/((?:x[0-9]{3}/){0,5}[0-9]{3})", re.ASCII)


class Frame(NamedTuple):
    """An entry and its data: the payload of a message, a gap's count, a stream's name, or a note.

    The frame of a lost message has the entry itself as its data, and `stored` is 0.
    """

    kind: EntryKind
    sequence: int
    stored: int
    """Microseconds."""
    data: bytes

    def __repr__(self) -> str:
        return f"Frame(kind={self.kind!r}, sequence={self.sequence!r}, ...)"


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    place = bytes((frame.kind,)) + frame.sequence.to_bytes(8, "big") + frame.stored.to_bytes(8, "big")
    return place + len(frame.data).to_bytes(4, "big") + frame.data


def read_frames(read: Callable[[int], bytes]) -> Iterator[Frame]:
    """Yield the frames of a file; `read` takes a number and returns that many bytes, fewer only at the end.

    Raises `LogError` (`bad_entry`) if the rest does not begin with a frame. Later frames cannot be found then.
    """
    while head := read(_HEAD):
        length = int.from_bytes(head[17:21], "big")
        kind = _KINDS.get(head[0])
        sequence, stored = int.from_bytes(head[1:9], "big"), int.from_bytes(head[9:17], "big")
        if len(head) < _HEAD or kind is None or sequence > _MAX or stored > _MAX or length > FRAME_DATA_BYTES:
            raise LogError(Code.BAD_ENTRY, "not a frame")
        data = read(length)
        if len(data) < length:
            raise LogError(Code.BAD_ENTRY, "cut inside a frame")
        yield Frame(kind, sequence, stored, data)


def entry_of(frame: Frame) -> Entry:
    """Return the entry that follows from `frame`.

    Raises `LogError` (`bad_entry`, `bad_note`) for a malformed gap, name, checkpoint or restoration, for a place that no
    entry can have, and for a lost message, whose entry cannot be computed. Raises `EnvelopeError` (step 1) for a message that
    is marked as opened but is not an envelope.
    """
    data, count, begins = frame.data, 1, False
    match frame.kind:
        case EntryKind.VERIFIED:
            return Entry(frame.kind, frame.sequence, frame.stored, sha256(parse_envelope(data).header).digest())
        case EntryKind.GAP:
            # Unless the data is eight bytes, its digest is not that of the count, and `Entry` refuses it.
            count = int.from_bytes(data[:_COUNT_BYTES], "big")
        case EntryKind.CREATION:
            begins = True
            if _STREAM.fullmatch(data) is None:
                raise LogError(Code.BAD_ENTRY, "a stream's name")
        case EntryKind.PREVIOUS:
            begins = True
            if not 1 <= len(data) <= _NOTE_BYTES:
                raise LogError(Code.BAD_ENTRY, "a previous checkpoint")
        case EntryKind.RESTORED:
            restoration = parse_restoration(parse_note(data).text)
            if (restoration.last, restoration.time) != (frame.sequence, frame.stored):
                raise LogError(Code.BAD_ENTRY, "a restoration of another place")
            return restoration_entry(data, restoration)
        case _:
            pass  # The digest of a message that did not open is that of its payload.
    return Entry(frame.kind, frame.sequence, frame.stored, sha256(data).digest(), 0 if begins else count)


def messages_path(tile: int) -> str:
    """Return the path of the file with the frames of entry tile `tile`, for instance `messages/x001/234`."""
    return f"messages/{number_path(tile)}"


def tiles_of(size: int) -> int:
    """Return the number of tiles for the entries of a log of `size`; the last tile may be partial."""
    return -(-size // TILE_WIDTH)


def is_expected(path: str, size: int) -> bool:
    """Return whether an export of `size` entries has a file at `path`; places are not exported (section 13)."""
    if path == CHECKPOINT:
        return True
    matched = _MESSAGES.fullmatch(path)
    if matched is not None:
        index = int(matched[1].replace("x", "").replace("/", ""))
        return index < tiles_of(size) and messages_path(index) == path
    try:
        name = TileName.parse(path)
    except LogError:
        return False
    if name.level == "places":
        return False
    held = size if name.level == "entries" else size >> (8 * name.level)
    return name.index * TILE_WIDTH < held and name.width == min(TILE_WIDTH, held - name.index * TILE_WIDTH)
