"""What is read from prints: which body was evaluated where, and at which literal it came to an end."""

from __future__ import annotations

import json

import pytest

from sealbus.policies.explain import trace
from sealbus.policies.explain.rewriting import Rewritten, rewrite
from sealbus.policies.explain.trace import UNDEFINED, BodyTried, LiteralTried, causes, read_prints
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.regorus import Interpreter


def traced(text: str, document: object, rule: str = "r") -> tuple[tuple[BodyTried, ...], Rewritten]:
    written = rewrite([Module(path="p.rego", text=f"package p\n\n{text}\n")], [])
    interpreter = Interpreter(written.modules, b"{}", gather=True)
    interpreter.evaluate(f"data.p.{rule}", json.dumps(document).encode())
    return read_prints(interpreter.prints(), written), written


def failed(text: str, document: object) -> list[tuple[str, tuple[object, ...]]]:
    """Return the literals because of which the rule `r` did not hold, with what they looked at."""
    bodies, written = traced(text, document)
    return [(written.sites[one.site].written, one.values) for one in causes(bodies, written)]


def test_the_literal_that_failed_is_the_last_one_that_was_begun() -> None:
    text = "r if {\n\tinput.a == 1\n\tinput.b == 2\n\tinput.c == 3\n}"
    assert failed(text, {"a": 1, "b": 1}) == [("input.b == 2", (1,))]
    assert failed(text, {"a": 1, "b": 2}) == [("input.c == 3", (UNDEFINED,))]
    assert failed(text, {"a": 1, "b": 2, "c": 3}) == []


def test_each_alternative_has_its_literal() -> None:
    text = "r if {\n\tinput.a == 1\n} else if {\n\tinput.a == 2\n}\n\nr if input.a == 3"
    assert [said for said, _ in failed(text, {"a": 4})] == ["input.a == 1", "input.a == 2", "input.a == 3"]
    assert failed(text, {"a": 2}) == []


def test_what_failed_inside_a_function_is_the_cause() -> None:
    text = "r if f(input.a) == true\n\nf(x) if {\n\tx != 1\n\tx != 2\n} else := false"
    assert failed(text, {"a": 2}) == [("x != 2", (2,))]


def test_a_function_that_held_is_no_cause_though_its_first_body_failed() -> None:
    text = 'r if f(input.a) == "b"\n\nf(x) := "a" if {\n\tx == 1\n} else := "c" if {\n\tx == 2\n}'
    assert failed(text, {"a": 2}) == [('f(input.a) == "b"', (2,))]


def test_a_negation_fails_because_of_what_it_names() -> None:
    text = "r if not f(input.a)\n\nf(x) if x == 1\n\nf(x) if x == 2"
    assert failed(text, {"a": 2}) == [("not f(input.a)", (2,))]


def test_an_every_fails_at_an_element() -> None:
    text = "r if every name, amount in input.amounts {\n\tamount > 0\n\tamount < input.most[name]\n}"
    document = {"amounts": {"a": 1, "b": 5, "c": 2}, "most": {"a": 3, "b": 4, "c": 1}}
    assert failed(text, document)[0] == ("amount < input.most[name]", (5, 4, "b"))


def test_a_loop_fails_for_each_of_its_values() -> None:
    text = "r if {\n\tsome one in input.given\n\tone.by != input.user\n\tone.said == true\n}"
    document = {"user": "a", "given": [{"by": "a", "said": True}, {"by": "b", "said": False}]}
    assert failed(text, document) == [("one.by != input.user", ("a", "a")), ("one.said == true", (False,))]
    assert failed(text, {"user": "a", "given": []}) == [("some one in input.given", ([],))]
    assert failed(text, {"user": "a", "given": [{"by": "a"}, {"by": "b", "said": True}]}) == []


def test_two_loops_inside_one_another() -> None:
    text = "r if {\n\tsome a in input.x\n\tsome b in input.y\n\ta == b\n}"
    assert failed(text, {"x": [1, 2], "y": [3, 4]}) == [("a == b", (a, b)) for a in (1, 2) for b in (3, 4)]


def test_a_copy_of_a_name_is_not_taken_for_what_failed() -> None:
    text = "r if {\n\tx := input.a\n\ty := x\n\tinput.b == 1\n\ty == 2\n}"
    assert failed(text, {"a": 2, "b": 3}) == [("input.b == 1", (3,))]
    assert failed(text, {"a": 3, "b": 1}) == [("y == 2", (3,))]


def test_a_copy_of_a_rule_without_a_value_failed() -> None:
    assert failed("r if {\n\ty := q\n\tinput.b == 1\n\ty == 2\n}\n\nq if input.c", {"b": 1})[0] == (
        "input.c",
        (UNDEFINED,),
    )


def test_names_of_some_are_given_a_value_by_the_first_literal_that_uses_them() -> None:
    text = "r if {\n\tsome x\n\tinput.list[x] == 2\n\tx != 1\n}"
    assert [said for said, _ in failed(text, {"list": [1, 2]})] == ["x != 1"]
    assert failed(text, {"list": [1, 1, 2]}) == []


def test_a_rule_that_is_asked_twice_is_told_where_it_was_evaluated_first() -> None:
    bodies, written = traced("r if {\n\tq\n\tq\n}\n\nq if input.a", {"a": True})
    assert [len(literal.bodies) for literal in bodies[0].literals] == [1, 0]
    assert [body.held for body in bodies] == [True]
    assert written.bodies[1].rule == ("p", "q")


def test_values_with_names_have_what_ran_for_each() -> None:
    text = 'r := words if {\n\twords := {"a": f(input.a), "b": f(input.b)}\n}\n\nf(x) if {\n\tx == 1\n} else := false'
    bodies, written = traced(text, {"a": 1, "b": 2})
    [named] = [literal.named for literal in bodies[0].literals]
    assert [(name, [one.held for one in ran]) for name, ran in named] == [("a", [True]), ("b", [False])]
    assert [written.sites[one.site].written for one in causes(named[1][1], written)] == ["x == 1"]


def test_a_body_that_no_literal_ran_stands_alone() -> None:
    text = "r := [f(input.a), f(input.b)]\n\nf(x) if {\n\tx == 1\n} else := false"
    bodies, _ = traced(text, {"a": 1, "b": 2})
    assert [body.held for body in bodies] == [True, False]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("plain", "plain"),
        ("", ""),
        ("<undefined>", "<undefined>"),
        ('q 0\n"p 0" {"members":1} \u202e', 'q 0\n"p 0" {"members":1} \u202e'),
        ("x" * 300, "x" * 201),
        (True, True),
        (None, None),
        (-9007199254740991, -9007199254740991),
        ({"a": 1}, {"members": 1}),
        (list(range(9)), {"items": 9}),
        ([1, "a", [2], {"b": 3}, None, "y" * 300], [1, "a", "(more)", "(more)", None, "y" * 201]),
        ([], []),
    ],
)
def test_values_are_read_as_they_were_and_never_as_anything_else(value: object, told: object) -> None:
    bodies, _ = traced('r if [input.a, input.b] == "never"', {"a": value, "b": "after"})
    assert bodies[0].literals[0].values == (told, "after")


def test_only_so_many_prints_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "EVENTS", 3)
    bodies, _ = traced("r if {\n\tinput.a == 1\n\tinput.b == 2\n}", {"a": 1, "b": 3})
    assert bodies == (BodyTried(body=0, literals=[LiteralTried(site=0, values=(1,), held=True)]),)
