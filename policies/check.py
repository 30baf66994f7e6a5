"""Whether a bundle may be put in force: forms, entry points, data beside rules, roots, and that it compiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sealbus.envelopes.strict_json import Json
from sealbus.policies.bundle_format import Bundle
from sealbus.policies.documents import canonical
from sealbus.policies.entrypoints import entrypoint_problems
from sealbus.policies.forms import parse_all, refused_forms
from sealbus.policies.interpreter import Interpreter
from sealbus.policies.problems import PolicyRefused, Problem
from sealbus.policies.syntax import (
    Expression,
    File,
    Names,
    Number,
    Place,
    Reference,
    Rule,
    SomeNames,
    Text,
    Variable,
)
from sealbus.policies.syntax_walk import every_expression, leading_names, statements

__all__ = ["check_bundle"]


def check_bundle(bundle: Bundle) -> None:
    """Raise `PolicyRefused` with every problem of `bundle`, each with its file and line, if there is one.

    Takes some milliseconds, all of them processor time, in whatever thread it is asked.
    """
    files, problems = parse_all(bundle.modules)
    if not problems:
        problems.extend(refused_forms(files))
        problems.extend(entrypoint_problems(files))
        problems.extend(_data_problems(files, bundle))
    if problems:
        raise PolicyRefused(problems)
    Interpreter(bundle.modules, canonical(bundle.data))


def _data_problems(files: Iterable[File], bundle: Bundle) -> Iterator[Problem]:
    roots = [tuple(part for part in root.split("/") if part) for root in bundle.roots]
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
            yield from _lookups(file, rule, bundle.data)


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


def _lookups(file: File, rule: Rule, data: Json) -> Iterator[Problem]:
    """Refuse to look a text up in an array of data: OPA takes digits for an index there, regorus does not."""
    aliases = {one.alias: one.path for one in file.imports if one.path[0] == "data"}
    counted = {
        variable.name
        for statement in statements(rule)
        if isinstance(statement, SomeNames)
        for variable in statement.names
    }
    for expression in every_expression(rule):
        if not isinstance(expression, Reference) or not isinstance(expression.head, Variable):
            continue
        before = aliases.get(expression.head.name, (expression.head.name,))
        if before[0] == "data":
            place = _looked_up(data, before[1:], expression.path, counted)
            if place is not None:
                text = "the data has an array here: take `some x in` it, or keep what is looked up in an object"
                yield _problem(file, place, "lookup", text)


def _looked_up(data: Json, before: Names, path: tuple[Expression, ...], counted: set[str]) -> Place | None:
    values: list[Json] = [data]
    for name in before:
        values = [value[name] for value in values if isinstance(value, dict) and name in value]
    for part in path:
        arrays = any(isinstance(value, list) for value in values)
        if (
            arrays
            and not isinstance(part, Number)
            and not (isinstance(part, Variable) and part.name in {"_", *counted})
        ):
            return part.place
        if isinstance(part, Text):
            values = [value[part.value] for value in values if isinstance(value, dict) and part.value in value]
        else:
            values = [item for value in values for item in _items(value)]
    return None


def _items(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _problem(file: File, place: Place, form: str, text: str) -> Problem:
    return Problem(file=file.path, line=place.line, column=place.column, form=form, text=text)
