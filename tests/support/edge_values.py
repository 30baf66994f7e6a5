"""Values at the edges of numbers and text, as Rego that makes them, and calls of everything that is admitted with them.

What is called and what it takes comes from the tables that admit (`policies.types.builtins`): a builtin or an operator
that is admitted tomorrow is called with these values, or `tests/policies/types/test_edges.py` fails.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, TypeAlias

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint.syntax import Array, Expression, Number, Place, Text
from sealbus.policies.types.builtins import BUILTINS, OPERATORS, Argument, mixed
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.value import (
    BOOLEAN,
    INSTANT,
    NEVER,
    NULL,
    TEXT,
    UNBOUNDED,
    Type,
    join_all,
    number,
    object_of,
    row_of,
    set_of,
)

__all__ = [
    "ASKED_NUMBERS", "ASKED_TEXTS", "CALLED", "KINDS", "NO_NUMBERS", "NUMBERS", "TEXTS", "TYPES", "Value", "call",
    "closed_call", "fitting", "kinds_of", "literal", "pool", "suspects", "text", "whole",
]  # fmt: skip

CALLED: Final = (*sorted(BUILTINS), *sorted(OPERATORS), "in")
"""Everything that is called, by name; `in` is the one operator that is no infix to regorus' parser."""
_COMPARISONS: Final = frozenset({"Eq", "Ne", "Lt", "Le", "Gt", "Ge"})

SUSPECT: Final = 0.04
"""The share of values that no policy may have: where one is admitted all the same, the engines are asked about it."""

Names: TypeAlias = "Mapping[str, Sequence[str]]"
"""Names of texts and of numbers that a body has, by `text` and `number`."""
NOTHING: Final[Names] = MappingProxyType({})
KINDS: Final = ("text", "number", "boolean", "null", "array", "set", "object")

PLACE: Final = Place(line=1, column=1)
TYPES: Final = DataTypes({}, [()])
MOST: Final = DEFAULT_LIMITS.max_integer

_AROUND: Final = [power + step for power in (2**53, 2**63, 2**64) for step in (-1, 0, 1)]
NUMBERS: Final = (
    *(0, 1, 2, 3, 7, 60, -1, -7, MOST - 1, -MOST + 1),
    *_AROUND, *(-one for one in _AROUND),
    *(2**104, -(2**104), MOST**2, MOST**2 + 1, MOST**4, -(MOST**4), 2**128 - 1, 2**128, 4 * 2**254),
    *(10**15, 10**16, 10**20, 10**21, 10**22, 10**24, -(10**21), 123456789 * 10**17),
)  # fmt: skip
"""Where a machine's integers end, where a binary fraction is no longer exact, and where decimals begin to have exponents."""

NO_NUMBERS: Final = (
    "0.1",
    "(0.1 + 0.2)",
    "1.0",
    "-0",
    "-0.0",
    "1e2",
    "1E2",
    "1e308",
    "1e-7",
    "0e0",
    str(MOST + 1),
    "-(1)",
)
"""Numbers that no policy may write: the engines read, compute or print them otherwise."""

TEXTS: Final = (
    *("", "a", "b", "ab", "aba", "0", "-0", "1e308", "9007199254740993", "18446744073709551616", "%v", "%", '"\\', "<&>"),
    *("😀", "a😀b", "😀😀", "\U0010ffff", "e\u0301", "ß", "İ", "ς", "ﬁ", "\u0000", "x\u0000y", "\u007f", "\u0085a"),
    *(" \u00a0t\n", "\u2028", "\u200b", "\ufffd", "\uffff", "\u3000a\r", "\ue000", "x" * 80),
)  # fmt: skip
ASKED_NUMBERS: Final = (
    *(0, 1, -1, 2, 7, 1024, 2**31, 2**32, -(2**32), 2**52, -(2**52)),
    MOST,
    MOST - 1,
    -MOST,
    -MOST + 1,
)
"""Numbers of questions, which hold none beyond 2^53-1: products and sums of these are beyond."""
ASKED_TEXTS: Final = (*TEXTS, "\ufeff", "\ufeffa\ufeff")

