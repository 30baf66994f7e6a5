"""Calls: the builtins that both engines answer alike, and what may be asked of the four that need care.

A builtin that is not listed is refused: it is absent from regorus (`crypto`, `io.jwt`, `net.cidr_merge`), silently
undefined there (`http.send`), reads a clock, chance or the process (`time.now_ns`, `rand.intn`, `opa.runtime`), answers
otherwise for some value (`lower` of a Greek sigma, `json.marshal` of `<`, `to_number` of " 1"), or was not compared.
"""

from __future__ import annotations

import re
from typing import Final

from sealbus.policies.form_patterns import glob_problem, regex_problem
from sealbus.policies.syntax import (
    Array,
    Call,
    Expression,
    Number,
    Place,
    Reference,
    Scalar,
    Text,
    Variable,
)
from sealbus.policies.syntax_walk import leading_names

__all__ = ["BUILTINS", "TEST_BUILTINS", "call_problem"]

BUILTINS: Final = {
    "abs": 1,
    "array.concat": 2,
    "array.reverse": 1,
    "array.slice": 3,
    "concat": 2,
    "contains": 2,
    "count": 1,
    "endswith": 2,
    "format_int": 2,
    "glob.match": 3,
    "intersection": 1,
    "is_array": 1,
    "is_boolean": 1,
    "is_null": 1,
    "is_number": 1,
    "is_object": 1,
    "is_set": 1,
    "is_string": 1,
    "max": 1,
    "min": 1,
    "object.filter": 2,
    "object.get": 3,
    "object.keys": 1,
    "object.remove": 2,
    "object.subset": 2,
    "object.union": 2,
    "object.union_n": 1,
    "regex.match": 2,
    "replace": 3,
    "sort": 1,
    "split": 2,
    "sprintf": 2,
    "startswith": 2,
    "strings.any_prefix_match": 2,
    "strings.any_suffix_match": 2,
    "strings.reverse": 1,
    "substring": 3,
    "sum": 1,
    "time.clock": 1,
    "time.date": 1,
    "time.parse_rfc3339_ns": 1,
    "time.weekday": 1,
    "trim": 2,
    "trim_left": 2,
    "trim_prefix": 2,
    "trim_right": 2,
    "trim_space": 1,
    "trim_suffix": 2,
    "type_name": 1,
    "union": 1,
    "walk": 2,
}
"""Builtins of both engines with the number of their arguments, each compared in tests/policies/forms."""

TEST_BUILTINS: Final = frozenset({"print"})
"""What a test file may call besides."""

_LITERAL: Final = "patterns and delimiters are literals: what they hold is checked when the policy is loaded"
_VERBS: Final = re.compile(r"%(.?)", re.DOTALL)
_ZONE: Final = re.compile(r"UTC|(?!posix/|right/)[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+)+")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT[0-2]\d:[0-5]\d:[0-5]\dZ")


def call_problem(call: Call, *, relaxed: bool = False) -> tuple[Place, str, str] | None:
    """Return where, which form and why a call of a builtin is refused; None where both engines answer it alike."""
    name = ".".join(call.name)
    arity = BUILTINS.get(name)
    if arity is None:
        if relaxed and name in TEST_BUILTINS:
            return None
        return call.place, "builtin", f"{name} is not among the builtins that every engine answers alike"
    if len(call.arguments) != arity:
        return call.place, "arity", f"{name} takes {arity} arguments"
    match name:
        case "sprintf":
            return _sprintf(call.arguments[0], call.arguments[1])
        case "regex.match":
            return _regex(call.arguments[0])
        case "glob.match":
            return _glob(call.arguments[0], call.arguments[1])
        case "time.parse_rfc3339_ns":
            return _instant(call.arguments[0])
        case "time.clock" | "time.date" | "time.weekday":
            return _zoned(call.arguments[0])
        case _:
            return None


def _sprintf(text: Expression, values: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(text, Text) or not isinstance(values, Array):
        return text.place, "sprintf", "sprintf takes a literal text and a literal array"
    verbs = _VERBS.findall(text.value)
    if any(verb not in ("v", "%") for verb in verbs):
        return text.place, "sprintf", "only %v and %% mean the same in both engines"
    if verbs.count("v") != len(values.items):
        return text.place, "sprintf", "one value for each %v"
    for value in values.items:
        if not isinstance(value, Text | Number | Scalar | Variable | Reference | Call):
            return (
                value.place,
                "sprintf",
                "%v writes texts, whole numbers and booleans alike, nothing that holds others",
            )
    return None


def _regex(pattern: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(pattern, Text):
        return pattern.place, "regex", _LITERAL
    problem = regex_problem(pattern.value)
    return None if problem is None else (pattern.place, "regex", problem)


def _glob(pattern: Expression, delimiters: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(pattern, Text) or not isinstance(delimiters, Array):
        return pattern.place, "glob", _LITERAL
    characters = [item.value if isinstance(item, Text) and len(item.value) == 1 else "?" for item in delimiters.items]
    problem = glob_problem(pattern.value, "".join(characters))
    return None if problem is None else (pattern.place, "glob", problem)


def _instant(value: Expression) -> tuple[Place, str, str] | None:
    if isinstance(value, Text) and _INSTANT.fullmatch(value.value) is not None:
        return None
    if isinstance(value, Reference) and leading_names(value)[-2:] == ("context", "time"):
        return None
    text = (
        "only context.time (or a literal such as 2026-11-24T14:00:00Z) is sure to be read alike; compare others as text"
    )
    return value.place, "time", text


def _zoned(value: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(value, Array):
        return None
    if len(value.items) != 2:
        return value.place, "time", "an instant in nanoseconds, or [instant, time zone]"
    zone = value.items[1]
    if isinstance(zone, Text) and _ZONE.fullmatch(zone.value) is None:
        return zone.place, "time", f"{zone.value!r} depends on the host: write a zone such as Europe/Berlin, or UTC"
    return None
