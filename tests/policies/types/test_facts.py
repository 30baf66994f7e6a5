"""What earlier statements say about names and lookups, and which expressions have a value for certain."""

from __future__ import annotations

import pytest
from support.rule_types import decides, refused

from sealbus.policies.lint import syntax
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.facts import Facts, certain
from sealbus.policies.types.value import ANY, TEXT, join


def parsed(text: str) -> tuple[Facts, syntax.Expression]:
    """Return an expression, and facts by which the names `x` and `z` have a value."""
    [file], problems = parse_all([Module(path="a.rego", text=f"package p\n\nr := {text}\n")])
    assert problems == []
    value = file.rules[0].value
    assert value is not None
    return Facts(file=file, names={"x": ANY, "z": ANY}), value


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x", (("", "x"),)),
        ("x.y", (("", "x"), (".", "y"))),
        ('x["y"]', (("", "x"), (".", "y"))),
        ("x.y[1]", (("", "x"), (".", "y"), ("[", "1"))),
        ("x[z]", (("", "x"), ("[", "(('', 'z'),)"))),
        ("x[z.a]", (("", "x"), ("[", "(('', 'z'), ('.', 'a'))"))),
        # The values of these may change: `w` gets its value by the lookup.
        ("x[w]", None),
        ("x[count(z)]", None),
        ("count(x)", None),
        ("[1][0]", None),
    ],
)
def test_a_name_or_a_lookup_by_known_steps_has_a_key(text: str, key: object) -> None:
    facts, expression = parsed(text)
    assert facts.key(expression) == key


def test_statements_narrow_a_lookup_further_and_no_other() -> None:
    facts, expression = parsed("x.y")
    key = facts.key(expression)
    assert key is not None
    assert facts.narrowed(ANY, key) == ANY
    facts.allow(expression, frozenset({"text", "number"}))
    facts.allow(expression, frozenset({"text", "null"}))
    assert facts.narrowed(join(TEXT, ANY), key).names == {"text"}
    assert facts.narrowed(ANY, key[:1]) == ANY


def test_what_holds_in_an_inner_body_does_not_hold_after_it() -> None:
    facts, expression = parsed("x")
    inner = facts.inner()
    inner.names["y"] = ANY
    inner.allow(expression, TEXT.names)
    inner.inferred["x"] = TEXT.names
    inner.stated.add((("", "x"),))
    assert "y" not in facts.names
    assert [facts.checked, facts.inferred, facts.stated] == [{}, {}, set()]
    assert inner.inner() == inner


@pytest.mark.parametrize(
    ("text", "has_value"),
    [
        ("1", True),
        ("x", True),
        ("w", False),
        ("x.y", False),
        ("[x, {z: 1}]", True),
        ("[x, x.y]", False),
        ("[y | y := x.a]", True),
        ("count([x])", True),
        ("count([x.y])", False),
        # A builtin may have no value for an argument.
        ("max([x])", False),
    ],
)
def test_an_expression_is_certain_if_all_its_parts_are(text: str, has_value: bool) -> None:
    facts, expression = parsed(text)
    assert certain(expression, facts, RuleTable((facts.file,))) is has_value


def test_a_lookup_that_was_a_statement_is_certain() -> None:
    facts, expression = parsed("x.y")
    facts.stated.add((("", "x"), (".", "y")))
    assert certain(expression, facts, RuleTable((facts.file,)))


@pytest.mark.parametrize(
    "body",
    [
        "x := request.resource.properties.owner\nis_string(x)\nstartswith(x, \"a\")",
        "is_string(request.resource.properties.owner)\nstartswith(request.resource.properties.owner, \"a\")",
        "x := request.resource.properties.owner\nx == request.context.user.id\nstartswith(x, \"a\")",
        "x := request.resource.properties.owner\n\"a\" == x\nstartswith(x, \"a\")",
        "x := request.resource.properties.owner\nx in [\"a\", \"b\"]\nstartswith(x, \"a\")",
        "x := request.resource.properties.tags\nis_array(x)\nsome y in x\nis_string(y)\nstartswith(y, \"a\")",
        "is_number(data.odd[request.action.name])\ndata.odd[request.action.name] + 1 > 1",
        "i := request.context.delivery\nxs := request.context.chain\nis_string(xs[i])\nstartswith(xs[i], \"a\")",
        "is_number(request.action.properties[request.context.tenant])\nrequest.action.properties[request.context.tenant] > 1",
    ],
)  # fmt: skip
def test_guards_narrow_a_name_or_a_lookup(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ("x := request.resource.properties.owner\nnot is_string(x)\nstartswith(x, \"a\")", ["type"]),
        ("x := request.resource.properties.owner\nis_number(x)\nstartswith(x, \"a\")", ["type"]),
        ("x := request.resource.properties.tags\nis_array(x)\nconcat(\"\", x) == \"\"", ["type"]),
        ("data.odd[request.action.name] + 1 == 2", ["type"]),
        ('x := 1\nis_string(x)\nstartswith(x, "a")', ["match"]),
    ],
)  # fmt: skip
def test_without_its_guard_a_value_may_be_of_another_type(body: str, forms: list[str]) -> None:
    assert refused(decides(body)) == forms


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ("decide(request) := 1 if { request.v == 1 } else := 2", []),
        ("decide(request) := request.resource.properties.a if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := a if { a := request.resource.properties.a } else := 2", []),
        ("decide(request) := request.resource.properties.a if { request.resource.properties.a } else := 2", []),
        ("decide(request) := data.people[request.context.user.id] if { data.people[request.context.user.id] } else := 2", []),
        ("decide(request) := data.people[_] if { data.people[_] } else := 2", ["conflict", "else"]),
        ("decide(request) := {\"a\": [count(\"a\" == 1)]} if { request.v == 1 } else := 2", ["type"]),
        ("decide(request) := {\"a\": [trim_space(\"a\"), 1 + 2]} if { request.v == 1 } else := 2", []),
        ("decide(request) := [f(1)] if { request.v == 1 } else := 2\nf(x) := x if { x > 2 }", ["else"]),
        ("decide(request) := [f(1)] if { request.v == 1 } else := 2\nf(x) := {\"a\": [x]}", []),
        ("decide(request) := f(request.v, 1) if { request.v == 1 } else := 2\nf(x, _) := [y | some y in [x]]", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := data.limits[x]", ["else"]),
        ("decide(request) := f(\"a\") if { request.v == 1 } else := 2\nf(\"a\") := 1", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := g(x)\ng(x) := [x]", []),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := g(x)\ng(x) := [x] if { x > 1 }", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := 1 if { x > 2 }\nf(x) := 1", []),
        ("decide(request) := max([1]) if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := [input.a][0] if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := 1 if { request.v == 1 } else := request.resource.properties.a", []),
    ],
)  # fmt: skip
def test_an_else_needs_a_value_before_it_that_is_certain(rules: str, forms: list[str]) -> None:
    assert refused(rules) == forms