_PATTERNS: Final = ("^a", "^[a-z]*$", "b$", "^.{2}$", "^(a|b)+$", "^[^a]*$", "", "^$", "(a{2,3}b?)+", "^.$", "[0-9]+")
_FORMATS: Final = ("%v", "%v%%", "a%v😀", "%v%v", "%v-%v-%v", "%%", "")
_INSTANTS: Final = ("1970-01-01T00:00:00Z", "2026-11-24T14:00:00Z", "2255-06-05T23:47:34Z")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as Rego, with its type; `said` is its expression where it is a literal text or number."""

    written: str
    of: Type
    said: Expression


def _expression(written: str, of: Type) -> Value:
    return Value(written, of, Array(place=PLACE, items=()))


def text(value: str) -> Value:
    """Return a text as a literal."""
    return Value(json.dumps(value, ensure_ascii=False), TEXT, Text(place=PLACE, value=value))


def whole(value: int) -> Value:
    """Return a number of any size, made of literals within 2^53-1 by products and sums."""
    if abs(value) <= MOST:
        return Value(str(value), number(abs(value)), Number(place=PLACE, written=str(value)))
    quotient, rest = divmod(abs(value), 2**52)
    sign = -1 if value < 0 else 1
    upper = whole(sign * quotient)
    least = number(min(upper.of.most * 2**52, UNBOUNDED) + rest)
    written = f"({upper.written} * {2**52})"
    return _expression(f"({written} {'-' if value < 0 else '+'} {rest})" if rest else written, least)


def _array(items: Sequence[Value]) -> Value:
    return _expression(f"[{', '.join(one.written for one in items)}]", row_of(*[one.of for one in items]))


def _set(items: Sequence[Value]) -> Value:
    return _expression(f"{{{', '.join(one.written for one in items)}}}" if items else "set()", set_of(_joined(items)))


def _object(keys: Sequence[Value], values: Sequence[Value]) -> Value:
    written = ", ".join(f"{key.written}: {one.written}" for key, one in zip(keys, values, strict=True))
    return _expression(f"{{{written}}}", object_of(_joined(keys), _joined(values)))


def _joined(values: Iterable[Value]) -> Type:
    return join_all([NEVER, *(one.of for one in values)])


@cache
def pool(name: str) -> tuple[Value, ...]:
    """Return values of one of Rego's types, every edge among them."""
    match name:
        case "text":
            return tuple(map(text, TEXTS))
        case "number":
            return (*map(whole, NUMBERS), _expression("(0 * -1)", number(0)), _expression("(-7 % 7)", number(7)))
        case "boolean":
            return (_expression("true", BOOLEAN), _expression("false", BOOLEAN))
        case "null":
            return (_expression("null", NULL),)
        case _:
            return tuple(_collections(name))


def _collections(name: str) -> Iterator[Value]:
    """Yield collections: without items, of one type, of several, and of one another."""
    make = _array if name == "array" else _set
    texts, numbers = pool("text"), pool("number")
    scalars = [texts[0], texts[1], numbers[1], numbers[13], *pool("boolean"), *pool("null")]
    if name == "object":
        keys = [one for one in (*texts, *map(whole, (0, 1, -7, MOST))) if "\\" not in one.written]
        yield _object([], [])
        for place, value in enumerate((*texts, *numbers, *pool("boolean"), *pool("null"))):
            yield _object([keys[place % len(keys)]], [value])
        yield _object(keys[:4], numbers[10:14])
        yield _object([texts[1]], [_object([texts[2]], [numbers[16]])])
        yield _object([texts[1]], [_object([texts[3]], [_array(texts[:2])])])
        return
    yield make([])
    for several in (texts, numbers):
        for place, value in enumerate(several):
            yield make([value])
            yield make([several[(place * step + 1) % len(several)] for step in (1, 3, 7)])
    yield make([numbers[10], numbers[11], numbers[12]])
    yield make([numbers[16], numbers[17], numbers[18], numbers[16]])
    yield make(scalars)
    inner = (make([]), make(texts[:2]), make(numbers[10:14]), make([numbers[10]]))
    for held in (inner[:1], inner[1:3], inner[2:], inner[:2], inner):
        yield make(held)
        yield make([make([one]) for one in (texts[14], texts[20], numbers[16], numbers[12])[: len(held)]])
    if name == "array":
        some = [_object([texts[1]], [numbers[16]]), _object([texts[1]], [texts[14]]), _object([], [])]
        for objects in (some[:1], some[1:], some, some[::-1], [some[0], _object([texts[1]], [some[1]])]):
            yield make(objects)


