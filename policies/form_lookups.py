"""Looking up in the data: OPA takes a text of digits for an index of an array there, regorus finds nothing."""

from __future__ import annotations

from collections.abc import Iterator

from sealbus.envelopes.strict_json import Json
from sealbus.policies.form_rules import data_aliases
from sealbus.policies.problems import Problem
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
from sealbus.policies.syntax_walk import every_expression, statements

__all__ = ["lookup_problems"]


def lookup_problems(file: File, rule: Rule, data: Json) -> Iterator[Problem]:
    """Yield every place of `rule` that looks something other than an index up where `data` has an array."""
    aliases = data_aliases(file)
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
                yield Problem(file=file.path, line=place.line, column=place.column, form="lookup", text=text)


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
