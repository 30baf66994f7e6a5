"""Whether a bundle may be put in force: forms, entry points, data beside rules, roots, and that it compiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from sealbus.envelopes.strict_json import Json
from sealbus.policies.bundle_format import Bundle
from sealbus.policies.documents import canonical
from sealbus.policies.entrypoints import entrypoint_problems, input_problems
from sealbus.policies.form_lookups import lookup_problems
from sealbus.policies.form_types import type_problems
from sealbus.policies.forms import parse_all, refused_forms
from sealbus.policies.interpreter import check_compiles
from sealbus.policies.problems import PolicyRefused, Problem
from sealbus.policies.revocations import issued_before
from sealbus.policies.syntax import (
    File,
    Names,
    Place,
)
from sealbus.policies.syntax_walk import leading_names

__all__ = ["check_bundle", "check_part"]

_passed: Final[deque[tuple[bytes, bool]]] = deque(maxlen=16)
"""What passed of late, by its contents: who pushes, composes and decides in one process looks at the same only once."""


def check_bundle(bundle: Bundle) -> None:
    """Raise `PolicyRefused` with every problem of `bundle`, each with its file and line, if there is one.

    Takes some tens of milliseconds of processor time, and more for a large registry; may be asked in any thread.
    """
    _check(bundle, whole=True)


def check_part(bundle: Bundle) -> None:
    """Do as `check_bundle` for a bundle that is only part of a policy, which need not have the entry points."""
    _check(bundle, whole=False)


def _check(bundle: Bundle, *, whole: bool) -> None:
    data = canonical(bundle.data)
    seen = (_contents(bundle, data), whole)
    if seen in _passed:
        return
    files, problems = parse_all(bundle.modules)
    if not problems:
        problems.extend(refused_forms(files))
        problems.extend(entrypoint_problems(files) if whole else input_problems(files))
        problems.extend(_data_problems(files, bundle))
    if not problems:
        roots = [()] if whole else [_path(root) for root in bundle.roots]
        problems.extend(type_problems(files, bundle.data, roots))
    if problems:
        raise PolicyRefused(problems)
    check_compiles(bundle.modules, data)
    _passed.append(seen)


def _contents(bundle: Bundle, data: bytes) -> bytes:
    """Return the digest of all that is checked."""
    roots: list[Json] = list(bundle.roots)
    summary = sha256(canonical(roots) + data)
    for module in bundle.modules:
        summary.update(canonical([module.path, module.text]))
    return summary.digest()


def _data_problems(files: Iterable[File], bundle: Bundle) -> Iterator[Problem]:
    try:
        issued_before(bundle.data)
    except ValueError as error:
        yield Problem(file="data.json", line=0, column=0, form="revocation", text=str(error))
    roots = [_path(root) for root in bundle.roots]
    for path in _tops(bundle.data, ()):
        if not any(_related(path, root) for root in roots):
            text = f"{'.'.join(path)} is outside the bundle's roots"
            yield Problem(file="data.json", line=0, column=0, form="roots", text=text)
    for file in files:
        if not any(file.package[: len(root)] == root for root in roots):
            yield _problem(file, Place(line=1, column=1), "roots", "the package is outside the bundle's roots")
        for rule in file.rules:
            path = file.package + leading_names(rule.head)
            if _stands_at(bundle.data, path):
                yield _problem(file, rule.place, "conflict", f"the data has something at {'.'.join(path)} already")
            yield from lookup_problems(file, rule, bundle.data)


def _path(root: str) -> Names:
    return tuple(part for part in root.split("/") if part)


def _tops(data: Json, path: Names) -> Iterator[Names]:
    """Yield the paths of all that is no object, and of empty objects."""
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _tops(value, (*path, name))
    elif path:
        yield path


def _related(path: Names, root: Names) -> bool:
    return path[: len(root)] == root


def _stands_at(data: Json, path: Names) -> bool:
    """Say whether `data` has a value at `path`, or something other than an object on the way there."""
    value: Json = data
    for name in path:
        if not isinstance(value, dict):
            return True
        if name not in value:
            return False
        value = value[name]
    return True


def _problem(file: File, place: Place, form: str, text: str) -> Problem:
    return Problem(file=file.path, line=place.line, column=place.column, form=form, text=text)
