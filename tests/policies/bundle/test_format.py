"""Bundles as bytes: written the same for the same, read with bounds."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.format import Manifest, merge_data, pack_bundle, parse_manifest, read_bundle
from sealbus.policies.lint.module import PolicyRefused

MANIFEST = b'{"revision":"r1","roots":[""],"rego_version":1}'
POLICY = b"package a\n\nx := 1\n"


def packed(files: Mapping[str, bytes], *, kinds: Mapping[str, bytes] | None = None) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.type = (kinds or {}).get(path, tarfile.REGTYPE)
            entry.size = len(content) if entry.type == tarfile.REGTYPE else 0
            if entry.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                entry.linkname = "/etc/passwd"
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue())


def test_a_bundle_reads_as_it_was_packed() -> None:
    raw = pack_bundle({"a/b.rego": POLICY}, {"n": {"m": [1, "ü"]}}, Manifest(revision="r1", roots=("a", "n")))
    found = read_bundle(raw)
    assert (found.revision, found.roots) == ("r1", ("a", "n"))
    assert [(module.path, module.text.encode()) for module in found.modules] == [("a/b.rego", POLICY)]
    assert found.data == {"n": {"m": [1, "ü"]}}
    assert found.raw == raw
    assert found.digest == hashlib.sha256(raw).digest()


def test_the_same_content_gives_the_same_bytes_and_a_revision_of_its_own() -> None:
    first = pack_bundle({"b.rego": POLICY, "a.rego": POLICY}, {"n": 1, "m": 2}, Manifest())
    again = pack_bundle({"a.rego": POLICY, "b.rego": POLICY}, {"m": 2, "n": 1}, Manifest())
    other = pack_bundle({"a.rego": POLICY, "b.rego": POLICY}, {"m": 2, "n": 2}, Manifest())
    assert first == again
    revisions = {read_bundle(raw).revision for raw in (first, other)}
    assert len(revisions) == 2
    assert all(len(revision) == 64 and int(revision, 16) for revision in revisions)
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert [(entry.name, entry.mtime, entry.uid, entry.mode) for entry in tar] == [
            (name, 0, 0, 0o644) for name in (".manifest", "a.rego", "b.rego", "data.json")
        ]


def test_what_opa_and_tar_write_is_read() -> None:
    files = {"/.manifest": MANIFEST, "/a/data.json": b'{"x": 1}', "./data.json": b'{"a": {"y": 2}}', "/p.rego": POLICY}
    found = read_bundle(packed({**files, "/.signatures.json": b"{}", "dir": b""}, kinds={"dir": tarfile.DIRTYPE}))
    assert found.data == {"a": {"x": 1, "y": 2}}
    assert [module.path for module in found.modules] == ["p.rego"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no gzip",
        gzip.compress(b"no tar" * 200),
        packed({".manifest": MANIFEST})[:-9],
        packed({".manifest": MANIFEST}) + b"more",
        packed({".manifest": MANIFEST}) + gzip.compress(b"more"),
    ],
    ids=["nothing", "no gzip", "no tar", "cut off", "bytes after it", "another member"],
)
def test_what_is_no_gzipped_tar(raw: bytes) -> None:
    with pytest.raises(PolicyRefused, match="gzip"):
        read_bundle(raw)


def test_a_tar_that_ends_in_a_file() -> None:
    archive = gzip.decompress(packed({".manifest": MANIFEST + b" " * 4096}))
    with pytest.raises(PolicyRefused, match=r"cut off|gzipped tar"):
        read_bundle(gzip.compress(archive[:1024]))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"../a.rego": POLICY}, "not a path"),
        ({"a/../b.rego": POLICY}, "not a path"),
        ({"//a.rego": POLICY}, "not a path"),
        ({"a\\b.rego": POLICY}, "not a path"),
        ({"a\x01.rego": POLICY}, "not a path"),
        ({"a b.rego": POLICY}, "not a path"),
        ({"a.rego": POLICY, "/a.rego": POLICY}, "path is repeated"),
        ({"a.rego": b"\xff"}, "not UTF-8"),
        ({"a_test.rego": POLICY}, "without tests"),
        ({"a.json": b"{}"}, "a bundle holds"),
        ({"data.yaml": b"{}"}, "a bundle holds"),
        ({"policy.wasm": b""}, "a bundle holds"),
        ({"data.json": b"[]"}, "not a data document"),
        ({"data.json": b'{"a": 1.5}'}, "fraction"),
        ({"data.json": b'{"a": 1}', "a/data.json": b'{"b": 1}'}, "another document"),
        ({"data.json": b'{"a": {"b": 1}}', "a/data.json": b'{"b": 1}'}, "another document"),
    ],
)
def test_files_that_have_no_place(files: dict[str, bytes], why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        read_bundle(packed({".manifest": MANIFEST, **files}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_special_files(kind: bytes) -> None:
    with pytest.raises(PolicyRefused, match="links or special"):
        read_bundle(packed({".manifest": MANIFEST, "a.rego": b""}, kinds={"a.rego": kind}))


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"[]", b"{}", b'{"revision": ""}', b'{"revision": 1}', b'{"revision": "a\\n"}',
        b'{"revision": "r", "roots": "a"}',
        b'{"revision": "r", "roots": []}', b'{"revision": "r", "roots": [1]}', b'{"revision": "r", "rego_version": 0}',
        b'{"revision": "r", "wasm": []}', b'{"revision": "r", "file_rego_versions": {"/a.rego": 0}}',
    ],
)  # fmt: skip
def test_manifests_that_are_not_understood(manifest: bytes) -> None:
    with pytest.raises(PolicyRefused, match=r"\.manifest"):
        read_bundle(packed({".manifest": manifest}))


def test_no_manifest() -> None:
    with pytest.raises(PolicyRefused, match="build it with a revision"):
        read_bundle(packed({"a.rego": POLICY}))


def test_a_manifest_with_metadata() -> None:
    assert parse_manifest(b'{"roots": ["a"], "metadata": {"team": "x"}}') == Manifest(roots=("a",))


def test_a_serial_goes_with_the_manifest() -> None:
    raw = pack_bundle({"a.rego": POLICY}, {}, Manifest(serial=7, parts={"team": "r-1"}))
    assert read_bundle(raw).serial == 7
    assert read_bundle(pack_bundle({"a.rego": POLICY}, {}, Manifest(parts={"team": "r-1"}))).serial == 0


@pytest.mark.parametrize(
    "metadata", [b"[]", b'{"sealbus":1}', b'{"sealbus":{"serial":-1}}', b'{"sealbus":{"serial":true}}',
                 b'{"sealbus":{"serial":"7"}}']
)  # fmt: skip
def test_serials_that_are_none(metadata: bytes) -> None:
    with pytest.raises(PolicyRefused, match="serial"):
        parse_manifest(b'{"metadata": ' + metadata + b"}")


def test_a_module_beyond_its_own_bounds() -> None:
    with pytest.raises(PolicyRefused, match="nest"):
        read_bundle(packed({".manifest": MANIFEST, "a.rego": b"[" * 20}))


def test_merging_keeps_both() -> None:
    data: dict[str, Json] = {"a": {"x": 1}}
    merge_data(data, "a/b/data.json", json.dumps({"y": 2}).encode())
    assert data == {"a": {"x": 1, "b": {"y": 2}}}


@pytest.mark.parametrize(
    ("folders", "depth", "refused"),
    [(20, 12, False), (20, 13, True), (31, 1, False), (32, 1, True), (3_000, 1, True)],
)
def test_folders_and_data_are_nested_to_the_bound_of_one_document(folders: int, depth: int, refused: bool) -> None:
    """In the archive of a composition they are one document, which nobody could read beyond that."""
    content = (b'{"a":' * depth + b"1" + b"}" * depth) if depth else b"1"
    path = "a/" * folders + "data.json"
    data: dict[str, Json] = {}
    if refused:
        with pytest.raises(PolicyRefused, match="folders and data are nested over 32 deep"):
            merge_data(data, path, content)
    else:
        merge_data(data, path, content)
        assert read_bundle(pack_bundle({}, data, Manifest())).data == data
