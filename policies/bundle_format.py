"""The OPA bundle format: a gzipped tar of `.manifest`, Rego files and `data.json` under the folders of their data path.

Reading is for files that anybody may have written: everything is bounded before it is believed. Signatures are not
verified here.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealbus.envelopes.codec import is_text
from sealbus.envelopes.strict_json import Json
from sealbus.policies.documents import DataDocument, canonical, parse_data
from sealbus.policies.modules import Module
from sealbus.policies.problems import PolicyRefused, Problem

__all__ = [
    "BUNDLE_BYTES",
    "BUNDLE_FILES",
    "TEST_SUFFIX",
    "UNPACKED_BYTES",
    "Bundle",
    "Manifest",
    "merge_data",
    "pack_bundle",
    "parse_manifest",
    "read_bundle",
]

BUNDLE_BYTES: Final = 8_388_608
"""Of the file itself."""
UNPACKED_BYTES: Final = 33_554_432
"""Of the tar inside; OPA keeps about twenty times the size of its data in memory."""
BUNDLE_FILES: Final = 1_000
TEST_SUFFIX: Final = "_test.rego"
"""Files that end so never become part of a bundle."""

_MANIFEST: Final = ".manifest"
_SIGNATURES: Final = ".signatures.json"
_KNOWN: Final = frozenset({"revision", "roots", "rego_version", "metadata"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a `.manifest` says: the paths, parts joined by `/`, that the bundle may define; the empty one is everything.

    `revision` is empty where none is said.
    """

    revision: str = ""
    roots: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose files are well formed. Whether its policy may be put in force, `check_bundle` says.

    `raw` are the bytes of the file; `data` is one document of all that it holds, no number in it with a fraction.
    """

    revision: str
    roots: tuple[str, ...]
    modules: tuple[Module, ...]
    data: DataDocument = field(repr=False)
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of the file."""
        return sha256(self.raw).digest()


def pack_bundle(modules: Mapping[str, bytes], data: DataDocument, manifest: Manifest) -> bytes:
    """Return the bytes of a bundle of `modules` (by path) and `data`, equal for equal contents.

    Without a revision it is the first 20 hexadecimal digits of the SHA-256 of all contents. Nothing is checked: read
    what was packed, then `check_bundle`.
    """
    contents = {**modules, "data.json": canonical(data)}
    roots: list[Json] = list(manifest.roots)
    revision = manifest.revision
    if not revision:
        summary = sha256(canonical(roots))
        for path, content in sorted(contents.items()):
            summary.update(f"{path}\0{len(content)}\0".encode() + content)
        revision = summary.hexdigest()[:20]
    contents[_MANIFEST] = canonical({"revision": revision, "roots": roots, "rego_version": 1})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(contents.items()):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


def read_bundle(raw: bytes) -> Bundle:
    """Return the bundle that `raw` is; raise `PolicyRefused` for anything unusual in it.

    Refused are: over 8 MiB packed, 32 MiB unpacked or 1,000 files; links, devices and other special entries; absolute
    paths, `..`, a path twice; any file but `.manifest`, `*.rego`, `data.json` and `.signatures.json`; test files; a
    manifest without a revision, with another Rego version or with keys that change what OPA does; data that two engines
    might read otherwise.
    """
    if len(raw) > BUNDLE_BYTES:
        raise _refused("", f"the bundle has over {BUNDLE_BYTES} bytes")
    contents = _unpack(raw)
    contents.pop(_SIGNATURES, None)
    if _MANIFEST not in contents:
        raise _refused(_MANIFEST, "the bundle has none: build it with a revision")
    manifest = parse_manifest(contents.pop(_MANIFEST))
    if not manifest.revision:
        raise _refused(_MANIFEST, "a bundle has a revision")
    modules: list[Module] = []
    data: DataDocument = {}
    for path, content in contents.items():
        if path == "data.json" or path.endswith("/data.json"):
            merge_data(data, path, content)
        elif path.endswith(".rego") and not path.endswith(TEST_SUFFIX):
            modules.append(_module(path, content))
        else:
            raise _refused(path, "a bundle holds .manifest, data.json and *.rego that are no tests")
    return Bundle(revision=manifest.revision, roots=manifest.roots, modules=tuple(modules), data=data, raw=raw)


