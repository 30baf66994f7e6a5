"""The library of policies: Rego and data under `sealbus/lib`, which every build lays into the bundle.

A project's own policy imports it (`import data.sealbus.lib.rules`) and says only what is special about it. The bundle holds
the library's text, so that its revision, its signature and every replay are exact; a newer sealbus brings its library with
the next build. With teams it is the platform's bundle that carries it.
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

OWN_LIBRARY: Final = f"{LIBRARY_ROOT} is the library's, which sealbus lays into each bundle: put this elsewhere"
"""Why a project's own file is refused there."""


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
    """Return the Rego files of the library, whose functions a team's part is checked with."""
    return tuple(
        Module(path=path, text=content.decode()) for path, content in library_files().items() if path.endswith(".rego")
    )


def in_library(path: str) -> bool:
    """Return whether the file `path` of a bundle is the library's."""
    return path.startswith(f"{LIBRARY_ROOT}/")


def of_library(modules: Iterable[Module]) -> tuple[Module, ...]:
    """Return those of `modules` that are of the library."""
    return tuple(module for module in modules if in_library(module.path))


def carries_library(roots: Sequence[str]) -> bool:
    """Return whether a bundle with these `roots` carries the library: all do but the parts of teams and revocations."""
    others = ("/".join(TEAMS_ROOT), REVOCATIONS_ROOT)
    return not all(any(f"{root}/".startswith(f"{other}/") for other in others) for root in roots)


def with_library_root(roots: Sequence[str]) -> tuple[str, ...]:
    """Return `roots` with that of the library, if none of them is above it, and none below it: it has them all."""
    roots = [root for root in roots if not in_library(root.strip("/"))]
    above = any(f"{LIBRARY_ROOT}/".startswith(f"{root}/") for root in (root.strip("/") for root in roots) if root)
    return tuple(roots) if above or "" in roots else (*roots, LIBRARY_ROOT)


def refuse_own_library(path: str, data: DataDocument) -> None:
    """Raise `PolicyRefused` if the file `path` of a policy folder is under the library's root, or has put `data` there."""
    above = data.get(LIBRARY[0])
    if in_library(path) or (isinstance(above, dict) and LIBRARY[1] in above):
        raise PolicyRefused([Problem.of_whole(path, "library", OWN_LIBRARY)])
