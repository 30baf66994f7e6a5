"""Parts that may be undefined under `not`, and lookups in the data on which the engines differ.

OPA evaluates the parts of a negated expression first. So `not data.revoked[input.user]` is undefined without `input.user`.
In regorus the whole expression under `not` is undefined, so the `not` is true. The engines agree if every part is a literal
or a variable with a value. OPA also accepts a text of digits as the index of an array in the data; regorus finds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import Problem
from sealbus.policies.lint.rules import data_aliases

Origin: TypeAlias = Callable[[str], str | None]
"""How a local got its value (`argument`, `some`, `every`, `assigned`); None for anything but a local with a value."""


def undefinable(expression: syntax.Expression, origin: Origin) -> tuple[syntax.Place, str] | None:
    """Return where and why the engines may disagree on `not expression`; None if they cannot disagree.

    The expression itself may be undefined, and so may a side of ==. Then `not` is true in both engines.
    """
    match expression:
        case syntax.Variable() | syntax.Scalar() | syntax.Text() | syntax.Number():
            return None
        case syntax.Reference():
            return _reference(expression, origin)
        case syntax.Infix(operator="Eq"):
            for side in (expression.left, expression.right):
                problem = undefinable(side, origin) if isinstance(side, syntax.Reference) else _part(side, origin)
                if problem is not None:
                    return problem
            return None
        case syntax.Infix() | syntax.Membership() | syntax.Call():
            return _first(expression, origin)
        case _:
            return expression.place, "this cannot be under `not`: name it first (x := ...), then write `not x`"


def _reference(expression: syntax.Reference, origin: Origin) -> tuple[syntax.Place, str] | None:
    if not isinstance(expression.head, syntax.Variable):
        return (
            expression.head.place,
            "a lookup under `not` needs a name: name the value first (x := ...), then look into x",
        )
    for part in expression.path:
        if isinstance(part, syntax.Variable) and origin(part.name) == "every":
            # regorus 0.12 treats the variable as new, and accepts any value that fits.
            text = f"{part.name} of `every` is a key under `not`: write key := {part.name}, then use key"
            return part.place, text
        problem = _part(part, origin)
        if problem is not None:
            return problem
    return None


def _first(expression: syntax.Expression, origin: Origin) -> tuple[syntax.Place, str] | None:
    for child in syntax.children(expression):
        problem = _part(child, origin)
        if problem is not None:
            return problem
    return None


def _part(expression: syntax.Expression, origin: Origin) -> tuple[syntax.Place, str] | None:
    """Return where and why a part may have no value; None if it has one."""
    match expression:
        case syntax.Scalar() | syntax.Text() | syntax.Number():
            return None
        case syntax.Variable() if expression.name == "_" or origin(expression.name) is not None:
            return None
        case syntax.Array() | syntax.SetLiteral() | syntax.ObjectLiteral():
            return _first(expression, origin)
        case _:
            return expression.place, "under `not` this may be undefined: name it first (x := ...), then use x"


def lookup_problems(file: syntax.File, rule: syntax.Rule, data: Json) -> Iterator[Problem]:
    """Yield every place in `rule` where `data` has an array and the key may be no index."""
    aliases = data_aliases(file)
    counted = {
        variable.name
        for statement in syntax.statements(rule)
        if isinstance(statement, syntax.SomeNames)
        for variable in statement.names
    }
    for expression in syntax.every_expression(rule):
        if not isinstance(expression, syntax.Reference) or not isinstance(expression.head, syntax.Variable):
            continue
        before = aliases.get(expression.head.name, (expression.head.name,))
        if before[0] == "data":
            place = _misplaced_lookup(data, before[1:], expression.path, counted)
            if place is not None:
                text = "the data has an array here: use `some x in` it, or make it an object"
                yield Problem.at(file.path, place, "lookup", text)


def _misplaced_lookup(
    data: Json, before: syntax.Names, path: tuple[syntax.Expression, ...], counted: set[str]
) -> syntax.Place | None:
    values: list[Json] = [data]
    for name in before:
        values = [value[name] for value in values if isinstance(value, dict) and name in value]
    for part in path:
        arrays = any(isinstance(value, list) for value in values)
        if (
            arrays
            and not isinstance(part, syntax.Number)
            and not (isinstance(part, syntax.Variable) and part.name in {"_", *counted})
        ):
            return part.place
        if isinstance(part, syntax.Text):
            values = [value[part.value] for value in values if isinstance(value, dict) and part.value in value]
        else:
            values = [item for value in values for item in _items(value)]
    return None


def _items(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
