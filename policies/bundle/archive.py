"""The file of a bundle: a gzipped tar, bounded before it is parsed, with equal bytes for equal contents."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from typing import Final

from sealbus.policies.lint.module import PolicyRefused, Problem

BUNDLE_BYTES: Final = 8_388_608
"""Bytes of the file itself."""
UNPACKED_BYTES: Final = 33_554_432
"""Bytes of the tar inside; OPA keeps about twenty times the size of its data in memory."""
BUNDLE_FILES: Final = 1_000
_ENTRIES: Final = 4 * BUNDLE_FILES
"""Entries with folders, of which tarfile keeps each in memory."""

_TYPE_AT: Final = 156
"""Place of the type in a header."""
_EXTENSION_TYPES: Final = frozenset(b"xgXLK")
"""Headers that extend the next one: of POSIX, of Solaris, and names of GNU."""
_EXTENSIONS_IN_ROW: Final = 4
"""Most extensions of one entry. tarfile reads each inside of the one before it, and 400 exhaust its stack."""
_EXTENSION_STEPS: Final = 2**28
"""Most of the sum of the squares of extensions' sizes. Until Python 3.11.10 tarfile searches digits in quadratic time: 32 kB
of them take seconds. 1,000 files with extensions of 500 bytes stay below."""


def pack_archive(contents: Mapping[str, bytes]) -> bytes:
    """Return the archive of `contents`, by path; equal for equal contents. Nothing is checked."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


def unpack_archive(raw: bytes) -> dict[str, bytes]:
    """Return the files in the archive `raw`, by path.

    Raises `PolicyRefused` for over 8 MiB packed, 32 MiB unpacked or 1,000 files, links and other special entries,
    absolute paths, `..`, a repeated path, and anything but a gzipped tar.
    """
    if len(raw) > BUNDLE_BYTES:
        raise refused_file("", f"the bundle has over {BUNDLE_BYTES} bytes")
    unpacker = zlib.decompressobj(wbits=31)  # gzip only, with a bounded result
    try:
        archive = unpacker.decompress(raw, UNPACKED_BYTES)
        if len(archive) == UNPACKED_BYTES and not unpacker.eof:
            raise refused_file("", f"the bundle has over {UNPACKED_BYTES} bytes unpacked: it needs less data")
        if not unpacker.eof or unpacker.unused_data:
            raise refused_file("", "not one whole gzip stream")
        return _untar(archive)
    except (zlib.error, tarfile.TarError, ValueError) as error:
        raise refused_file("", f"not a gzipped tar: {error}") from error


def _untar(archive: bytes) -> dict[str, bytes]:
    _check_extensions(archive)
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for number, entry in enumerate(tar):
            if number == _ENTRIES:
                raise refused_file("", f"over {_ENTRIES} entries")
            if entry.isdir():
                continue
            path = _path(entry)
            if path in contents:
                raise refused_file(path, "the path is repeated")
            if len(contents) == BUNDLE_FILES:
                raise refused_file("", f"over {BUNDLE_FILES} files")
            # Read from the bytes in memory, not by name, so the tar cannot point anywhere else.
            start = entry.offset_data
            contents[path] = archive[start : start + entry.size]
            if len(contents[path]) != entry.size:
                raise refused_file(path, "the file is cut off")
    return contents


def _check_extensions(archive: bytes) -> None:
    """Raise `ValueError` for extensions that take tarfile too long, or too deep.

    Each block that reads as a header counts, also inside of a file: a header is always at a multiple of a block.
    """
    in_row: dict[int, int] = {}
    steps = 0
    for number, kind in enumerate(archive[_TYPE_AT :: tarfile.BLOCKSIZE]):
        if kind not in _EXTENSION_TYPES:
            continue
        start = number * tarfile.BLOCKSIZE
        content = start + tarfile.BLOCKSIZE
        try:
            size = tarfile.TarInfo.frombuf(archive[start:content], tarfile.ENCODING, "surrogateescape").size
        except tarfile.TarError:
            continue
        row = in_row.pop(start, 0) + 1
        steps += size**2
        if row > _EXTENSIONS_IN_ROW or steps > _EXTENSION_STEPS:
            raise ValueError("too many or too long extensions of headers")
        in_row[content + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE] = row


def _path(entry: tarfile.TarInfo) -> str:
    """Return the path of a file entry; `opa build` starts its paths with `/`, tar of a folder with `./`."""
    path = entry.name.removeprefix("/").removeprefix("./")
    if not entry.isreg() or entry.issparse():
        raise refused_file(path, "a bundle must not have links or special files")
    if any(part in ("", ".", "..") for part in path.split("/")) or not path.isprintable() or "\\" in path:
        raise refused_file(ascii(entry.name), "not a path inside the bundle")
    return path


def refused_file(path: str, text: str) -> PolicyRefused:
    """Return the refusal of the file at `path`, or of the bundle itself if `path` is empty."""
    return PolicyRefused([Problem.of_whole(path or "the bundle", "bundle", text)])
