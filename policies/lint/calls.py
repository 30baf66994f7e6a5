"""Calls of builtins: only builtins of the closed list (`types.builtins`) pass, and literal arguments are checked.

Regular expressions pass if Go (OPA) and Rust (regorus) read them alike, and both compile them.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from sealbus.policies.lint.regorus import regex_compiles
from sealbus.policies.lint.syntax import Array, Call, Expression, Place, Text
from sealbus.policies.types.builtins import BUILTINS

TEST_BUILTINS: Final = frozenset({"print"})
"""Builtins that only a test file may call."""

_LITERAL: Final = "a pattern must be a literal, because it is checked when the policy is loaded"
_VERBS: Final = re.compile(r"%(.?)", re.DOTALL)
_INSTANT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_FIRST: Final = 1970
_LAST: Final = 2255
"""The years that every engine can count in nanoseconds, and a request in microseconds."""

_MOST_TIMES: Final = 1_000
"""Go refuses more; Rust accepts them as long as the compiled size is small enough."""

# \d, \w, \s and \b are ASCII in Go and Unicode in Rust; &&, -- and ~~ in a class are operators in Rust only.
_ATOM: Final = re.compile(
    r"""
      (?P<class>\[\^?(?:\\[\\\]\[^.$*+?(){}|/-]|[A-Za-z0-9_.,:;@/!#%=<>'"$*+?(){}|^ ](?:-[A-Za-z0-9])?)+-?\])
    | (?P<escape>\\[\\.+*?()\[\]{}|^$/-])
    | (?P<open>\((?:\?:)?)
    | (?P<close>\))
    | (?P<anchor>[\^$])
    | (?P<alternative>\|)
    | (?P<plain>[A-Za-z0-9_.,:;@/!#%=<>'"&~ -])
    """,
    re.VERBOSE,
)
_TIMES: Final = re.compile(r"(?:[*+?]|\{(?P<least>\d{1,4})(?:(?P<comma>,)(?P<most>\d{1,4})?)?\})\??")


def call_problem(call: Call, *, relaxed: bool = False) -> tuple[Place, str, str] | None:
    """Return place, form and reason of a refused call of a builtin; None if both engines give it the same value."""
    name = ".".join(call.name)
    builtin = BUILTINS.get(name)
    if builtin is None:
        if relaxed and name in TEST_BUILTINS:
            return None
        text = (
            f"{name} is not a builtin for which every engine gives the same value. The page policy of the documentation says "
            "what to write instead. A policy that needs this builtin can only run on OPA (engine sidecar or central, with a "
            "bundle that OPA loads itself)"
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
        return text.place, "sprintf", "both engines read only %v and %% alike"
    if verbs.count("v") != len(values.items):
        return text.place, "sprintf", "the array must have one value for each %v"
    return None


def _regex(pattern: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(pattern, Text):
        return pattern.place, "regex", _LITERAL
    problem = regex_problem(pattern.value)
    return None if problem is None else (pattern.place, "regex", problem)


def _instant(value: Expression) -> tuple[Place, str, str] | None:
    if not isinstance(value, Text):
        return None  # type inference checks it
    try:
        instant = datetime.strptime(value.value, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return value.place, "time", "write an instant as 2026-11-24T14:00:00Z"
    if _INSTANT.fullmatch(value.value) is None or not _FIRST <= instant.year <= _LAST:
        return value.place, "time", f"write an instant of the years {_FIRST} to {_LAST}, as 2026-11-24T14:00:00Z"
    return None


def regex_problem(pattern: str) -> str | None:
    """Return why the engines might read `pattern` differently, or why one refuses it; None if both accept it."""
    position = 0
    repeats = [1]
    """For each open group, the product of the repetitions inside it."""
    while position < len(pattern):
        atom = _ATOM.match(pattern, position)
        if atom is None:
            return (
                f"character {position + 1} of the pattern: use ASCII, classes such as [0-9A-Za-z_], ( ), |, ^, $, * "
                "+ ? {n,m}; not \\d \\w \\s \\b, flags or look-around"
            )
        position = atom.end()
        inside = 1
        if atom.lastgroup == "open":
            repeats.append(1)
        elif atom.lastgroup == "close":
            inside = repeats.pop()
            if not repeats:
                return "a ) without its ("
        times = _TIMES.match(pattern, position)
        if times is not None:
            if atom.lastgroup in ("open", "anchor", "alternative"):
                return f"character {position + 1} of the pattern repeats nothing"
            least, most = int(times["least"] or 0), int(times["most"] or times["least"] or 0)
            inside *= max(most, 1)
            if inside > _MOST_TIMES or least > most:
                return f"nested repetitions multiplied are at most {_MOST_TIMES}, and a repetition must not be falling"
            position = times.end()
        repeats[-1] = max(repeats[-1], inside)
    if len(repeats) > 1:
        return "a ( without its )"
    return None if regex_compiles(pattern) else "the pattern is too large for regorus: repeat fewer or smaller classes"
