"""The files of one process's audit spool: append durably, read from the front, drop acknowledged frames.

A spool is a folder (0700) of files (0600), each named by the number of its first frame. The process that has it open holds a
lock, which the kernel releases however the process ends. All methods block; several threads may call them.

::

    file   the line sealbus.spool.1, frames
    frame  u32(length of the rest behind the checksum), H(u32 || u64 || dig || body), u64(number), dig (32 bytes), body

Integers are big-endian, H is SHA-256. Numbers rise by one from frame to frame, so that a missing, repeated or misplaced frame
is noticed. The checksum detects damage. It is not a signature: a process that can write these files runs as the workload, and
could have anything sealed in its name.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Self

from sealbus.envelopes.errors import AuditUnavailable, ConfigurationError, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.records.batch import ClosedBatch
from sealbus.envelopes.records.body import parse_audit_body

MAGIC: Final = b"sealbus.spool.1\n"

_LENGTH: Final = struct.Struct(">I")
_NUMBER: Final = struct.Struct(">Q")
_SUM_BYTES: Final = 32
_DIG_BYTES: Final = 32
_FIXED: Final = _NUMBER.size + _DIG_BYTES

HEAD_BYTES: Final = _LENGTH.size + _SUM_BYTES
"""Bytes to read before a frame's length is known."""

SEGMENT_BYTES: Final = 4 * 1_048_576
"""Size at which the next file is begun. After a crash, acknowledged frames that precede an unacknowledged one in the same
file are sent again: at most about this much."""

_FILE_NAME: Final = re.compile(r"([0-9]{20})\.spool")
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600


class BadFrame(Exception):
    """Raised for bytes that are not a frame, or not the expected frame. The text is for people and shows no bytes."""


class Frame(NamedTuple):
    """One batch of records that is durably stored, under its number; `size` is its length in the file."""

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
    """Parse the first `HEAD_BYTES` of a frame; raise `BadFrame` for a length that no frame has."""
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
        raise BadFrame(f"frame {number} where {expected} is expected")
    return Frame(number, ClosedBatch(rest[_FIXED:], rest[_NUMBER.size : _FIXED]), HEAD_BYTES + head.length)


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int