@cache
def suspects(kind: str) -> tuple[Value, ...]:
    """Return values of one of Rego's types that the engines read or print otherwise."""
    match kind:
        case "number":
            return tuple(_expression(one, number(0)) for one in NO_NUMBERS)
        case "object":
            keys = [*map(whole, (MOST + 1, 2**63, 2**64, -(2**63) - 1, 2**104)), *pool("array")[:6], *pool("set")[:6]]
            keys += [_array([text("<&>\u2028")]), _object([text("a")], [text("<")]), *suspects("number")]
            return tuple(_object([key], [text("a")]) for key in keys)
        case _:
            return ()


def _named(kind: str, names: Sequence[str], chance: random.Random) -> Value:
    """Return a text or a number that is made of those under `names`, which are the question's."""
    name = chance.choice(names)
    if kind == "text":
        return _expression(name, TEXT)
    other = chance.choice(names)
    options = [
        (name, MOST),
        (f"({name} * 1024)", MOST * 1024),
        (f"(({name} * 1024) + 1023)", MOST * 1024 + 1023),
        (f"({name} + {other})", 2 * MOST),
        (f"({name} - {other})", 2 * MOST),
        (f"({name} * {other})", MOST**2),
        (f"(({name} * {other}) + {name})", MOST**2 + MOST),
        (f"({name} * ({other} * ({name} * {other})))", MOST**4),
        (f"((({name} * {other}) % 9007199254740991) * {other})", MOST**2),
        (f"sum([{name}, {other}, {name} * {other}])", MOST**2 * 2**64),
    ]
    written, most = chance.choice(options)
    return _expression(written, number(most))


@cache
def literal(argument: Argument) -> bool:
    """Return whether the argument has to be written out: then no other expression of the same type will do."""
    other = Array(place=PLACE, items=())
    return not any(argument.fits(other, one.of, TYPES) for name in kinds_of(argument) for one in pool(name))


def kinds_of(argument: Argument) -> tuple[str, ...]:
    """Return the types that an argument may have."""
    return argument.names or KINDS


@cache
def fitting(builtin: str, place: int) -> tuple[Value, ...]:
    """Return the edges that an argument of a builtin may be, by the table that admits it."""
    argument = BUILTINS[builtin].arguments[place]
    match builtin, place:
        case ("regex.match", 0):
            values: Sequence[Value] = list(map(text, _PATTERNS))
        case ("sprintf", 0):
            values = list(map(text, _FORMATS))
        case ("time.parse_rfc3339_ns", 0):
            values = [*map(text, _INSTANTS), _expression("request.context.time", INSTANT)]
        case _:
            values = [one for name in kinds_of(argument) for one in pool(name)]
            if literal(argument):
                values = [*values, *map(whole, (2, 8, 10, 16))]
    return tuple(one for one in values if argument.fits(one.said, one.of, TYPES))


