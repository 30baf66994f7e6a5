"""What the types of a policy's values tell: that nothing in it fails, and what OPA's compiler would refuse."""

from __future__ import annotations

import pytest
from support.rule_types import DATA, HEAD, decides, refused

from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module
from sealbus.policies.types.inference import type_problems
from sealbus.policies.types.rules import CALLS

UNCALLED = "decide(request) := 1 if { some x in []; f(x) }\n"


@pytest.mark.parametrize(
    "body",
    [
        "every x in request.context.chain { is_string(x); startswith(x, \"a\") }",
        "every k, v in data.limits { startswith(k, \"a\"); v + 1 > 1 }",
        "some i, x in request.context.chain\ni + 1 == 2\nstartswith(x, \"a\")",
        "[a, b] := request.context.chain\nstartswith(a, b)",
        "some [a, _] in [[\"x\", 1]]\nstartswith(concat(\"\", [sprintf(\"%v\", [a])]), \"x\")",
        "not request.context.user.present",
    ],
)  # fmt: skip
def test_what_cannot_fail(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ("decide(request) := f(request.action.name)\nf(x) := trim_space(x)", []),
        ("decide(request) := f(request.context.delivery)\nf(x) := trim_space(x)", ["type"]),
        ("decide(request) := 1\nf(x) := trim_space(x)", ["type"]),
        ("decide(request) := 1\nf(x) := trim_space(x) if is_string(x)", []),
        ("decide(request) := f(request.action.name)\nf(x) := trim_space(g(x))\ng(x) := x if x != \"\"", []),
        # From what a function does with an argument OPA's compiler learns what it may be called with.
        ("decide(request) := f(\"a\", [1])\nf(\"a\", b) := 1 if { b in {\"0\"} }", ["match"]),
        ("decide(request) := f([1])\nf(a) := 1 if { a in {\"0\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { endswith(a, \"x\") } else := 2 if { a == \"s\" }", ["match", "type"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a == \"x\" }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not \"x\" == a }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a in {\"x\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := b if { b := a in {\"x\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not g(a) }\ng(a) := 1 if { not a == \"x\" }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a == 0; is_string(a) }", []),
        ("decide(request) := f(true, \"x\")\nf(a, b) := 1 if { is_string(b); not a == b }", []),
        ("decide(request) := f(true, \"x\")\nf(a, b) := 1 if { b == \"x\"; not a == b }", ["match"]),
        ("decide(request) := f(request)\nf(r) := 1 if { x := r.resource.type; not x in {1}; is_string(x) }", []),
        ("decide(request) := f(1)\nf(a) := 1 if { every b in [\"x\"] { not a == b } }", []),
        # From where an argument stands OPA's compiler learns what it is.
        (UNCALLED + "f(a) := 1 if { endswith(a, \"x\"); xs := [1]; xs[a] == 1 }", ["match"]),
        (UNCALLED + "f(a) := 1 if { x := a + 1; xs := {\"k\": 1}; xs[a] == x }", ["match"]),
        (UNCALLED + "f(a) := 1 if { xs := {\"k\": 1}; xs[a] == 1; a == 1 }", ["match"]),
        (UNCALLED + "f(a) := 1 if { not endswith(a, \"x\"); xs := [1]; xs[a] == 1 }", ["match"]),
        # From what holds nothing OPA's compiler learns nothing.
        ("decide(request) := f(1)\nf(a) := 1 if { x := trim(\"ab\", \"b\"); x in []; x == 1 }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { x := trim(\"ab\", \"b\"); xs := [1]; x in []; xs[x] == 1 }", ["match"]),
        ('decide(request) := 1 if ["a"] == f(1)\nf(x) := ["a"] if { x == 1 } else := []', []),
        ("decide(request) := count(s)\ns contains x if some x in [{1}, {\"a\": 1}]", ["order"]),
    ],
)  # fmt: skip
def test_rules_and_functions(rules: str, forms: list[str]) -> None:
    assert refused(rules) == forms


def test_a_value_that_holds_the_one_before_twice_is_soon_unknown() -> None:
    steps = [f'x{number + 1} := {{"a": x{number}, "b": x{number}}}' for number in range(20)]
    for count, forms in ((10, []), (20, ["order"])):
        assert refused(decides("\n".join(["x0 := 1", *steps[:count], f"{{x{count}}} != set()"]))) == forms


def test_a_function_that_is_called_with_very_many_types_is_looked_at_as_if_they_were_unknown() -> None:
    def calls(count: int) -> str:
        nested = [f'f({"[" * depth}"a"{"]" * depth})' for depth in range(3)]
        records = [f'f({{"a{number}": 1}})' for number in range(count)]
        return "decide(request) := [\n" + ",\n".join([*nested, *records]) + "\n]\n\nf(x) := x == x"

    assert refused(calls(CALLS - 3)) == []
    assert refused(calls(CALLS * 2)) == []
    guarded = calls(CALLS * 2).replace("x == x", "trim_space(x)")
    assert refused(guarded) == ["type"]


def test_a_function_that_is_called_with_many_numbers_knows_how_large_they_are() -> None:
    calls = ", ".join(f"f({number})" for number in range(2, CALLS * 3))
    assert refused(f"decide(request) := [{calls}]\n\nf(x) := x * 100 if is_number(x)") == []
    squares = "f(x) := z if { y := (x * x) * (x * x); z := y * x }"
    assert refused(f"decide(request) := f(request.context.delivery)\n\n{squares}") == ["number"]


def test_what_belongs_to_others_may_be_anything() -> None:
    team = decides("some x in data.people.ann.groups\nx == \"a\"")  # fmt: skip
    assert refused(team) == []
    assert refused(team, roots=(("people",),)) == []
    assert refused(team, roots=(("sealbus", "teams"),)) == ["type"]


def test_tests_are_not_looked_at() -> None:
    files, _ = parse_all([Module(path="a_test.rego", text='package a\n\ntest_x if trim_space(1) == ""\n')])
    assert type_problems(files, DATA) == []


def test_what_another_form_refuses_has_no_type() -> None:
    assert refused(decides("x := 1 == -request.v\nx")) == []


def test_an_expression_that_is_too_long_is_refused() -> None:
    text = " +\n".join("1" for _ in range(420))
    assert refused(f"decide(request) := {text}") == ["nesting"]


def test_a_problem_says_what_to_do() -> None:
    body = 'count(request.resource.properties.tags) > 0\nconcat("", [1]) == ""\nabs("a") == 1'
    files, _ = parse_all([Module(path="a.rego", text=HEAD + decides(body))])
    unknown, inside, wrong = (str(problem) for problem in type_problems(files, DATA))
    assert unknown == (
        "a.rego:8:7: argument 1 of count is array, set or object, and this may be boolean or number or text: "
        "check it first with is_array [type]"
    )
    assert inside == (
        "a.rego:9:12: argument 2 of concat is array or set of texts: first collect the items that fit, as in "
        "[x | some x in xs; is_string(x)] [type]"
    )
    assert wrong == "a.rego:10:5: argument 1 of abs is number within 2^63, and this is text [type]"
