"""Calls of builtins: those of the closed list (`builtin_types`), and what is written in the literals of three."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from sealbus.policies.builtin_types import BUILTINS
from sealbus.policies.form_patterns import regex_problem
from sealbus.policies.syntax import (
    Array,
    Call,
    Expression,
    Place,
    Text,
)

__all__ = ["TEST_BUILTINS", "call_problem"]

TEST_BUILTINS: Final = frozenset({"print"})
"""What a test file may call besides."""

_LITERAL: Final = "patterns are literals: what they hold is checked when the policy is loaded"
_VERBS: Final = re.compile(r"%(.?)", re.DOTALL)
_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_FIRST: Final = 1970
_LAST: Final = 2255
"""The years that every engine counts in nanoseconds, and requests in microseconds."""


def call_problem(call: Call, *, relaxed: bool = False) -> tuple[Place, str, str] | None:
    """Return where, which form and why a call of a builtin is refused; None where both engines answer it alike."""
    name = ".".join(call.name)
    builtin = BUILTINS.get(name)
    if builtin is None:
        if relaxed and name in TEST_BUILTINS:
            return None
        text = (
            f"{name} is not among the builtins that every engine answers alike: docs/policy.md has the list and what to "
            "write instead; what needs more is for OPA alone (engine sidecar or central, with a bundle that OPA loads itself)"
        )
        return call.place, "builtin", text
    arity = len(builtin.arguments)
    if len(call.arguments) != arity:
        return call.place, "arity", f"{name} takes {arity} arguments"
    match name:
        case "sprintf":
            return _sprintf(call.arguments[0], call.arguments[1])
        case "regex.match":
            return _regex(call.arguments[0])
        case "time.parse_rfc3339_ns":
            return _instant(call.arguments[0])
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
    return None


def _regex(pattern: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(pattern, Text):
        return pattern.place, "regex", _LITERAL
    problem = regex_problem(pattern.value)
    return None if problem is None else (pattern.place, "regex", problem)


def _instant(value: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(value, Text):
        return None  # its type tells
    try:
        instant = datetime.strptime(value.value, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return value.place, "time", "write an instant as 2026-11-24T14:00:00Z"
    if _INSTANT.fullmatch(value.value) is None or not _FIRST <= instant.year <= _LAST:
        return value.place, "time", f"write an instant of the years {_FIRST} to {_LAST}, as 2026-11-24T14:00:00Z"
    return None
