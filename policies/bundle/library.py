"""The library of policies: Rego and data under `sealbus/lib`, which every build puts into the bundle.

A project's own policy imports it (`import data.sealbus.lib.rules`) and adds only its own rules. The bundle holds the
library's text, so its revision, its signature and every replay are exact. A newer sealbus adds its newer library at the next
build. With teams, the platform's bundle carries the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sealbus.policies.bundle.ownership import TEAMS_ROOT
from sealbus.policies.bundle.revocations import REVOCATIONS_ROOT
from sealbus.policies.decision.documents import DataDocument
from sealbus.policies.lint.module import LIBRARY, Module, PolicyRefused, Problem

LIBRARY_FOLDER: Final = Path(__file__).parents[1] / "library"
LIBRARY_ROOT: Final = "/".join(LIBRARY)

OWN_LIBRARY: Final = (
    f"{LIBRARY_ROOT} is the library's place, and sealbus puts the library into each bundle: move this elsewhere"
)
"""Why a project's own file is refused at the library's path."""


@cache
def library_files() -> Mapping[str, bytes]:
    """Return the files of the library by their paths in a bundle. Reads the installed package once."""
    files = {
        file.relative_to(LIBRARY_FOLDER).as_posix(): file.read_bytes()
        for file in sorted(LIBRARY_FOLDER.rglob("*"))
        if file.suffix == ".rego" or file.name == "data.json"
    }
    return MappingProxyType(files)


@cache
def library_modules() -> tuple[Module, ...]:
    """Return the Rego files of the library. A team's part is checked with their functions."""
    return tuple(
        Module(path=path, text=content.decode()) for path, content in library_files().items() if path.endswith(".rego")
    )


def in_library(path: str) -> bool:
    """Return whether the file `path` of a bundle belongs to the library."""
    return path.startswith(f"{LIBRARY_ROOT}/")


def of_library(modules: Iterable[Module]) -> tuple[Module, ...]:
    """Return the `modules` that belong to the library."""
    return tuple(module for module in modules if in_library(module.path))


def carries_library(roots: Sequence[str]) -> bool:
    """Return whether a bundle with these `roots` carries the library: all except the parts of teams and revocations."""
    others = ("/".join(TEAMS_ROOT), REVOCATIONS_ROOT)
    return not all(any(f"{root}/".startswith(f"{other}/") for other in others) for root in roots)


def with_library_root(roots: Sequence[str]) -> tuple[str, ...]:
    """Return `roots` without those below the library's root, and with that root unless another root includes it."""
    roots = [root for root in roots if not in_library(root.strip("/"))]
    above = any(f"{LIBRARY_ROOT}/".startswith(f"{root}/") for root in (root.strip("/") for root in roots) if root)
    return tuple(roots) if above or "" in roots else (*roots, LIBRARY_ROOT)


def refuse_own_library(path: str, data: DataDocument) -> None:
    """Raise `PolicyRefused` if the file `path` of a policy folder, or the `data` so far, is under the library's root."""
    above = data.get(LIBRARY[0])
    if in_library(path) or (isinstance(above, dict) and LIBRARY[1] in above):
        raise PolicyRefused([Problem.of_whole(path, "library", OWN_LIBRARY)])
