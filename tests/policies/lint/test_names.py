"""Names: declared before use, and once."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.module import Module
from sealbus.policies.lint.names import Outer, check_names
from sealbus.policies.lint.parse import parse

OUTSIDE: dict[str, Outer] = {"rule": "value", "f": "function"}


def forms(text: str, *, relaxed: bool = False) -> list[str]:
    [rule] = parse(Module(path="a.rego", text=f"package p\n\n{text}\n")).rules
    return [problem.form for problem in check_names("a.rego", rule, OUTSIDE, relaxed=relaxed)]


@pytest.mark.parametrize(
    "text",
    [
        "r := rule",
        "r(x, _) := x",
        "r([x, 1]) := x",
        "r := x if { x := input.y; [a, b] := x; a == b }",
        "r contains x if some x in data.l",
        "r[x].b := y if { some x, y in data.l }",
        "r := x if { some i; x := data.l[i] }",
        "r if { some i; data.l[i] == 1; data.m[i][_] }",
        "r if { every k, v in {1: 2} { k < v } }",
        "r := z if { z := [x | some x in rule] }",
        "r(a) := {y: [1] | some y in a}",
        "r(a) := count([y | some y in a])",
        "r(a) := count([y | every z in a { z }; some y in a])",
        "r := 1 if { false } else := x if { x := 2 }",
        "r := x if { x := 1 } { x := 2 }",
        "r := f(1)",
        "r := [1][0]",
    ],
)
def test_accepted(text: str) -> None:
    assert forms(text) == []


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("r := x", ["unsafe"]),
        ("r := _", ["unsafe"]),
        ("r := f", ["function-value"]),
        ("r := x if { x == 1 }", ["unsafe", "unsafe"]),
        ("r if { x > 1; x := 2 }", ["unsafe"]),
        ("r if { some i; i > 0 }", ["unsafe"]),
        ("r if { some i; [1 | data.l[i]] }", ["unsafe"]),
        ("r if { some i; data.l[i + 1] }", ["unsafe"]),
        ("r if { some i; not data.l[i] }", ["negation", "unsafe"]),
        ("r if { x = 1 }", ["unify"]),
        ("r if { [x, 1] := [1, 2]; x }", ["pattern"]),
        ("r if { [x, y] := [1]; x == y }", ["pattern"]),
        ('r if { {"a": x} := rule; x }', ["pattern", "unsafe"]),
        ('r({"a": x}) := x', ["pattern", "unsafe"]),
        ("r(x, x) := 1", ["shadow"]),
        ("r if { x := 1; x := 2 }", ["shadow"]),
        ("r if { x := 1; [x | some x in rule] }", ["shadow"]),
        ("r if { rule := 1 }", ["shadow"]),
        ("r if { some x; true }", ["unused"]),
        ("r if { every x in rule { true } }", ["unused"]),
        ("r := [y | some y in x] if { x := rule }", ["closure"]),
        ("r contains [y | some y in x] if { x := rule }", ["closure"]),
        ("r[k] := [y | some y in x] if { x := rule; k := 1 }", ["closure"]),
        ("r := 1 if { false } else := [y | some y in x] if { x := rule }", ["closure"]),
        ("r := [[z | some z in y] | some y in rule]", ["closure"]),
        ("r if { x := 1; x(1) }", ["function-value"]),
        ("r if { rule with input as 1 }", ["with"]),
    ],
)
def test_refused(text: str, refused: list[str]) -> None:
    assert forms(text) == refused


def test_an_assignment_stands_alone() -> None:
    assert forms("r if { not x := 1 }") == ["negation", "assign"]


def test_tests_may_use_with() -> None:
    assert forms("r if { rule with input as 1 }", relaxed=True) == []
