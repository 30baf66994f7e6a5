"""Archives: what goes in comes out, and nothing is believed before it is bounded."""

from __future__ import annotations

import gzip
import tarfile

import pytest

from sealbus.policies.bundle import archive as bundle_archive
from sealbus.policies.bundle.archive import BUNDLE_FILES, pack_archive, unpack_archive
from sealbus.policies.lint.module import PolicyRefused


def test_what_was_packed_is_unpacked() -> None:
    contents = {"b/c.rego": b"package b", "a": b""}
    assert unpack_archive(pack_archive(contents)) == contents
    assert pack_archive(contents) == pack_archive(dict(reversed(contents.items())))


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolicyRefused, match="over 1000 files"):
        unpack_archive(pack_archive({f"{number}.rego": b"" for number in range(BUNDLE_FILES + 1)}))
    raw = pack_archive({"a": b"x"})
    monkeypatch.setattr(bundle_archive, "UNPACKED_BYTES", 9_000)
    with pytest.raises(PolicyRefused, match="over 9000 bytes unpacked: it needs less data"):
        unpack_archive(raw)
    monkeypatch.setattr(bundle_archive, "UNPACKED_BYTES", 10_241)
    assert unpack_archive(raw) == {"a": b"x"}
    for cut in (raw[:-1], raw[: len(raw) // 2], raw + b"x", raw + raw):
        with pytest.raises(PolicyRefused, match="not one whole gzip stream"):
            unpack_archive(cut)
    monkeypatch.setattr(bundle_archive, "BUNDLE_BYTES", len(raw) - 1)
    with pytest.raises(PolicyRefused, match="the bundle has over"):
        unpack_archive(raw)


def header(kind: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    """Return an entry of a tar, whose header names another size where `size` does."""
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = kind, len(content) if size is None else size
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def packed(*entries: bytes) -> bytes:
    return gzip.compress(b"".join(entries) + bytes(2 * tarfile.BLOCKSIZE))


FILE = header(tarfile.REGTYPE, b"x")
PATH = b"13 path=b/c\n"


def test_a_path_may_be_in_an_extension() -> None:
    assert unpack_archive(packed(header(tarfile.XHDTYPE, PATH.replace(b"13", b"12")), FILE)) == {"b/c": b"x"}
    assert unpack_archive(packed(header(tarfile.GNUTYPE_LONGNAME, b"b/c\0"), FILE)) == {"b/c": b"x"}


def test_what_looks_like_an_extension_in_a_file_is_none() -> None:
    content = bytes(156) + b"x" + bytes(355)
    assert unpack_archive(packed(header(tarfile.REGTYPE, content))) == {"a": content}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_extensions_of_extensions_of_an_entry_are_few(kind: bytes) -> None:
    extension = header(kind, b"b\0" if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) else b"")
    assert list(unpack_archive(packed(*[extension] * 4, FILE)).values()) == [b"x"]
    for count in (5, 1_000):
        with pytest.raises(PolicyRefused, match="extensions"):
            unpack_archive(packed(*[extension] * count, FILE))


def test_an_extension_cannot_take_long_to_read() -> None:
    # tarfile of Python 3.11.7 takes eight seconds for 32 kB of digits, and four times as long for twice as many.
    for size in (2**14 + 1, 1_000_000):
        with pytest.raises(PolicyRefused, match="extensions"):
            unpack_archive(packed(header(tarfile.XHDTYPE, b"1" * size), FILE))
    with pytest.raises(PolicyRefused, match="extensions"):
        unpack_archive(packed(*[header(tarfile.XHDTYPE, b"1" * 1_000), FILE] * 300))


def test_entries_are_bounded_with_folders() -> None:
    folders = [header(tarfile.DIRTYPE)] * 4_000
    assert unpack_archive(packed(*folders)) == {}
    with pytest.raises(PolicyRefused, match="over 4000 entries"):
        unpack_archive(packed(*folders, FILE))
