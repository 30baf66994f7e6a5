"""The closed list of builtins: the types of their arguments and results.

Each builtin was compared with OPA for values of exactly these types (tests/policies/types/test_builtins.py), and with
generated policies at the edges of numbers and text (`make policies-hour`). For these types both engines give the same value,
never an error or undefined. For other types an engine fails, or the engines differ: `count` of a text counts bytes in one
engine and characters in the other. If a type is not known when a policy is loaded, the policy must check it
(`is_string(x)`).

All other builtins are refused, for one of these reasons: regorus does not have it (`crypto`, `io.jwt`, `net.cidr_merge`) or
leaves it undefined (`http.send`); it reads a clock, a random number or the process (`time.now_ns`, `rand.intn`,
`opa.runtime`); the engines differ for some value (`lower` of a Greek sigma, `json.marshal` of `<`, `to_number` of " 1",
`object.subset` of arrays, `glob.match` of a text with U+0000, `walk` before an `every`); or it was not compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint.syntax import Expression, Number, Text
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.value import (
    ANY,
    BOOLEAN,
    JSON,
    NEVER,
    TEXT,
    Type,
    array_of,
    join,
    join_all,
    narrowed,
    number,
    record,
    set_of,
)

LARGE: Final = (1 << 63) - 1
"""The greatest instant in nanoseconds that both engines convert to a date, in 2262; OPA rounds `abs` of larger numbers."""
_INSTANT_MOST: Final = DEFAULT_LIMITS.max_integer * 1_000
"""The greatest instant of a request, which is counted in microseconds."""

_ITEMS: Final = 1 << 64
"""More items than fit into any memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a builtin. `text` describes it; `fits` returns whether an expression of a type is valid for it."""

    text: str
    fits: Callable[[Expression, Type, DataTypes], bool]
    names: tuple[str, ...]
    """The types that the argument may have. `fits` may require more."""


Result: TypeAlias = "Callable[[Sequence[Expression], Sequence[Type], DataTypes], Type]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """One builtin of the closed list. A `partial` builtin is undefined for some arguments."""

    arguments: tuple[Argument, ...]
    result: Result
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator between two values: its `written` form, and the types that its `sides` may have; empty for any type."""

    written: str
    sides: tuple[str, ...] = ()


def mixed(*types: Type) -> bool:
    """Return whether values of `types` may hold both sets and objects, which the engines order differently."""
    return all(any(type_.may_hold(name) for type_ in types) for name in ("set", "object"))


def _within(type_: Type, *names: str) -> bool:
    return type_.names <= frozenset(names)


def _of(text: str, *names: str) -> Argument:
    return Argument(text=text, names=names, fits=lambda _, type_, __: _within(type_, *names))


def _holding(text: str, collections: tuple[str, ...], items: str) -> Argument:
    return Argument(
        text=text,
        names=collections,
        fits=lambda _, type_, data: _within(type_, *collections) and _within(data.items(type_), items),
    )


def _number(text: str, most: int) -> Argument:
    return Argument(
        text=text, names=("number",), fits=lambda _, type_, __: _within(type_, "number") and type_.most <= most
    )


def _literal_number(text: str, pattern: str) -> Argument:
    form = re.compile(pattern)
    return Argument(
        text=text,
        names=("number",),
        fits=lambda expression, _, __: (
            isinstance(expression, Number) and form.fullmatch(expression.written) is not None
        ),
    )


def _literal_text(text: str) -> Argument:
    return Argument(
        text=text,
        names=("text",),
        fits=lambda expression, _, __: isinstance(expression, Text) and expression.value != "",
    )


def _literal(expression: Expression, _: Type, __: DataTypes) -> bool:
    return isinstance(expression, Text)


def _affixes(_: Expression, type_: Type, data: DataTypes) -> bool:
    return _within(type_, "text", "array", "set") and (type_.scalar or _within(data.items(type_), "text"))


def _ordered(_: Expression, type_: Type, data: DataTypes) -> bool:
    return _within(type_, "array", "set") and not mixed(data.items(type_))


