"""Where two values might meet that are one."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.conflicts import conflicts, written


def refused(text: str) -> list[int]:
    files, problems = parse_all([Module(path="a.rego", text=f"package p\n\n{text}\n")])
    assert problems == []
    table = RuleTable(files)
    return [found.line - 2 for found in conflicts(table.definitions, table.kind)]


@pytest.mark.parametrize(
    "text",
    [
        "r if input.a\nr if input.b",
        "default r := false\nr if input.a",
        "r := 1 if input.a\nr := 1 if input.b",
        "r := 1 if { input.a } else := 2 if { input.b }",
        'g("a") := 1\ng("b") := 2',
        "g(1, x) := x\ng(2, x) := [x]",
        'g(x) := x if x == "a"\ng(x) := 2 if "b" == x',
        "g(x) := x if x.y == 1\ng(x) := 2 if x.y != 1",
        "g(x) := 1 if x == true\ng(x) := 2 if x == false\ng(x) := 3 if x == null",
        "r if { some x in input.xs; x == 1 }",
        "r := [x | some x in input.xs]",
        "r := count(xs) if { xs := [x | some x in input.xs] }",
        "r contains x if some x in input.xs",
        "r contains 1 if input.a\nr contains 2 if input.b",
        "r[k] := v if some k, v in input.m",
        "r[k] := true if some k in input.xs",
        'r["a"] := 1',
        "r[k] if some k in input.xs",
        "r[k] := v if { k := input.a; v := input.b }",
        "r[k] := 1 if some k in input.xs\nr[k] := 1 if some k in input.ys",
        "r := v if { every x in input.xs { x }; v := input.a }",
    ],
)
def test_one_value_at_most(text: str) -> None:
    assert refused(text) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("r := 1 if input.a\nr := 2 if input.b", [1, 2]),
        ("r := input.a if input.b\nr := input.c if input.d", [1, 2]),
        ("r := true if input.a\nr := false if input.b", [1, 2]),
        ("r := 1 if { input.a } else := 2 if { input.b }\nr := 1", [1, 2]),
        ("g(x) := 1 if x.a\ng(x) := 2 if x.b", [1, 2]),
        ('g("a", x) := x\ng("a", x) := 2', [1, 2]),
        ('g("a") := 1\ng("b") := 2\ng("a") := 3', [1, 2, 3]),
        ("g(x) := 1 if x != 1\ng(x) := 2 if x != 2", [1, 2]),
        ("g(x) := 1 if x == 1\ng(x) := 2 if x != 2", [1, 2]),
        ("g(x) := 1 if x < 1\ng(x) := 2 if x > 2", [1, 2]),
        ("g(x) := 1 if { x == 1 } else := 5\ng(x) := 2 if x == 2", [1, 2]),
        ("r := x if some x in input.xs", [1]),
        ("r := input.xs[i] if some i", [1]),
        ("r := input.xs[_]", [1]),
        ("r := input.a if input.xs[_] == 1", [1]),
        ("r := x if { some x in input.xs[_] }", [1]),
        ("r[k] := v if some v, k in input.m", [1]),
        ("r[k] := v if { some k, _ in input.m; some v in input.n }", [1]),
        ("r[k] := v if some k, v in input.m\nr[k] := v if some k, v in input.n", [1, 2]),
        ("r[k] := input.xs[_] if some k, _ in input.m", [1]),
        ("r[input.xs[_]] := input.a", [1]),
        ("r[k][v] := input.a if some k, v in input.m", [1]),
    ],
)
def test_two_values_might_meet(text: str, lines: list[int]) -> None:
    assert refused(text) == lines


def test_what_is_written_alike() -> None:
    [file], _ = parse_all(
        [
            Module(
                path="a.rego",
                text='package p\n\na := [x.y["z"], f(1), {1 | true}, 1 + 2, "1"]\nb := [x.y.z, f(1), {1 | true}, 1 - 2, 1]\n',
            )
        ]
    )
    first, second = (rule.value for rule in file.rules)
    alike = [written(one) == written(other) for one, other in zip(first.items, second.items, strict=True)]  # type: ignore[union-attr]  # both are arrays
    assert alike == [True, True, False, False, False]
    assert written(None) == ("Scalar", True)