def parse_manifest(content: bytes) -> Manifest:
    """Return what the `.manifest` with this `content` says; raise `PolicyRefused` for what is not understood."""
    try:
        manifest = parse_data(content)
    except ValueError as error:
        raise _refused(_MANIFEST, str(error)) from error
    revision, roots = manifest.get("revision", ""), manifest.get("roots", [""])
    if not isinstance(revision, str) or not is_text(revision):
        raise _refused(_MANIFEST, "revision is not a text of at most 256 bytes")
    names = [root for root in roots if isinstance(root, str)] if isinstance(roots, list) else []
    if not names or not isinstance(roots, list) or len(names) != len(roots):
        raise _refused(_MANIFEST, "roots are not an array of texts")
    if manifest.get("rego_version", 1) != 1 or not manifest.keys() <= _KNOWN:
        raise _refused(_MANIFEST, "only revision, roots, rego_version 1 and metadata are understood")
    return Manifest(revision=revision, roots=tuple(names))


def merge_data(data: DataDocument, path: str, content: bytes) -> None:
    """Put the document `content` of the file `path` into `data`, under the path of its folder, as OPA does."""
    try:
        document: Json = parse_data(content)
    except ValueError as error:
        raise _refused(path, f"not a data document: {error}") from error
    for folder in reversed(path.split("/")[:-1]):
        document = {folder: document}
    _merge(data, document, path)


def _merge(data: DataDocument, document: Json, path: str) -> None:
    for name, value in document.items() if isinstance(document, dict) else ():
        there = data.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value, path)
        elif name in data:
            raise _refused(path, f"{name} stands in another document already")
        else:
            data[name] = value


def _module(path: str, content: bytes) -> Module:
    try:
        return Module(path=path, text=content.decode())
    except UnicodeDecodeError as error:
        raise _refused(path, "the file is not UTF-8") from error
    except ValueError as error:
        raise _refused(path, str(error)) from error


def _unpack(raw: bytes) -> dict[str, bytes]:
    unpacker = zlib.decompressobj(wbits=31)  # gzip alone, and no more than is asked for
    try:
        archive = unpacker.decompress(raw, UNPACKED_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise _refused("", f"not one whole gzip stream of at most {UNPACKED_BYTES} bytes unpacked")
        return _untar(archive)
    except (zlib.error, tarfile.TarError, ValueError) as error:
        raise _refused("", f"not a gzipped tar: {error}") from error


def _untar(archive: bytes) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for entry in tar:
            if entry.isdir():
                continue
            path = _path(entry)
            if path in contents:
                raise _refused(path, "the file is there twice")
            if len(contents) == BUNDLE_FILES:
                raise _refused("", f"over {BUNDLE_FILES} files")
            # Read from the bytes in hand, not by name: the tar cannot lead anywhere else.
            start = entry.offset_data
            contents[path] = archive[start : start + entry.size]
            if len(contents[path]) != entry.size:
                raise _refused(path, "the file is cut off")
    return contents


def _path(entry: tarfile.TarInfo) -> str:
    """Return the path of a file entry; `opa build` starts its paths with `/`, tar of a folder with `./`."""
    path = entry.name.removeprefix("/").removeprefix("./")
    if not entry.isreg() or entry.issparse():
        raise _refused(path, "links and special files have no place in a bundle")
    if any(part in ("", ".", "..") for part in path.split("/")) or not path.isprintable() or "\\" in path:
        raise _refused(ascii(entry.name), "not a path inside the bundle")
    return path


def _refused(path: str, text: str) -> PolicyRefused:
    return PolicyRefused([Problem(file=path or "the bundle", line=0, column=0, form="bundle", text=text)])