def _shown(_: Expression, type_: Type, data: DataTypes) -> bool:
    return _within(type_, "array") and _within(data.items(type_), "text", "number", "boolean", "null")


_ANYTHING: Final = Argument(text="anything", names=(), fits=lambda *_: True)
_TEXT: Final = _of("text", "text")
_ARRAY: Final = _of("array", "array")
_OBJECT: Final = _of("object", "object")
_SET: Final = _of("set", "set")
_LIST: Final = Argument(text="array or set, not of both sets and objects", names=("array", "set"), fits=_ordered)
_NUMBERS: Final = _holding("array or set of numbers", ("array", "set"), "number")
_SETS: Final = _holding("set of sets", ("set",), "set")
_PLACE: Final = _number("number within 2^53", DEFAULT_LIMITS.max_integer)
_NAMES: Final = _of("array, set or object", "array", "set", "object")
_AFFIX: Final = Argument(text="text, or array or set of texts", names=("text", "array", "set"), fits=_affixes)
_LARGE: Final = _number("number within 2^63", LARGE)


def _gives(type_: Type) -> Result:
    return lambda *_: type_


def _first(_: Sequence[Expression], types: Sequence[Type], __: DataTypes) -> Type:
    return narrowed(types[0], frozenset({"object"}))


def _item(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return data.items(types[0])


def _member(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return narrowed(join(set_of(NEVER), data.items(types[0])), frozenset({"set"}))


def _array(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return array_of(data.items(types[0]))


def _joined(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return array_of(join(data.items(types[0]), data.items(types[1])))


def _merged(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    """Return the type of two objects merged at every depth: each value comes from one of them, or is merged itself."""
    merged = [data.items(type_) if "array" in type_.names else type_ for type_ in types]
    values = [data.items(type_) for type_ in merged]
    if not any("object" in type_.names for type_ in values):
        return narrowed(join_all([record({}), *merged]), frozenset({"object"}))
    return narrowed(JSON if all(type_.holds_json for type_ in merged) else ANY, frozenset({"object"}))


def _get(arguments: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    looked_in, key, otherwise = types
    if isinstance(arguments[1], Text):
        value = data.field(looked_in, arguments[1].value)
    elif "array" in key.names:
        # An array key is a path into nested values.
        value = JSON if looked_in.holds_json else ANY
    else:
        value = data.items(looked_in)
    return join(value, otherwise)


def _keys(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return set_of(data.keys(types[0]))


def _total(_: Sequence[Expression], types: Sequence[Type], data: DataTypes) -> Type:
    return number(data.items(types[0]).most * _ITEMS)


def _size(_: Sequence[Expression], types: Sequence[Type], __: DataTypes) -> Type:
    return number(types[0].most)


def _takes(*arguments: Argument, gives: Type | Result, partial: bool = False) -> Builtin:
    return Builtin(arguments=arguments, result=_gives(gives) if isinstance(gives, Type) else gives, partial=partial)


_COUNTED: Final = number(DEFAULT_LIMITS.max_integer)
_TEXT_ARRAY: Final = array_of(TEXT)

BUILTINS: Final[Mapping[str, Builtin]] = {
    "abs": _takes(_LARGE, gives=_size),
    "array.concat": _takes(_ARRAY, _ARRAY, gives=_joined),
    "array.reverse": _takes(_ARRAY, gives=_array),
    "array.slice": _takes(_ARRAY, _PLACE, _PLACE, gives=_array),
    "concat": _takes(_TEXT, _holding("array or set of texts", ("array", "set"), "text"), gives=TEXT),
    "contains": _takes(_TEXT, _TEXT, gives=BOOLEAN),
    "count": _takes(_NAMES, gives=_COUNTED),
    "endswith": _takes(_TEXT, _TEXT, gives=BOOLEAN),
    "format_int": _takes(
        _of("number", "number"), _literal_number("the literal 2, 8, 10 or 16", "2|8|10|16"), gives=TEXT
    ),
    "intersection": _takes(_SETS, gives=_member),
    **dict.fromkeys(
        ("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string"),
        _takes(_ANYTHING, gives=BOOLEAN),
    ),
    "max": _takes(_LIST, gives=_item, partial=True),
    "min": _takes(_LIST, gives=_item, partial=True),
    "object.filter": _takes(_OBJECT, _NAMES, gives=_first),
    "object.get": _takes(_OBJECT, _ANYTHING, _ANYTHING, gives=_get),
    "object.keys": _takes(_OBJECT, gives=_keys),
    "object.remove": _takes(_OBJECT, _NAMES, gives=_first),
    "object.subset": _takes(_SET, _SET, gives=BOOLEAN),
    "object.union": _takes(_OBJECT, _OBJECT, gives=_merged),
    "object.union_n": _takes(_holding("array of objects", ("array",), "object"), gives=_merged),
    "regex.match": _takes(Argument(text="literal text", names=("text",), fits=_literal), _TEXT, gives=BOOLEAN),
    "replace": _takes(_TEXT, _literal_text("literal text, not empty"), _TEXT, gives=TEXT),
    "sort": _takes(_LIST, gives=_array),
    "split": _takes(_TEXT, _TEXT, gives=_TEXT_ARRAY),
    "sprintf": _takes(
        Argument(text="literal text with %v and %%", names=("text",), fits=_literal),
        Argument(
            text="literal array of texts, numbers, booleans and nulls, one for each %v", names=("array",), fits=_shown
        ),
        gives=TEXT,
    ),
    "startswith": _takes(_TEXT, _TEXT, gives=BOOLEAN),
    "strings.any_prefix_match": _takes(_AFFIX, _AFFIX, gives=BOOLEAN),
    "strings.any_suffix_match": _takes(_AFFIX, _AFFIX, gives=BOOLEAN),
    "strings.reverse": _takes(_TEXT, gives=TEXT),
    "substring": _takes(_TEXT, _literal_number("literal number", "[0-9]{1,16}"), _PLACE, gives=TEXT),
    "sum": _takes(_NUMBERS, gives=_total),
    "time.clock": _takes(_LARGE, gives=array_of(number(60))),
    "time.date": _takes(_LARGE, gives=array_of(number(9_999))),
    "time.parse_rfc3339_ns": _takes(
        Argument(
            text="context.time of a request, or a literal such as 2026-11-24T14:00:00Z",
            names=("text",),
            fits=lambda expression, type_, _: (
                isinstance(expression, Text) or (type_.instant and _within(type_, "text"))
            ),
        ),
        gives=number(_INSTANT_MOST),
    ),
    "time.weekday": _takes(_LARGE, gives=TEXT),
    **dict.fromkeys(
        ("trim", "trim_left", "trim_prefix", "trim_right", "trim_suffix"), _takes(_TEXT, _TEXT, gives=TEXT)
    ),
    "trim_space": _takes(_TEXT, gives=TEXT),
    "type_name": _takes(_ANYTHING, gives=TEXT),
    "union": _takes(_SETS, gives=_member),
}
"""Builtins of both engines by name."""

OPERATORS: Final[Mapping[str, Operator]] = {
    "Eq": Operator(written="=="),
    "Ne": Operator(written="!="),
    "Lt": Operator(written="<"),
    "Le": Operator(written="<="),
    "Gt": Operator(written=">"),
    "Ge": Operator(written=">="),
    "Add": Operator(written="+", sides=("number",)),
    "Sub": Operator(written="-", sides=("number", "set")),
    "Mul": Operator(written="*", sides=("number",)),
    "Mod": Operator(written="%", sides=("number",)),
    "Union": Operator(written="|", sides=("set",)),
    "Intersection": Operator(written="&", sides=("set",)),
}
"""Operators of both engines, by the names of regorus' parser; `types.expressions` checks what else they require."""

GUARDS: Final[Mapping[str, frozenset[str]]] = {
    "is_array": frozenset({"array"}),
    "is_boolean": frozenset({"boolean"}),
    "is_null": frozenset({"null"}),
    "is_number": frozenset({"number"}),
    "is_object": frozenset({"object"}),
    "is_set": frozenset({"set"}),
    "is_string": frozenset({"text"}),
}
"""The types that a value may have after a statement that calls this guard."""
