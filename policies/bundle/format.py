"""The OPA bundle format: a gzipped tar of `.manifest`, Rego files and `data.json` under the folders of their data path.

Files may come from anyone, so everything is bounded before it is parsed. `signing.py` verifies signatures.

A pushed bundle has a serial in its manifest, `{"metadata": {"sealbus": {"serial": 7}}}`: a positive whole number that only
grows (`newer`). OPA ignores metadata, but signs it with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, deeper_than
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.bundle.archive import (
    pack_archive,
    refused_file,
    unpack_archive,
)
from sealbus.policies.decision.documents import NESTING, DataDocument, canonical, parse_data
from sealbus.policies.lint.module import TEST_SUFFIX, Module

MANIFEST: Final = ".manifest"
SIGNATURES: Final = ".signatures.json"
_KNOWN: Final = frozenset({"revision", "roots", "rego_version", "metadata"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The contents of a `.manifest`. `roots` are the paths, joined by `/`, that the bundle may define; "" is everything.

    Without a revision `revision` is empty, without a serial `serial` is 0. The bundle has the denials up to the serial
    `denials` (`sealbus.policies.bundle.denials`). `parts` are for people: the name and revision of each bundle that this
    bundle was composed from.
    """

    revision: str = ""
    roots: tuple[str, ...] = ("",)
    serial: int = 0
    denials: int = 0
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """The data added to a bundle since it was composed. Each step has the revision before it, and its data."""

    steps: tuple[tuple[str, DataDocument], ...] = field(repr=False)

    def since(self, revision: str) -> tuple[tuple[str, DataDocument], ...]:
        """Return the steps from `revision` on, none if it is not one of those before a step."""
        for start, (before, _) in enumerate(self.steps):
            if before == revision:
                return self.steps[start:]
        return ()


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files are well formed. `check_bundle` checks whether its policy may be put in force.

    `data` is one document of all its data, without fractions. With an `extension` the bundle is another one with more data
    (`sealbus.policies.bundle.denials`), and has no `file` yet: `raw` packs it when it is first asked for.
    """

    revision: str
    roots: tuple[str, ...]
    modules: tuple[Module, ...]
    data: DataDocument = field(repr=False)
    file: bytes = field(default=b"", repr=False)
    serial: int = 0
    denials: int = 0
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)
    extension: Extension | None = None

    @cached_property
    def raw(self) -> bytes:
        """The bytes of the file. An extended bundle takes as long as its data is large."""
        if self.file:
            return self.file
        modules = {module.path: module.text.encode() for module in self.modules}
        manifest = Manifest(revision=self.revision, roots=self.roots, parts=self.parts)
        return pack_bundle(modules, self.data, manifest)

    @cached_property
    def digest(self) -> bytes:
        """Return the SHA-256 of the file."""
        return sha256(self.raw).digest()


def pack_bundle(modules: Mapping[str, bytes], data: DataDocument, manifest: Manifest) -> bytes:
    """Return the bytes of a bundle of `modules` (by path) and `data`, equal for equal contents.

    The default revision is the SHA-256 of all contents in hexadecimal digits. Nothing is checked: read the
    result, then call `check_bundle`.
    """
    contents = {**modules, "data.json": canonical(data)}
    roots: list[Json] = list(manifest.roots)
    revision = manifest.revision
    if not revision:
        summary = sha256(canonical(roots))
        for path, content in sorted(contents.items()):
            summary.update(f"{path}\0{len(content)}\0".encode() + content)
        revision = summary.hexdigest()
    contents[MANIFEST] = canonical({"revision": revision, "roots": roots, "rego_version": 1, **_metadata(manifest)})
    return pack_archive(contents)


def _metadata(manifest: Manifest) -> DataDocument:
    metadata: DataDocument = {"serial": manifest.serial} if manifest.serial else {}
    if manifest.denials:
        metadata["denials"] = manifest.denials
    if manifest.parts:
        metadata["parts"] = dict(manifest.parts)
    return {"metadata": {"sealbus": metadata}} if metadata else {}


def read_bundle(raw: bytes) -> Bundle:
    """Parse a bundle; raise `PolicyRefused` for anything unusual in it.

    It refuses: over 8 MiB packed, 32 MiB unpacked or 1,000 files; links, devices and other special entries; absolute
    paths, `..`, a repeated path; any file but `.manifest`, `*.rego`, `data.json` and `.signatures.json`; test files; a
    manifest without a revision, with another Rego version or with keys that change what OPA does; data that two engines
    might read differently.
    """
    return bundle_of(unpack_archive(raw), raw)


def bundle_of(
    contents: Mapping[str, bytes], raw: bytes, documents: Mapping[str, DataDocument] = MappingProxyType({})
) -> Bundle:
    """Return the bundle with the files `contents`, unpacked from `raw`; raise as `read_bundle` does.

    `documents` are those of its data files that are parsed already (`parse_data`).
    """
    contents = {path: content for path, content in contents.items() if path != SIGNATURES}
    if MANIFEST not in contents:
        raise refused_file(MANIFEST, "the bundle has no manifest: build it with a revision")
    manifest = parse_manifest(contents.pop(MANIFEST))
    if not manifest.revision:
        raise refused_file(MANIFEST, "a bundle must have a revision")
    modules: list[Module] = []
    data: DataDocument = {}
    for path, content in contents.items():
        if path == "data.json" or path.endswith("/data.json"):
            if path in documents:
                _check_depth(path, content)
                _merge_document(data, path, documents[path])
            else:
                merge_data(data, path, content)
        elif path.endswith(".rego") and not path.endswith(TEST_SUFFIX):
            modules.append(_module(path, content))
        else:
            raise refused_file(path, "a bundle holds only .manifest, data.json and *.rego without tests")
    return Bundle(
        revision=manifest.revision,
        roots=manifest.roots,
        modules=tuple(modules),
        data=data,
        file=raw,
        serial=manifest.serial,
        denials=manifest.denials,
    )


def parse_manifest(content: bytes) -> Manifest:
    """Parse a `.manifest`; raise `PolicyRefused` for malformed JSON, unknown keys and invalid values."""
    try:
        manifest = parse_data(content)
    except ValueError as error:
        raise refused_file(MANIFEST, str(error)) from error
    revision, roots = manifest.get("revision", ""), manifest.get("roots", [""])
    if not isinstance(revision, str) or not is_text(revision):
        raise refused_file(MANIFEST, "revision is not a text of at most 256 bytes")
    names = [root for root in roots if isinstance(root, str)] if isinstance(roots, list) else []
    if not names or not isinstance(roots, list) or len(names) != len(roots):
        raise refused_file(MANIFEST, "roots are not an array of texts")
    if manifest.get("rego_version", 1) != 1 or not manifest.keys() <= _KNOWN:
        raise refused_file(MANIFEST, "only revision, roots, rego_version 1 and metadata are understood")
    metadata = manifest.get("metadata", {})
    serial, denials = _number(metadata, "serial"), _number(metadata, "denials")
    return Manifest(revision=revision, roots=tuple(names), serial=serial, denials=denials)


def _number(metadata: Json, name: str) -> int:
    ours = metadata.get("sealbus", {}) if isinstance(metadata, dict) else None
    number = ours.get(name, 0) if isinstance(ours, dict) else None
    if type(number) is not int or not 0 <= number <= DEFAULT_LIMITS.max_integer:
        raise refused_file(MANIFEST, f"metadata.sealbus.{name} is not a whole number of 0 or more")
    return number


def merge_data(data: DataDocument, path: str, content: bytes) -> None:
    """Put the document `content` of the file `path` into `data`, under the path of its folder, as OPA does."""
    _check_depth(path, content)
    try:
        document = parse_data(content)
    except ValueError as error:
        raise refused_file(path, f"not a data document: {error}") from error
    _merge_document(data, path, document)


def _check_depth(path: str, content: bytes) -> None:
    """Raise `PolicyRefused` if the document would be nested too deep below the folders of its file."""
    folders = path.count("/")
    if folders and (folders >= NESTING or deeper_than(content.decode("utf-8", "replace"), NESTING - folders)):
        raise refused_file(path, f"folders and data are nested over {NESTING} deep")


def _merge_document(data: DataDocument, path: str, document: DataDocument) -> None:
    for folder in reversed(path.split("/")[:-1]):
        document = {folder: document}
    merge(data, document, path)


def merge(data: DataDocument, document: DataDocument, path: str) -> None:
    """Put `document`, of the file `path`, into `data`. Objects inside are copied, because other documents may share them."""
    for name, value in document.items():
        present = data.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            data[name] = present = {**present}
            merge(present, value, path)
        elif name in data:
            raise refused_file(path, f"another document already has {name}")
        else:
            data[name] = value


def _module(path: str, content: bytes) -> Module:
    try:
        return Module(path=path, text=content.decode())
    except UnicodeDecodeError as error:
        raise refused_file(path, "the file is not UTF-8") from error
    except ValueError as error:
        raise refused_file(path, str(error)) from error
