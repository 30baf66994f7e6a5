"""How OPA's compiler compares types: it refuses to compare values that can never be equal."""

from __future__ import annotations

from sealbus.policies.lint.syntax import Array, Expression, Number, Scalar, Text
from sealbus.policies.types.value import ANY, BOOLEAN, NULL, TEXT, Type, number, row_of


def never_equal(left: Type, right: Type) -> bool:
    """Return whether OPA's compiler knows that two values differ in type, at any depth of arrays."""
    if not left.names or not right.names:
        return False
    if not left.names & right.names:
        return True
    if not left.names == right.names == {"array"} or left.items is None or right.items is None:
        return False
    if left.lengths and right.lengths and not left.lengths & right.lengths:
        return True
    return never_equal(left.items, right.items)


def incomparable(left: Type, right: Type) -> bool:
    """Return whether OPA's compiler may refuse to compare two values. It knows the names that objects are written with.

    For several objects in one collection, only their names together are known here. So this refuses more than OPA does.
    """
    if never_equal(left, right):
        return True
    common = left.names & right.names
    if left.open or right.open or left.data or right.data or len(common) != 1:
        return False
    if common == {"array"}:
        # Without rows nothing is known about the arrays, so the comparison is refused.
        return not any(_may_be_equal(row, other) for row in left.rows for other in right.rows)
    if common == {"set"} and any(
        side.items and not side.items.open and len(side.items.names) > 1 for side in (left, right)
    ):
        return True
    if common == {"object"}:
        others = dict(right.fields)
        numbered = any(side.keys is not None and not side.keys.names <= TEXT.names for side in (left, right))
        if numbered or [name for name, _ in left.fields] != list(others):
            return True
        if any(incomparable(value, others[name]) for name, value in left.fields):
            return True
    pairs = ((left.keys, right.keys), (left.items, right.items))
    return any(first is not None and second is not None and incomparable(first, second) for first, second in pairs)


def _may_be_equal(row: tuple[Type, ...] | Type, other: tuple[Type, ...] | Type) -> bool:
    """Return whether OPA's compiler compares two arrays (`Type.rows`): it does so place by place."""
    if isinstance(row, Type):
        row = (row,) * (1 if isinstance(other, Type) else len(other))
    if isinstance(other, Type):
        other = (other,) * len(row)
    return len(row) == len(other) and not any(map(incomparable, row, other))


def pattern_type(argument: Expression) -> Type:
    """Return the type that a function's argument pattern matches."""
    match argument:
        case Text():
            return TEXT
        case Number():
            return number(abs(int(argument.written)))
        case Scalar():
            return NULL if argument.value is None else BOOLEAN
        case Array():
            return row_of(*map(pattern_type, argument.items))
        case _:
            return ANY
