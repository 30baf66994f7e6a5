"""From text to syntax values, with places."""

from __future__ import annotations

import pytest

from sealbus.policies.lint import parse as parsing
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.parse import parse
from sealbus.policies.lint.syntax import (
    Array,
    Assign,
    Call,
    Comprehension,
    Every,
    Expression,
    File,
    Import,
    Infix,
    Membership,
    Negation,
    Negative,
    Number,
    ObjectLiteral,
    Place,
    Plain,
    Reference,
    Scalar,
    SetLiteral,
    SomeIn,
    SomeNames,
    Statement,
    Text,
    Variable,
)


def file(text: str) -> File:
    return parse(Module(path="a.rego", text=text))


def statement(text: str) -> Statement:
    [rule] = file(f"package p\n\nr if {{\n  {text}\n}}\n").rules
    [found] = rule.bodies[0].statements
    return found


def expression(text: str) -> Expression:
    found = statement(f"x := {text}")
    assert isinstance(found, Plain)
    assert isinstance(found.expression, Assign)
    return found.expression.right


def at(column: int, line: int = 4) -> Place:
    return Place(line=line, column=column)


def test_package_and_imports() -> None:
    found = file("package a.b\n\nimport data.c\nimport data.d.e as f\n")
    assert found.package == ("a", "b")
    assert found.imports == (
        Import(place=Place(line=3, column=1), path=("data", "c"), alias="c"),
        Import(place=Place(line=4, column=1), path=("data", "d", "e"), alias="f"),
    )


def test_rules_of_every_kind() -> None:
    found = file(
        "package p\n\n"
        "a := 1\n"
        "b if true\n"
        "c contains x if some x in [1]\n"
        "d(x, 1) := x\n"
        "default e := 2\n"
        "default f(_) := 3\n"
        'g["k"].l[x] := 1 if x := 2\n'
        "h := 1 if { false } else := 2 if { true } else := 3\n"
        "i if { true } { false }\n"
    ).rules
    kinds = [rule.kind for rule in found]
    assert kinds == [
        "complete",
        "complete",
        "contains",
        "function",
        "default",
        "default",
        "complete",
        "complete",
        "complete",
    ]
    assert isinstance(found[0].value, Number)
    assert found[1].value is None
    assert isinstance(found[2].key, Variable)
    assert [type(argument).__name__ for argument in found[3].arguments] == ["Variable", "Number"]
    assert [type(argument).__name__ for argument in found[5].arguments] == ["Variable"]
    head = found[6].head
    assert isinstance(head, Reference)
    assert [type(part).__name__ for part in head.path] == ["Text", "Text", "Variable"]
    assert [(body.is_else, body.value is None) for body in found[7].bodies] == [
        (False, True),
        (True, False),
        (True, False),
    ]
    assert [body.is_else for body in found[8].bodies] == [False, False]


def test_statements_of_every_kind() -> None:
    plain = statement("input.x")
    assert isinstance(plain, Plain)
    assert not plain.modified
    negation = statement("not y with input as 1")
    assert isinstance(negation, Negation)
    assert negation.modified
    names = statement("some a, b")
    assert isinstance(names, SomeNames)
    assert names.names == (Variable(place=at(8), name="a"), Variable(place=at(11), name="b"))
    one = statement("some v in c")
    assert isinstance(one, SomeIn)
    assert one.key is None
    two = statement("some k, v in c")
    assert isinstance(two, SomeIn)
    assert two.key == Variable(place=at(8), name="k")
    every = statement("every k, v in c { v }")
    assert isinstance(every, Every)
    assert [name.name for name in every.names] == ["k", "v"]
    assert len(every.body.statements) == 1
    lone = statement("every v in c { v }")
    assert isinstance(lone, Every)
    assert [name.name for name in lone.names] == ["v"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("y", Variable),
        ("true", Scalar),
        ("null", Scalar),
        ('"t"', Text),
        ("`t`", Text),
        ("-7", Number),
        ("y.z", Reference),
        ("[1, y]", Array),
        ("{1, y}", SetLiteral),
        ("set()", SetLiteral),
        ('{"k": y}', ObjectLiteral),
        ("[z | z := y]", Comprehension),
        ("{z | z := y}", Comprehension),
        ("{z: 1 | z := y}", Comprehension),
        ("f(y)", Call),
        ("y + 1", Infix),
        ("y == 1", Infix),
        ("y | z", Infix),
        ("y in z", Membership),
        ("-y", Negative),
    ],
)
def test_expressions_of_every_kind(text: str, kind: type[object]) -> None:
    found = expression(text)
    assert type(found) is kind
    assert found.place == at(8)


def test_members_of_pairs() -> None:
    found = statement("k, v in c")
    assert isinstance(found, Plain)
    assert isinstance(found.expression, Membership)
    assert found.expression.key == Variable(place=at(3), name="k")


def test_references_are_flat_and_start_where_they_start() -> None:
    found = expression('data.a["b"][c].d')
    assert isinstance(found, Reference)
    assert found.place == at(8)
    assert [part.value if isinstance(part, Text) else "?" for part in found.path] == ["a", "b", "?", "d"]


def test_texts_numbers_and_operators_as_written() -> None:
    assert expression('"a\\u00e9\\n"') == Text(place=at(8), value="aé\n")
    assert expression("1.50e1") == Number(place=at(8), written="1.50e1")
    found = expression("y / 2")
    assert isinstance(found, Infix)
    assert found.operator == "Div"
    unified = statement("y = 1")
    assert isinstance(unified, Plain)
    assert isinstance(unified.expression, Assign)
    assert not unified.expression.declares


@pytest.mark.parametrize(
    ("text", "name"),
    [("f(1)", ("f",)), ("a.f(1)", ("a", "f")), ("data.p.f(1)", ("data", "p", "f"))],
)
def test_what_is_called(text: str, name: tuple[str, ...]) -> None:
    found = expression(text)
    assert isinstance(found, Call)
    assert found.name == name


def test_places_count_characters_not_bytes() -> None:
    [rule] = file('package p\n\n# ü☃\nr := ["ü☃", x]\n').rules
    assert isinstance(rule.value, Array)
    assert rule.value.items[1].place == Place(line=4, column=13)


def test_what_regorus_cannot_parse() -> None:
    with pytest.raises(PolicyRefused) as refused:
        file("package p\n\nr := $\n")
    [problem] = refused.value.problems
    assert (problem.line, problem.column, problem.text) == (3, 6, "invalid character")


def test_syntax_that_nobody_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    span = {"line": 1, "col": 1, "start": 0, "end": 1}
    unknown = {"Novelty": {"span": span}}
    package = {"refr": {"Var": {"span": span, "value": "p"}}}

    def tree_of(rule: object) -> object:
        return lambda _: {"package": package, "imports": [], "rules": [rule]}

    head = {"Compr": {"refr": {"Var": {"span": span, "value": "r"}}, "assign": None}}
    query = {"span": span, "stmts": [{"literal": unknown}]}
    body = {"span": span, "assign": None, "is_else": False, "query": query}
    for rule in (
        {"Default": {"span": span, "refr": unknown, "args": [], "value": unknown}},
        {"Spec": {"span": span, "head": head, "bodies": [body]}},
    ):
        monkeypatch.setattr(parsing, "parse_module", tree_of(rule))
        with pytest.raises(PolicyRefused, match="Novelty is syntax that was not compared"):
            file("x")
