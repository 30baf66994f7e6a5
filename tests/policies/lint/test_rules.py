"""Rules together."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import Module, Problem
from sealbus.policies.lint.rules import DEPTH


def problems(*texts: str) -> list[Problem]:
    files, refused = parse_all([Module(path=f"{number}.rego", text=text) for number, text in enumerate(texts)])
    return refused + refused_forms(files)


def forms(*texts: str) -> list[str]:
    return [problem.form for problem in problems(*texts)]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("a := 1 if true\na := 1 if true", []),
        ("default a := 1\na := 2 if false", []),
        ("default a := 1\ndefault a := 2", ["conflict"]),
        ("a := 1\na contains 1", ["conflict"]),
        ("a := 1\na(x) := x", ["conflict"]),
        ("a(x) := x\na(x, y) := [x, y]", ["conflict"]),
        ("default a(_) := 1\na(x) := x", []),
        ("default a(_, _) := 1\na(x) := x", ["conflict"]),
        ("a[x] := 1 if some x in [1]\na[x] := 2 if some x in [2]", []),
        ("a[x] := 1 if some x in [1]\na.b := 2", []),
        ("a.b := 1\na.c := 2", []),
        ("a := {}\na.b := 1", ["conflict"]),
        ("a.b contains 1\na.b.c := 1", ["conflict"]),
        ("a() := 1", ["arity"]),
        ("a(x) := x\nb := a(1, 2)", ["arity"]),
        ("a(x) := x\nb := a", ["function-value"]),
        ("a(x) := x\nb := data.p.a", ["function-value"]),
        ("a(x) := x\nb := data.p.a.c", ["function-value"]),
        ("a := 1\nb := a(1)", ["builtin"]),
        ("a := data.p.b(1)", ["function"]),
        ("a := 1\nb := data.p.a(1)", ["function"]),
        ("import data.q\n\na := q.b(1)", ["function"]),
        ("import data.q as count\n\na := count([1])", ["function"]),
        ("import data.q\n\na := count([1])", []),
        ("a.f(x) := x\nb := a.f(1)", []),
        ("a := data.p.b\nb := data.p.a", ["recursion"]),
        ("a := data.p", ["recursion"]),
        ("a := a", ["recursion"]),
        ("a := b\nb := c\nc := 1\nd := a", []),
        ("f(x) := f(x - 1)", ["recursion"]),
        ("f(x) := [y | y := g(x)]\ng(x) := f(x)", ["recursion"]),
        ("a := data.p[x] if { x := 1 }", ["recursion"]),
        ("default a := [1]\ndefault b := c\nc := 1", ["default"]),
    ],
)
def test_one_file(text: str, refused: list[str]) -> None:
    assert forms(f"package p\n\n{text}\n") == refused


def test_rules_of_several_files_of_a_package() -> None:
    assert forms("package p\n\na := b\n", "package p\n\nb := 1\n") == []
    assert forms("package p\n\na := 1\n", "package p\n\na contains 1\n") == ["conflict"]
    assert forms("package p\n\na := 1\n", "package p.a\n\nb := 1\n") == ["conflict"]
    assert forms("package p\n\na := b\n", "package q\n\nb := 1\n") == ["unsafe"]


def test_imports() -> None:
    library = "package lib\n\nf(x) := x\n\nv := 1\n"
    assert forms("package p\n\nimport data.lib\n\na := lib.f(lib.v)\n", library) == []
    assert forms("package p\n\nimport data.lib.f as g\n\na := g(1)\n", library) == []
    assert forms("package p\n\nimport data.lib.f as g\n\na := g(1, 2)\n", library) == ["arity"]
    assert forms("package p\n\nimport data.lib.f as g\n\na := g\n", library) == ["function-value"]
    assert forms("package p\n\nimport data.lib.v\n\nv := 1\n", library) == ["import"]
    assert forms("package p\n\nimport input.x\n\na := 1\n") == ["import"]
    assert forms("package p\n\nimport data.p as q\n\na := q.a\n") == ["recursion"]


def test_a_long_chain() -> None:
    rules = [f"r{number}(x) := r{number + 1}(x)" for number in range(DEPTH)]
    assert forms("package p\n\n" + "\n".join([*rules[:-1], f"r{DEPTH - 1}(x) := x"]) + "\n") == []
    found = problems("package p\n\n" + "\n".join([*rules, f"r{DEPTH}(x) := x"]) + "\n")
    assert [(problem.form, problem.line) for problem in found] == [("depth", 3)]


def test_what_is_used_twice_counts_once() -> None:
    text = "package p\n\na := [b, c]\nb := d\nc := d\nd := e\ne := 1\n"
    assert forms(text) == []


def test_a_call_of_what_is_imported_is_no_builtin() -> None:
    [problem] = problems("package p\n\nimport data.q\n\na := q.b(1)\n")
    assert str(problem) == "0.rego:5:6: q.b: there is no such function [function]"
