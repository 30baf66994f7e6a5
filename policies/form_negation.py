"""`not`: where a part under it may be undefined, OPA says undefined and regorus says true.

OPA evaluates the parts of a negated expression before it, so that `not data.revoked[input.user]` without `input.user`
is undefined; in regorus the part is undefined under `not`, which is true. Both agree where every part is a literal or
a variable that has a value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sealbus.policies.syntax import (
    Array,
    Call,
    Expression,
    Infix,
    Membership,
    Number,
    ObjectLiteral,
    Place,
    Reference,
    Scalar,
    SetLiteral,
    Text,
    Variable,
)
from sealbus.policies.syntax_walk import children

__all__ = ["undefinable"]

Origin: TypeAlias = Callable[[str], str | None]
"""How a local came by its value (`argument`, `some`, `every`, `assigned`); None for what is no local with a value."""


def undefinable(expression: Expression, origin: Origin) -> tuple[Place, str] | None:
    """Return where and why two engines may disagree on `not expression`; None where they cannot.

    The expression itself may be undefined, and so may either side of ==: then `not` is true in both.
    """
    match expression:
        case Variable() | Scalar() | Text() | Number():
            return None
        case Reference():
            return _reference(expression, origin)
        case Infix(operator="Eq"):
            for side in (expression.left, expression.right):
                problem = undefinable(side, origin) if isinstance(side, Reference) else _part(side, origin)
                if problem is not None:
                    return problem
            return None
        case Infix() | Membership() | Call():
            return _first(expression, origin)
        case _:
            return expression.place, "this under `not`: name it first (x := ...), then write `not x`"


def _reference(expression: Reference, origin: Origin) -> tuple[Place, str] | None:
    if not isinstance(expression.head, Variable):
        return expression.head.place, "under `not`: name what is looked into first"
    for part in expression.path:
        if isinstance(part, Variable) and origin(part.name) == "every":
            # regorus 0.12 takes the variable for a new one, and looks for any that fits.
            text = f"{part.name} of `every` looks something up under `not`: write key := {part.name}, then use key"
            return part.place, text
        problem = _part(part, origin)
        if problem is not None:
            return problem
    return None


def _first(expression: Expression, origin: Origin) -> tuple[Place, str] | None:
    for child in children(expression):
        problem = _part(child, origin)
        if problem is not None:
            return problem
    return None


def _part(expression: Expression, origin: Origin) -> tuple[Place, str] | None:
    """Return the problem with a part that must have a value."""
    match expression:
        case Scalar() | Text() | Number():
            return None
        case Variable() if expression.name == "_" or origin(expression.name) is not None:
            return None
        case Array() | SetLiteral() | ObjectLiteral():
            return _first(expression, origin)
        case _:
            return expression.place, "under `not` this may be undefined: name it first (x := ...), then use x"
