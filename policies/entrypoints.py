"""The entry points of a policy, which must ask one function: one message alone and many at once are decided alike.

::

    package sealbus.authz

    decision := decide(input)
    batch := [decide(request) | some request in input.batch]
    decide(request) := {"allow": true, ...} if { ... } else := {"allow": false, ...}

Anything else that read `input` would see one request where `decision` is asked, and a list of them where `batch` is: it
would then be missing, and a `not` over it hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sealbus.policies.problems import Problem
from sealbus.policies.syntax import (
    Call,
    Comprehension,
    Expression,
    File,
    Names,
    Place,
    Reference,
    Rule,
    SomeIn,
    Text,
    Variable,
)
from sealbus.policies.syntax_walk import every_expression, leading_names

__all__ = ["BATCH", "DECISION", "PACKAGE", "entrypoint_problems", "input_problems"]

PACKAGE: Final[Names] = ("sealbus", "authz")
DECISION: Final = "data.sealbus.authz.decision"
"""The rule that decides one request, the input itself."""
BATCH: Final = "data.sealbus.authz.batch"
"""The rule that decides `input.batch`, an array of requests, in order."""

_DECISION_TEXT: Final = "decision := decide(input)"
_BATCH_TEXT: Final = "batch := [decide(request) | some request in input.batch]"


def entrypoint_problems(files: Sequence[File]) -> list[Problem]:
    """Return what is wrong with the entry points that `files` define, and every other place that reads `input`."""
    problems = list(input_problems(files))
    for name, text, fits in (
        ("decision", _DECISION_TEXT, _is_decision),
        ("batch", _BATCH_TEXT, _is_batch),
        ("decide", "decide(request) := ...", _is_decide),
    ):
        found = [(file, rule) for file in files if file.package == PACKAGE for rule in _named(file, name)]
        if not found:
            problem = f"the policy has no {name}: package sealbus.authz needs `{text}`"
            problems.append(Problem(file="the bundle", line=0, column=0, form="entrypoint", text=problem))
        for number, (file, rule) in enumerate(found):
            if not fits(rule) or (number and name != "decide"):
                problems.append(_problem(file, rule.place, f"{name} is exactly, and once, `{text}`"))
    return problems


def _named(file: File, name: str) -> Iterator[Rule]:
    return (rule for rule in file.rules if leading_names(rule.head)[:1] == (name,))


def _problem(file: File, place: Place, text: str) -> Problem:
    return Problem(file=file.path, line=place.line, column=place.column, form="entrypoint", text=text)


def input_problems(files: Iterable[File]) -> Iterator[Problem]:
    """Yield every place that reads `input` and is no entry point."""
    for file in files:
        for rule in file.rules:
            if isinstance(rule.head, Variable) and (
                (rule.head.name == "decision" and _is_decision(rule)) or (rule.head.name == "batch" and _is_batch(rule))
            ):
                continue
            for expression in every_expression(rule):
                if leading_names(expression)[:1] == ("input",):
                    text = "only decision and batch read input: give the request to a function as its argument"
                    yield _problem(file, expression.place, text)


def _plain(rule: Rule) -> bool:
    return rule.kind == "complete" and isinstance(rule.head, Variable) and not rule.bodies


def _is_decision(rule: Rule) -> bool:
    return _plain(rule) and _decides(rule.value, "input")


def _is_batch(rule: Rule) -> bool:
    value = rule.value
    if not _plain(rule) or not isinstance(value, Comprehension) or value.kind != "array":
        return False
    if len(value.body.statements) != 1 or not isinstance(value.body.statements[0], SomeIn):
        return False
    [statement] = value.body.statements
    return (
        isinstance(statement, SomeIn)
        and statement.key is None
        and isinstance(statement.value, Variable)
        and _is_input_batch(statement.collection)
        and _decides(value.terms[0], statement.value.name)
    )


def _is_input_batch(expression: Expression) -> bool:
    return (
        isinstance(expression, Reference)
        and leading_names(expression) == ("input", "batch")
        and (isinstance(expression.path[-1], Text))
    )


def _decides(expression: Expression | None, name: str) -> bool:
    if not isinstance(expression, Call) or expression.name != ("decide",) or len(expression.arguments) != 1:
        return False
    [argument] = expression.arguments
    return isinstance(argument, Variable) and argument.name == name


def _is_decide(rule: Rule) -> bool:
    return (rule.kind == "function" or rule.kind == "default") and len(rule.arguments) == 1
