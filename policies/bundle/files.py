"""Bundles from folders of Rego files and data documents, and the bundle file that engines watch."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.archive import BUNDLE_BYTES
from sealbus.policies.bundle.check import check_bundle, check_part
from sealbus.policies.bundle.format import (
    Bundle,
    Manifest,
    merge_data,
    pack_bundle,
    parse_manifest,
    read_bundle,
)
from sealbus.policies.bundle.library import (
    carries_library,
    library_files,
    library_modules,
    refuse_own_library,
    with_library_root,
)
from sealbus.policies.bundle.signing import BundleVerifier, newer
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import TEST_SUFFIX, PolicyRefused, Problem

STARTER: Final = Path(__file__).parents[1] / "rego"
"""The folder of the starter policy."""
EXAMPLE: Final = Path(__file__).parents[1] / "examples" / "shop"
"""The folder of a small policy that calls the library, as an example to start from."""

_LEFT_OUT: Final = frozenset({".md", ".txt"})

LOOK_EVERY: Final = 0.05
"""Seconds between two checks of the file: a quarter of the time in which a change must reach every process."""

Mark: TypeAlias = tuple[int, int, int, int]


def build_bundle(folder: Path, *, revision: str = "", serial: int = 0, denials: int = 0, part: bool = False) -> Bundle:
    """Return the checked bundle of `folder`; the same content gives the same bytes.

    The files `*.rego` become its policy. Each `data.json` becomes its data under the path of its folder. Its roots are those
    of `.manifest`, or everything without a manifest. The revision is `revision`, else that of `.manifest`, else it is derived
    from the contents. Tests (`*_test.rego`), texts (`*.md`, `*.txt`), links and names that start with a dot are left out. Any
    other file is refused, because OPA would not read it. The library and its root are added (`bundle.library`), except to
    the part of a team. `serial` and `denials` are for a bundle to be pushed (`Manifest`). A `part` is checked without entry
    points, because only the composition of all parts has them.

    Raises `PolicyRefused` with file and line, `ConfigurationError` if `folder` is not a folder. Blocks.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder: name the folder that holds the policy")
    modules: dict[str, bytes] = {}
    data: DataDocument = {}
    manifest = Manifest(denials=denials)
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if file.is_symlink() or not file.is_file():
            continue
        if path == ".manifest":
            # Which denials it had is said of the bundle that the folder was once, not of the next.
            manifest = replace(parse_manifest(file.read_bytes()), denials=denials)
        elif path.endswith(TEST_SUFFIX) or file.suffix in _LEFT_OUT or any(p.startswith(".") for p in path.split("/")):
            continue
        elif file.name == "data.json":
            merge_data(data, path, file.read_bytes())
            refuse_own_library(path, data)
        elif file.suffix == ".rego":
            refuse_own_library(path, data)
            modules[path] = file.read_bytes()
        else:
            text = "OPA reads only *.rego and data.json of a bundle: rename it, or move it away"
            raise PolicyRefused([Problem.of_whole(path, "bundle", text)])
    if revision:
        manifest = replace(manifest, revision=revision)
    if serial:
        manifest = replace(manifest, serial=serial)
    carries = carries_library(manifest.roots)
    if carries:
        manifest = replace(manifest, roots=with_library_root(manifest.roots))
        for path, content in library_files().items():
            if path.endswith(".rego"):
                modules[path] = content
            else:
                merge_data(data, path, content)
    bundle = read_bundle(pack_bundle(modules, data, manifest))
    if part:
        check_part(bundle, () if carries else library_modules())
    else:
        check_bundle(bundle)
    return bundle


def remembered_bundle(folder: Path) -> Bundle:
    """Return `build_bundle(folder)`, and build it again only if a file has changed. It is for hundreds of tests.

    Files are compared by `stat`. Raises and blocks as `build_bundle` does.
    """
    return _build_once(folder, tuple((file.as_posix(), mark(file)) for file in sorted(folder.rglob("*"))))


@lru_cache(maxsize=16)
def _build_once(folder: Path, content: tuple[tuple[str, Mark | None], ...]) -> Bundle:
    del content  # distinguishes the cached results
    return build_bundle(folder)


def load_bundle(file: Path, verifier: BundleVerifier | None = None, *, after: Bundle | None = None) -> Bundle:
    """Return the checked bundle in `file`; raise `PolicyRefused`, or `ConfigurationError` if it cannot be read.

    With a `verifier` the bundle must pass it, have a serial, and not be older than the bundle `after` (`newer`). Blocks; may
    be called in any thread.
    """
    raw = read_file(file)
    bundle = read_bundle(raw) if verifier is None else verifier.verify(raw).bundle
    if verifier is not None:
        newer(bundle, after)
    check_bundle(bundle)
    return bundle


def read_file(file: Path) -> bytes:
    """Read the bundle `file`, at most one byte over a bundle's limit; raise `ConfigurationError` on failure. Blocks."""
    try:
        with file.open("rb") as opened:
            return opened.read(BUNDLE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"the policy bundle {file} cannot be read: {error.strerror}") from error


def write_bundle(bundle: Bundle, file: Path) -> None:
    """Replace `file` with `bundle` atomically, after checking it as an engine would.

    The folder of `file` must hold nothing else that changes: OPA reloads the bundle whenever anything in it does. Blocks
    until the bytes are on disk. Raises `PolicyRefused` for a bundle that an engine would refuse. After any error the
    file is unchanged.
    """
    check_bundle(bundle)
    write_file(bundle.raw, file)


def write_file(raw: bytes, file: Path, *, durable: bool = True) -> None:
    """Replace `file` with the bytes `raw` atomically, and sync it to disk if `durable`. Blocks."""
    descriptor, name = tempfile.mkstemp(prefix=".bundle-", dir=file.parent)
    written = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(raw)
            opened.flush()
            if durable:
                os.fsync(opened.fileno())
        written.chmod(0o644)
        written.replace(file)
    finally:
        with suppress(FileNotFoundError):
            written.unlink()
    if not durable:
        return
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def mark(file: Path) -> Mark | None:
    """Return a mark that distinguishes successive files at one path, or None if there is no file; takes microseconds."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


async def changes(file: Path, since: Mark | None, *, every: float = LOOK_EVERY) -> AsyncGenerator[Mark, None]:
    """Yield the mark of `file` whenever it differs from `since`, and later from the last yielded mark.

    Take `since` before reading the file, so that no change in between is lost. A missing file is not a change. Looks every
    `every` seconds for as long as it is iterated.
    """
    while True:
        current = mark(file)
        if current is not None and current != since:
            since = current
            yield current
        await asyncio.sleep(every)
