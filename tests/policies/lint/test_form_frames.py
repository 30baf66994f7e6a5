"""Variables and their frames."""

from __future__ import annotations

from sealbus.policies.lint.names import Scope
from sealbus.policies.lint.syntax import Array, ObjectLiteral, Place, Scalar, Variable

PLACE = Place(line=1, column=1)


def variable(name: str) -> Variable:
    return Variable(place=PLACE, name=name)


def test_the_innermost_variable_is_found() -> None:
    scope = Scope(path="a", outside={})
    scope.declare(variable("x"), "argument")
    outside = scope.open()
    scope.declare(variable("y"), "some", bound=False)
    assert scope.origin("x") == "argument"
    assert scope.origin("y") is None
    assert scope.origin("z") is None
    scope.close(outside)
    assert scope.find("y") is None
    assert [problem.form for problem in scope.problems] == ["unused"]


def test_a_name_is_declared_once() -> None:
    scope = Scope(path="a", outside={"rule": "value"})
    for name in ("x", "_", "_", "x", "input", "data", "rule"):
        scope.declare(variable(name), "assigned")
    assert [problem.text.split(":")[0] for problem in scope.problems] == [
        "x is declared already",
        "input cannot be the name of a variable",
        "data cannot be the name of a variable",
        "rule is a rule or an import",
    ]


def test_patterns() -> None:
    scope = Scope(path="a", outside={})
    scope.declare_pattern(Array(place=PLACE, items=(variable("x"), Scalar(place=PLACE))), "assigned")
    assert scope.origin("x") == "assigned"
    scope.declare_pattern(ObjectLiteral(place=PLACE, items=()), "assigned")
    assert [problem.form for problem in scope.problems] == ["pattern"]