class SpoolFiles:
    """One process's spool folder, made by `open` and to be closed. Frames are numbered from 1."""

    def __init__(self, folder: Path, lock: int, max_bytes: int, segment_bytes: int) -> None:
        self._folder = folder
        self._lock = lock
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._segments: deque[_Segment] = deque()
        self._writing: int | None = None
        self._next = 1
        self._front = len(MAGIC)
        """Offset in the first file of the first frame that is not dropped."""
        self._mutex = threading.Lock()
        self._closed = False
        self.torn = 0
        """Bytes at ends of files that were being written when a process or machine ended; no `append` had returned."""
        self.broken = False
        """Whether the disk failed such that this process can no longer promise durability."""
        self.frames = 0
        """Frames that are not dropped."""
        self.bytes = 0
        """Total size of all files."""

    @classmethod
    def open(cls, folder: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> Self:
        """Open `folder`, make it if it is missing, and check every frame that an earlier process left there.

        An incomplete frame at the end of the last file is cut off: its write had not finished, so nothing relies on it.
        Raises `ConfigurationError` if another process has the folder open, if other users can read it or one of its files, or
        if anything in it is damaged. Nothing else is repaired.
        """
        try:
            folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
            _check_private(folder)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)
        except OSError as error:
            raise ConfigurationError(f"audit.spool: {folder} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise ConfigurationError(
                f"audit.spool: {folder} is in use by another process; give each its own"
            ) from error
        files = cls(folder, lock, max_bytes, segment_bytes)
        try:
            files._scan()
        except OSError as error:
            files.close()
            raise ConfigurationError(f"audit.spool: {folder} cannot be read: {error.strerror}") from error
        except BaseException:
            files.close()
            raise
        return files

    def append(self, batches: Sequence[ClosedBatch]) -> None:
        """Store `batches` durably, all or none; once this returns they survive the process and the operating system.

        Raises `AuditUnavailable` if `max_bytes` or the disk leaves no room for them, and if the disk failed.
        """
        with self._mutex:
            if self._closed or self.broken:
                raise AuditUnavailable("the audit spool is closed" if self._closed else "the audit spool's disk failed")
            data = b"".join(encode_frame(self._next + place, batch) for place, batch in enumerate(batches))
            if self.bytes + len(data) > self._max_bytes:
                raise AuditUnavailable("the audit spool is full")
            segment = self._segment()
            before = segment.size
            try:
                _write_all(self._descriptor(), data, before)
            except OSError as error:
                self._cut(segment, before)
                raise AuditUnavailable(f"the audit spool cannot be written: {error.strerror}") from error
            try:
                os.fdatasync(self._descriptor())
            except OSError as error:
                # The content of the disk is unknown now. A second sync would hide that: the kernel reports a failure once.
                self.broken = True
                raise AuditUnavailable(f"the audit spool's disk failed: {error.strerror}") from error
            segment.size += len(data)
            self._next += len(batches)
            self.bytes += len(data)
            self.frames += len(batches)

    def peek(self, most: int, most_bytes: int) -> list[Frame]:
        """Return the first frames in order: at most `most`, and at most `most_bytes` unless the first alone has more.

        Raises `AuditUnavailable` if they cannot be read, or are not what was written.
        """
        with self._mutex:
            frames: list[Frame] = []
            if self._closed or not self._segments:
                return frames
            segment = self._segments[0]
            total = 0
            try:
                for frame in _frames(segment.path, self._front, segment.size):
                    total += frame.size
                    if frames and (len(frames) >= most or total > most_bytes):
                        break
                    frames.append(frame)
            except (BadFrame, OSError) as error:
                self.broken = True
                raise AuditUnavailable("the audit spool cannot be read back") from error
            return frames

    def drop(self, frames: Sequence[Frame]) -> None:
        """Drop `frames`, which must be the first: the audit stream has acknowledged them.

        The acknowledgement itself is not stored: after a crash `peek` may return the frames again.
        """
        with self._mutex:
            if self._closed or not frames:
                return
            segment = self._segments[0]
            self._front += sum(frame.size for frame in frames)
            self.frames -= len(frames)
            if self._front < segment.size:
                return
            self._front = len(MAGIC)
            self.bytes -= segment.size
            if self._writing is not None and len(self._segments) == 1:
                # The file being written is emptied and stays. If this does not reach the disk, its frames are sent again.
                os.ftruncate(self._writing, len(MAGIC))
                segment.size = len(MAGIC)
                self.bytes += segment.size
            else:
                self._segments.popleft()
                segment.path.unlink()
                # Files are removed in order: one that reappeared after a power failure would leave a gap in the numbers.
                _sync_folder(self._folder)

    def close(self) -> None:
        """Close the files and release the lock; remove a file without frames. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            if self._writing is not None:
                os.close(self._writing)
            if not self.broken:
                for segment in self._segments:
                    if segment.size <= len(MAGIC):
                        segment.path.unlink(missing_ok=True)
            os.close(self._lock)

    def _scan(self) -> None:
        names = sorted(path for path in self._folder.iterdir() if _FILE_NAME.fullmatch(path.name))
        expected: int | None = None
        for place, path in enumerate(names):
            _check_private(path)
            segment = _Segment(path, path.stat().st_size)
            end = min(len(MAGIC), segment.size)
            try:
                for frame in _frames(path, len(MAGIC), segment.size, expected):
                    _check_body(frame)
                    end += frame.size
                    expected = frame.number + 1
                    self.frames += 1
            except BadFrame as error:
                if not isinstance(error, _Torn) or place != len(names) - 1:
                    raise ConfigurationError(
                        f"audit.spool: {path} is damaged at byte {end}: {error}. What it holds from there is lost as "
                        "evidence; move it away to continue without it"
                    ) from error
                self.torn += segment.size - end
                os.truncate(path, end)
                segment.size = end
            if segment.size > len(MAGIC):
                self._segments.append(segment)
                self.bytes += segment.size
            else:
                path.unlink()
        self._next = expected or 1

    def _segment(self) -> _Segment:
        """Return the file to write to, starting the next one when due."""
        if self._writing is not None and self._segments[-1].size < self._segment_bytes:
            return self._segments[-1]
        path = self._folder / f"{self._next:020d}.spool"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE_FILE)
            try:
                _write_all(descriptor, MAGIC, 0)
                _sync_folder(self._folder)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise AuditUnavailable(f"the audit spool cannot be written: {error.strerror}") from error
        if self._writing is not None:
            os.close(self._writing)
        self._writing = descriptor
        self._segments.append(_Segment(path, len(MAGIC)))
        self.bytes += len(MAGIC)
        return self._segments[-1]

    def _descriptor(self) -> int:
        if self._writing is None:
            raise RuntimeError("no file is being written")
        return self._writing

    def _cut(self, segment: _Segment, size: int) -> None:
        try:
            os.ftruncate(self._descriptor(), size)
        except OSError:
            self.broken = True
        segment.size = size


class _Torn(BadFrame):
    """A file that ends before its frame does."""


def _frames(path: Path, start: int, end: int, expected: int | None = None) -> Iterator[Frame]:
    """Yield the frames of a file between two offsets. Raises `BadFrame`, or its `_Torn` if the file ends early."""
    with path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            if MAGIC.startswith(magic):
                raise _Torn("it ends in its first line")
            raise BadFrame("not a spool of this version")
        file.seek(start)
        place = start
        while place < end:
            head = file.read(HEAD_BYTES)
            if len(head) < HEAD_BYTES:
                raise _Torn("it ends inside a frame")
            parsed = parse_head(head)
            rest = file.read(parsed.length)
            if len(rest) < parsed.length:
                raise _Torn("it ends inside a frame")
            frame = parse_frame(parsed, rest, expected)
            yield frame
            place += frame.size
            expected = frame.number + 1


def _check_body(frame: Frame) -> None:
    try:
        body = parse_audit_body(frame.closed.body)
    except EnvelopeError as error:
        raise BadFrame("contents that are not records") from error
    if body.root != frame.closed.dig:
        raise BadFrame("a Merkle root that does not match its records")


def _check_private(path: Path) -> None:
    info = path.lstat()
    if info.st_mode & 0o077 or info.st_uid != os.geteuid():
        raise ConfigurationError(f"audit.spool: {path} must belong to this user and be inaccessible to others")


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
