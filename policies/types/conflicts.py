"""Conflicts: two values where only one may be, which is an error, but not always in both engines.

OPA stops at the first of several definitions if all give the same constant, and regorus goes on. So a policy is refused
if two values could meet: in a rule with several definitions, in one whose body has several solutions, and under one key
of an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

from sealbus.policies.lint.module import Problem
from sealbus.policies.lint.syntax import (
    Body,
    Comprehension,
    Expression,
    File,
    Infix,
    Names,
    Negation,
    Number,
    Plain,
    Reference,
    Rule,
    Scalar,
    SomeIn,
    SomeNames,
    Text,
    Variable,
    children,
    constant,
    leading_names,
)


def conflicts(
    definitions: Mapping[Names, Sequence[tuple[File, Rule]]], kind: Callable[[Names], str]
) -> Iterator[Problem]:
    """Yield every definition that could give a different value than another one, or several values itself."""
    for path, every_one in definitions.items():
        given = [(file, rule) for file, rule in every_one if rule.kind != "default"]
        if kind(path) == "contains":
            continue
        rules = [rule for _, rule in given]
        several = sum(_branches(rule) for rule in rules) > 1
        values = [value for rule in rules for value in _values(rule)]
        fixed = all(value is None or constant(value) for value in values)
        alike = fixed and len({written(value) for value in values}) == 1
        apart = all(_branches(rule) == 1 for rule in rules) and _apart(rules)
        for file, rule in given:
            if kind(path) == "object":
                if not alike and (several or len(rule.bodies) > 1 or not _keyed(rule)):
                    yield _problem(file, rule, "two values might meet under one key: take the key from `some k, v in`")
                continue
            if several and not alike and not apart:
                yield _problem(file, rule, "definitions with different values might both hold: write `else`")
            for body, value in _branch_values(rule):
                if value is not None and not constant(value) and (solutions_of(body) or iterates(value)):
                    text = "this may have several values: collect them ([x | ...]), then take one"
                    yield Problem.at(file.path, value.place, "conflict", text)


def unique(key: Expression, value: Expression, body: Body) -> bool:
    """Return whether no key of `{key: value | body}` can come with two values."""
    if constant(value):
        return True
    solutions = solutions_of(body)
    if len(solutions) != 1 or not isinstance(solutions[0], SomeIn) or iterates(key) or iterates(value):
        return False
    named = solutions[0].key
    return isinstance(key, Variable) and isinstance(named, Variable) and key.name == named.name != "_"


def written(expression: Expression | None) -> object:
    """Return what is equal for expressions that are written alike; `true` for none, as in a head."""
    if expression is None:
        return ("Scalar", True)
    own = [getattr(expression, name) for name in ("value", "written", "name", "operator") if hasattr(expression, name)]
    if isinstance(expression, Number):
        own = [int(expression.written)]  # -0 is 0
    if isinstance(expression, Comprehension):
        own = [expression.place]  # never equal to another
    return (type(expression).__name__, *map(str, own), *map(written, children(expression)))


def _problem(file: File, rule: Rule, text: str) -> Problem:
    return Problem.at(file.path, rule.place, "conflict", text)


def _branches(rule: Rule) -> int:
    """Return how many bodies of `rule` may hold together."""
    return max(1, sum(not body.is_else for body in rule.bodies))


def _branch_values(rule: Rule) -> list[tuple[Body | None, Expression | None]]:
    if not rule.bodies:
        return [(None, rule.value)]
    return [(body, body.value if body.is_else else rule.value) for body in rule.bodies]


def _values(rule: Rule) -> list[Expression | None]:
    return [value for _, value in _branch_values(rule)]


def _apart(rules: Sequence[Rule]) -> bool:
    """Return whether no two of `rules` can hold together: they compare one thing with different literals, or oppositely."""
    asked = [_asked(rule) for rule in rules]
    return all(_excluded(one, other) for one, other in combinations(asked, 2))


def _asked(rule: Rule) -> list[tuple[str, object, object]]:
    """Return the comparisons with literals in `rule`: `Eq` or `Ne`, what is compared, and the literal."""
    found: list[tuple[str, object, object]] = [
        ("Eq", number, written(one))
        for number, one in enumerate(rule.arguments)
        if isinstance(one, Scalar | Text | Number)
    ]
    for statement in rule.bodies[0].statements if len(rule.bodies) == 1 else ():
        if isinstance(statement, Plain) and isinstance(statement.expression, Infix):
            said = statement.expression
            for one, other in ((said.left, said.right), (said.right, said.left)):
                if isinstance(other, Scalar | Text | Number):
                    found.append((said.operator, written(one), written(other)))
    return found


def _excluded(one: Sequence[tuple[str, object, object]], other: Sequence[tuple[str, object, object]]) -> bool:
    for (operator, asked, literal), (opposite, also, another) in product(one, other):
        if asked != also:
            continue
        if operator == opposite == "Eq" and literal != another:
            return True
        if {operator, opposite} == {"Eq", "Ne"} and literal == another:
            return True
    return False


def _keyed(rule: Rule) -> bool:
    """Return whether no key of a rule such as `r[key] := value if ...` can come with two values."""
    path = rule.head.path if isinstance(rule.head, Reference) else ()
    value = rule.value
    if value is None or len(path) != len(leading_names(rule.head)) or iterates(path[-1]) or iterates(value):
        # More than one part of the head varies.
        return False
    body = rule.bodies[0] if rule.bodies else None
    return not solutions_of(body) or (body is not None and unique(path[-1], value, body))


def solutions_of(body: Body | None) -> list[object]:
    """Return what may give `body` several solutions: iterations, and references with a name that has no value yet."""
    found: list[object] = []
    for statement in body.statements if body is not None else ():
        match statement:
            case SomeIn():
                found.append(statement)
                if iterates(statement.collection):
                    found.append(statement.collection)
            case SomeNames():
                found.extend(statement.names)
            case Plain(expression=expression) | Negation(expression=expression):
                if iterates(expression):
                    found.append(expression)
            case _:
                pass
    return found


def iterates(expression: Expression) -> bool:
    """Return whether `expression` stands for several values, by `_`."""
    if isinstance(expression, Comprehension):
        return False
    if isinstance(expression, Variable):
        return expression.name == "_"
    return any(iterates(child) for child in children(expression))
