"""Conflicts: two values for one rule or one key. That is an error, but not always in both engines.

OPA stops at the first of several definitions if all give the same constant; regorus goes on. So a policy is refused if two
values are possible for a rule with several definitions, for a rule whose body has several solutions, or for one key of an
object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import Problem


def conflicts(
    definitions: Mapping[syntax.Names, Sequence[tuple[syntax.File, syntax.Rule]]], kind: Callable[[syntax.Names], str]
) -> Iterator[Problem]:
    """Yield a problem for each definition that could give several values, or another value than a second definition."""
    for path, all_definitions in definitions.items():
        given = [(file, rule) for file, rule in all_definitions if rule.kind != "default"]
        if kind(path) == "contains":
            continue
        rules = [rule for _, rule in given]
        several = sum(_branches(rule) for rule in rules) > 1
        values = [value for rule in rules for _, value in _branch_values(rule)]
        fixed = all(value is None or syntax.constant(value) for value in values)
        alike = fixed and len({written(value) for value in values}) == 1
        apart = all(_branches(rule) == 1 for rule in rules) and _apart(rules)
        for file, rule in given:
            if kind(path) == "object":
                if not alike and (several or len(rule.bodies) > 1 or not _keyed(rule)):
                    yield _problem(file, rule, "two values might get the same key: take the key from `some k, v in`")
                continue
            if several and not alike and not apart:
                yield _problem(file, rule, "two definitions with different values might both hold: use `else`")
            for body, value in _branch_values(rule):
                if value is not None and not syntax.constant(value) and (solutions_of(body) or iterates(value)):
                    text = "this may have several values: collect them ([x | ...]), then choose one"
                    yield Problem.at(file.path, value.place, "conflict", text)


def unique(key: syntax.Expression, value: syntax.Expression, body: syntax.Body) -> bool:
    """Return whether each key of `{key: value | body}` has only one value."""
    if syntax.constant(value):
        return True
    solutions = solutions_of(body)
    if len(solutions) != 1 or not isinstance(solutions[0], syntax.SomeIn) or iterates(key) or iterates(value):
        return False
    named = solutions[0].key
    return isinstance(key, syntax.Variable) and isinstance(named, syntax.Variable) and key.name == named.name != "_"


def written(expression: syntax.Expression | None) -> object:
    """Return a value that is equal for equal expressions. A head without a value stands for `true`."""
    if expression is None:
        return ("Scalar", True)
    own = [getattr(expression, name) for name in ("value", "written", "name", "operator") if hasattr(expression, name)]
    if isinstance(expression, syntax.Number):
        own = [int(expression.written)]  # -0 is 0
    if isinstance(expression, syntax.Comprehension):
        own = [expression.place]  # a comprehension equals no other
    return (type(expression).__name__, *map(str, own), *map(written, syntax.children(expression)))


def _problem(file: syntax.File, rule: syntax.Rule, text: str) -> Problem:
    return Problem.at(file.path, rule.place, "conflict", text)


def _branches(rule: syntax.Rule) -> int:
    """Return how many bodies of `rule` may hold at once."""
    return max(1, sum(not body.is_else for body in rule.bodies))


def _branch_values(rule: syntax.Rule) -> list[tuple[syntax.Body | None, syntax.Expression | None]]:
    if not rule.bodies:
        return [(None, rule.value)]
    return [(body, body.value if body.is_else else rule.value) for body in rule.bodies]


def _apart(rules: Sequence[syntax.Rule]) -> bool:
    """Return whether no two of `rules` can hold at once, because their comparisons with literals exclude one another."""
    comparisons = [_literal_comparisons(rule) for rule in rules]
    return all(_excluded(first, other) for first, other in combinations(comparisons, 2))


def _literal_comparisons(rule: syntax.Rule) -> list[tuple[str, object, object]]:
    """Return the comparisons with literals in `rule`: the operator, the compared expression and the literal."""
    comparisons: list[tuple[str, object, object]] = [
        ("Eq", number, written(argument))
        for number, argument in enumerate(rule.arguments)
        if isinstance(argument, syntax.Scalar | syntax.Text | syntax.Number)
    ]
    for statement in rule.bodies[0].statements if len(rule.bodies) == 1 else ():
        if isinstance(statement, syntax.Plain) and isinstance(statement.expression, syntax.Infix):
            comparison = statement.expression
            for side, other in ((comparison.left, comparison.right), (comparison.right, comparison.left)):
                if isinstance(other, syntax.Scalar | syntax.Text | syntax.Number):
                    comparisons.append((comparison.operator, written(side), written(other)))
    return comparisons


def _excluded(comparisons: Sequence[tuple[str, object, object]], other: Sequence[tuple[str, object, object]]) -> bool:
    for (operator, subject, literal), (opposite, also, another) in product(comparisons, other):
        if subject != also:
            continue
        if operator == opposite == "Eq" and literal != another:
            return True
        if {operator, opposite} == {"Eq", "Ne"} and literal == another:
            return True
    return False


def _keyed(rule: syntax.Rule) -> bool:
    """Return whether each key of a rule such as `r[key] := value if ...` has only one value."""
    path = rule.head.path if isinstance(rule.head, syntax.Reference) else ()
    value = rule.value
    if value is None or len(path) != len(syntax.leading_names(rule.head)) or iterates(path[-1]) or iterates(value):
        # More than one part of the head varies.
        return False
    body = rule.bodies[0] if rule.bodies else None
    return not solutions_of(body) or (body is not None and unique(path[-1], value, body))


def solutions_of(body: syntax.Body | None) -> list[object]:
    """Return the parts that may give `body` several solutions: iterations, and references by a name without a value."""
    parts: list[object] = []
    for statement in body.statements if body is not None else ():
        match statement:
            case syntax.SomeIn():
                parts.append(statement)
                if iterates(statement.collection):
                    parts.append(statement.collection)
            case syntax.SomeNames():
                parts.extend(statement.names)
            case syntax.Plain(expression=expression) | syntax.Negation(expression=expression):
                if iterates(expression):
                    parts.append(expression)
            case _:
                pass
    return parts


def iterates(expression: syntax.Expression) -> bool:
    """Return whether `expression` stands for several values, by `_`."""
    if isinstance(expression, syntax.Comprehension):
        return False
    if isinstance(expression, syntax.Variable):
        return expression.name == "_"
    return any(iterates(child) for child in syntax.children(expression))
