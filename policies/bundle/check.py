"""The check of a bundle before it is put in force: forms, entry points, data against rules, roots, and compilation.

The entry points of a policy must call one function, so that a single message and a batch are decided alike.

::

    package sealbus.authz

    decision := decide(input)
    batch := [decide(request) | some request in input.batch]
    decide(request) := {"allow": true, ...} if { ... } else := {"allow": false, ...}

No other rule may read `input`. It would see one request for `decision`, and a list of requests for `batch`: its lookups in
`input` would be undefined there, and a `not` over them true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.cells import cells_of
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.library import OWN_LIBRARY, in_library
from sealbus.policies.bundle.reasons import reason_words
from sealbus.policies.bundle.revocations import issued_before
from sealbus.policies.decision.documents import canonical, in_parts
from sealbus.policies.lint import syntax
from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import LIBRARY, Module, PolicyRefused, Problem
from sealbus.policies.lint.regorus import check_compiles
from sealbus.policies.lint.undefined import lookup_problems
from sealbus.policies.types.inference import type_problems

_passed: Final[deque[tuple[bytes, bool]]] = deque(maxlen=16)
"""Recently passed bundles by contents. A process that pushes, composes and decides checks each bundle only once."""

PACKAGE: Final[syntax.Names] = ("sealbus", "authz")
DECISION: Final = "data.sealbus.authz.decision"
"""The rule that decides one request. Its input is the request."""
BATCH: Final = "data.sealbus.authz.batch"
"""The rule that decides `input.batch`, an array of requests, in order."""

_DECISION_TEXT: Final = "decision := decide(input)"
_BATCH_TEXT: Final = "batch := [decide(request) | some request in input.batch]"


def check_bundle(bundle: Bundle) -> None:
    """Raise `PolicyRefused` with all problems of `bundle`, each with file and line, if there are any.

    Takes some tens of milliseconds of processor time, and more for a large registry; may be called in any thread.
    """
    _check(bundle, whole=True)


def check_part(bundle: Bundle, library: Sequence[Module] = ()) -> None:
    """Check a part of a policy, as `check_bundle` does. A part needs no entry points.

    It may call the functions of `library`, Rego files that the composition gets from another part. Whether these can fail
    depends on the data of all parts, so only the check of the composition finds out.
    """
    _check(bundle, library, whole=False)


def _check(bundle: Bundle, library: Sequence[Module] = (), *, whole: bool) -> None:
    data = tuple(in_parts(bundle.data))
    modules = (*bundle.modules, *library)
    contents = (_contents(bundle, modules, data), whole)
    if contents in _passed:
        return
    own, problems = parse_all(bundle.modules)
    others, more = parse_all(library)
    files = [*own, *others]
    problems.extend(more)
    if not problems:
        problems.extend(refused_forms(files))
        problems.extend(entrypoint_problems(own) if whole else input_problems(own))
        problems.extend(_data_problems(own, bundle))
    if not problems:
        roots = [()] if whole else [_path(root) for root in bundle.roots]
        type_findings = type_problems(files, bundle.data, roots)
        problems.extend(problem for problem in type_findings if whole or not in_library(problem.file))
    if problems:
        raise PolicyRefused(problems)
    check_compiles(modules, data)
    _passed.append(contents)


def _contents(bundle: Bundle, modules: Iterable[Module], data: Iterable[bytes]) -> bytes:
    """Return the digest of everything that the check reads."""
    roots: list[Json] = list(bundle.roots)
    summary = sha256(canonical(roots))
    for part in data:
        summary.update(part)
    for module in modules:
        summary.update(canonical([module.path, module.text]))
    return summary.digest()


def _data_problems(files: Iterable[syntax.File], bundle: Bundle) -> Iterator[Problem]:
    for form, read in (("revocation", issued_before), ("reasons", reason_words), ("cells", cells_of)):
        try:
            read(bundle.data)
        except ValueError as error:
            yield Problem.of_whole("data.json", form, str(error))
    roots = [_path(root) for root in bundle.roots]
    for path in _tops(bundle.data, ()):
        if not any(path[: len(root)] == root for root in roots):
            text = f"{'.'.join(path)} is outside the bundle's roots"
            yield Problem.of_whole("data.json", "roots", text)
    for file in files:
        if not any(file.package[: len(root)] == root for root in roots):
            yield Problem.at(
                file.path, syntax.Place(line=1, column=1), "roots", "the package is outside the bundle's roots"
            )
        if (file.package[: len(LIBRARY)] == LIBRARY) is not in_library(file.path):
            yield Problem.at(file.path, syntax.Place(line=1, column=1), "library", OWN_LIBRARY)
        for rule in file.rules:
            path = file.package + syntax.leading_names(rule.head)
            if _stands_at(bundle.data, path):
                yield Problem.at(file.path, rule.place, "conflict", f"the data already has a value at {'.'.join(path)}")
            yield from lookup_problems(file, rule, bundle.data)


def _path(root: str) -> syntax.Names:
    return tuple(part for part in root.split("/") if part)


def _tops(data: Json, path: syntax.Names) -> Iterator[syntax.Names]:
    """Yield the paths of all values that are not objects, and of empty objects."""
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _tops(value, (*path, name))
    elif path:
        yield path


def _stands_at(data: Json, path: syntax.Names) -> bool:
    """Return whether `data` has a value at `path`, or something other than an object on the way there."""
    value: Json = data
    for name in path:
        if not isinstance(value, dict):
            return True
        if name not in value:
            return False
        value = value[name]
    return True


def entrypoint_problems(files: Sequence[syntax.File]) -> list[Problem]:
    """Return the problems with the entry points of `files`, and every other place that reads `input`."""
    problems = list(input_problems(files))
    for name, text, fits in (
        ("decision", _DECISION_TEXT, _is_decision),
        ("batch", _BATCH_TEXT, _is_batch),
        ("decide", "decide(request) := ...", _is_decide),
    ):
        definitions = [
            (file, rule)
            for file in files
            if file.package == PACKAGE
            for rule in file.rules
            if syntax.leading_names(rule.head)[:1] == (name,)
        ]
        if not definitions:
            problem = f"the policy has no {name}: package sealbus.authz needs `{text}`"
            problems.append(Problem.of_whole("the bundle", "entrypoint", problem))
        for number, (file, rule) in enumerate(definitions):
            if not fits(rule) or (number and name != "decide"):
                problems.append(
                    Problem.at(file.path, rule.place, "entrypoint", f"{name} must be exactly `{text}`, once")
                )
    return problems


def input_problems(files: Iterable[syntax.File]) -> Iterator[Problem]:
    """Yield every place outside the entry points that reads `input`."""
    for file in files:
        for rule in file.rules:
            if isinstance(rule.head, syntax.Variable) and (
                (rule.head.name == "decision" and _is_decision(rule)) or (rule.head.name == "batch" and _is_batch(rule))
            ):
                continue
            for expression in syntax.every_expression(rule):
                if syntax.leading_names(expression)[:1] == ("input",):
                    text = "only decision and batch may read input: pass the request to a function as its argument"
                    yield Problem.at(file.path, expression.place, "entrypoint", text)


def _plain(rule: syntax.Rule) -> bool:
    return rule.kind == "complete" and isinstance(rule.head, syntax.Variable) and not rule.bodies


def _is_decision(rule: syntax.Rule) -> bool:
    return _plain(rule) and _decides(rule.value, "input")


def _is_batch(rule: syntax.Rule) -> bool:
    match rule.value:
        case syntax.Comprehension(kind="array", terms=(term,), body=syntax.Body(statements=(syntax.SomeIn() as some,))):
            name = some.value.name if some.key is None and isinstance(some.value, syntax.Variable) else None
            return name is not None and _plain(rule) and _is_input_batch(some.collection) and _decides(term, name)
        case _:
            return False


def _is_input_batch(expression: syntax.Expression) -> bool:
    return (
        isinstance(expression, syntax.Reference)
        and syntax.leading_names(expression) == ("input", "batch")
        and (isinstance(expression.path[-1], syntax.Text))
    )


def _decides(expression: syntax.Expression | None, name: str) -> bool:
    match expression:
        case syntax.Call(name=("decide",), arguments=(syntax.Variable() as argument,)):
            return argument.name == name
        case _:
            return False


def _is_decide(rule: syntax.Rule) -> bool:
    return (rule.kind == "function" or rule.kind == "default") and len(rule.arguments) == 1
