"""The file format of the local audit spool: frames with a number and a checksum, one after the other.

::

    file   the line sealbus.spool.1, frames
    frame  u32(length of the rest behind the checksum), H(u32 || u64 || dig || body), u64(number), dig (32 bytes), body

Integers are big-endian, H is SHA-256. Numbers rise by one from frame to frame, so that none can be missing, twice, or
elsewhere. The checksum tells damage; it is no signature: whoever may write these files runs as the workload, and could
have anything sealed in its name.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.envelopes.audit_batch import ClosedBatch
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["HEAD_BYTES", "MAGIC", "BadFrame", "Frame", "FrameHead", "encode_frame", "parse_frame", "parse_head"]

MAGIC: Final = b"sealbus.spool.1\n"

_LENGTH: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")
_SUM_BYTES: Final = 32
_DIG_BYTES: Final = 32
_FIXED: Final = _NUMBER.size + _DIG_BYTES

HEAD_BYTES: Final = _LENGTH.size + _SUM_BYTES
"""What has to be read before it is known how long a frame is."""


class BadFrame(Exception):
    """These bytes are no frame, or not the one that has to be here. The text is for people and shows nothing of them."""


class Frame(NamedTuple):
    """One batch of records that was promised, under its number; `size` is what it takes of the file."""

    number: int
    closed: ClosedBatch
    size: int


class FrameHead(NamedTuple):
    """How many bytes follow, and their checksum."""

    length: int
    sum: bytes


def encode_frame(number: int, closed: ClosedBatch) -> bytes:
    """Return the frame of `closed` under `number`."""
    rest = _NUMBER.pack(number) + closed.dig + closed.body
    length = _LENGTH.pack(len(rest))
    return b"".join((length, sha256(length + rest).digest(), rest))


def parse_head(data: bytes) -> FrameHead:
    """Return what the first `HEAD_BYTES` of a frame say; raise `BadFrame` for a length that no frame has."""
    (length,) = _LENGTH.unpack_from(data)
    if not _FIXED < length <= _FIXED + DEFAULT_LIMITS.body_bytes:
        raise BadFrame("a length that no frame has")
    return FrameHead(length, data[_LENGTH.size : HEAD_BYTES])


def parse_frame(head: FrameHead, rest: bytes, expected: int | None) -> Frame:
    """Return the frame with `head` and the bytes `rest` behind it, whose number must be `expected` unless that is `None`.

    Raises `BadFrame`.
    """
    if len(rest) != head.length or sha256(_LENGTH.pack(head.length) + rest).digest() != head.sum:
        raise BadFrame("a checksum that does not match")
    (number,) = _NUMBER.unpack_from(rest)
    if expected is not None and number != expected:
        raise BadFrame(f"frame {number} where {expected} has to be")
    return Frame(number, ClosedBatch(rest[_FIXED:], rest[_NUMBER.size : _FIXED]), HEAD_BYTES + head.length)
