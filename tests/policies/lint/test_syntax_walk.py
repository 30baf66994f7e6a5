"""Ways through parsed Rego."""

from __future__ import annotations

from collections import Counter

from sealbus.policies.lint.module import Module
from sealbus.policies.lint.parse import parse
from sealbus.policies.lint.syntax import (
    Assign,
    Expression,
    Number,
    Reference,
    Rule,
    Text,
    Variable,
    children,
    constant,
    every_expression,
    leading_names,
    statements,
)


def rule(text: str) -> Rule:
    [found] = parse(Module(path="a.rego", text=f"package p\n\n{text}\n")).rules
    return found


def value(text: str) -> Expression:
    found = rule(f"r := {text}").value
    assert found is not None
    return found


def test_leading_names() -> None:
    assert leading_names(value("x")) == ("x",)
    assert leading_names(value('data.a["b.c"][x].d')) == ("data", "a", "b.c")
    assert leading_names(value("[1][0]")) == ()
    assert leading_names(value("1")) == ()


def test_children() -> None:
    counts = {
        "a.b[c]": 3, "[1, 2]": 2, "{1, 2}": 2, '{"k": 1}': 2, "f(1, 2)": 2, "1 + 2": 2, "1 in x": 2, "-x": 1, "1": 0,
        "[y | y := 1]": 0,
    }  # fmt: skip
    assert {text: len(children(value(text))) for text in counts} == counts
    pair = rule("r if { 1, 2 in x }").bodies[0].statements[0]
    assert len(children(pair.expression)) == 3  # type: ignore[union-attr]
    assignment = rule("r if { x := 1 }").bodies[0].statements[0].expression  # type: ignore[union-attr]
    assert isinstance(assignment, Assign)
    assert len(children(assignment)) == 2


def test_constant() -> None:
    assert constant(value('{"a": [1, {true}, "t", null]}'))
    assert not constant(value('{"a": [x]}'))
    assert not constant(value("f(1)"))


def numbers(text: str) -> Counter[str]:
    return Counter(one.written for one in every_expression(rule(text)) if isinstance(one, Number))


def test_every_expression_reaches_every_place() -> None:
    found = numbers(
        "r[1] := [2 | x := 3; y[4]] if { not 5; some z in [6]; some [7, k], v in [8]; every w in [9] { w == 10 }; "
        "some q; 11 } else := 12 if { 13 }"
    )
    assert found == Counter(str(number) for number in range(1, 14))
    assert numbers("f(1, [2]) := 3 if { 4 }") == Counter("1234")
    assert numbers("r contains 1 if { 2 }") == Counter("12")
    assert numbers("default r := {1: [2]}") == Counter("12")


def test_the_first_name_of_a_reference_is_no_use_of_its_own() -> None:
    found = list(every_expression(rule("r := data.a[x]")))
    assert [type(one) for one in found] == [Reference, Text, Variable]
    assert [type(one) for one in every_expression(rule("r := [1][0]"))][1:3] != [Text]


def test_statements_inside_statements() -> None:
    found = list(statements(rule("r if { every x in [1] { x; every y in [1] { y } }; z := [1 | a; b] }")))
    assert len(found) == 7