def call(name: str, chance: random.Random, names: Names = NOTHING) -> Value:
    """Return a call of a builtin, or an operation, with values at the edges; half of the values are made of `names`."""
    if name in OPERATORS:
        return _operation(name, chance, names)
    if name == "in":
        return _membership(chance, names)
    if name == "sprintf":
        return _sprintf(chance, names)
    given = [
        _given(argument, chance, names) or chance.choice(fitting(name, place))
        for place, argument in enumerate(BUILTINS[name].arguments)
    ]
    gives = BUILTINS[name].result([one.said for one in given], [one.of for one in given], TYPES)
    return _expression(f"{name}({', '.join(one.written for one in given)})", gives)


def closed_call(kind: str, chance: random.Random) -> str:
    """Return a call of something admitted that gives a text, a number within 2^106 or a boolean, as `kind` says."""
    total = [name for name in CALLED if name not in BUILTINS or not BUILTINS[name].partial]
    while True:
        found = call(chance.choice(total), chance)
        if found.of.names == {kind} and found.of.most <= MOST**2:
            return found.written


def _given(argument: Argument, chance: random.Random, names: Names) -> Value | None:
    """Return a value that is made of what has a name, where the argument may be one, or that no policy may have."""
    if chance.random() < SUSPECT:
        some = [one for kind in kinds_of(argument) for one in suspects(kind)]
        return chance.choice(some) if some else None
    if not names or literal(argument) or chance.random() < 0.5:
        return None
    made = (_made_of(chance.choice(kinds_of(argument)), names, chance) for _ in range(4))
    return next((one for one in made if one is not None and argument.fits(one.said, one.of, TYPES)), None)


def _made_of(kind: str, names: Names, chance: random.Random) -> Value | None:
    """Return a value of the type `kind` that is made of what has a name; None where it cannot be."""
    if kind in names:
        return _named(kind, names[kind], chance)
    of = chance.choice(sorted(names))
    items = [_named(of, names[of], chance) for _ in range(chance.randrange(1, 4))]
    match kind:
        case "array":
            return _array(items)
        case "set":
            return _set(items)
        case "object":
            return _object([chance.choice(pool("text")[1:5])], items[:1])
        case _:
            return None


def _operation(name: str, chance: random.Random, names: Names) -> Value:
    operator = OPERATORS[name]
    while True:
        kind = chance.choice(operator.sides or KINDS)
        left, right = (_side(kind, chance, names) for _ in range(2))
        if name == "Mod":
            right = whole(chance.choice((1, -1, 2, 3, -7, 1024, 2**32, MOST, -MOST)))
        if name == "Mul" and left.of.most * right.of.most > UNBOUNDED:
            continue
        if not (operator.written[0] in "<>" and mixed(left.of, right.of)):
            gives = BOOLEAN if name in _COMPARISONS else number(UNBOUNDED) if kind == "number" else left.of
            return _expression(f"({left.written} {operator.written} {right.written})", gives)


def _membership(chance: random.Random, names: Names) -> Value:
    kind = chance.choice(("text", "number", "number", "boolean", "null", "array", "set", "object"))
    sought, *items = (_side(kind, chance, names) for _ in range(chance.randrange(2, 5)))
    items = [sought, *items] if chance.random() < 0.5 else items
    among = chance.choice((_array, _set))(items)
    return _expression(f"({sought.written} in {among.written})", BOOLEAN)


def _side(kind: str, chance: random.Random, names: Names) -> Value:
    if suspects(kind) and chance.random() < SUSPECT:
        return chance.choice(suspects(kind))
    made = _made_of(kind, names, chance) if names and chance.random() < 0.5 else None
    return made or chance.choice(pool(kind))


def _sprintf(chance: random.Random, names: Names) -> Value:
    form = chance.choice(fitting("sprintf", 0)).said
    verbs = form.value.replace("%%", "").count("%v") if isinstance(form, Text) else 0
    scalars = ("text", "number", "number", "boolean", "null")
    values = [_side(chance.choice(scalars), chance, names) for _ in range(verbs)]
    written = text(form.value if isinstance(form, Text) else "").written
    return _expression(f"sprintf({written}, {_array(values).written})", TEXT)
