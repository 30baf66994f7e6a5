"""Ways through parsed Rego: what is inside what."""

from __future__ import annotations

from collections.abc import Iterator

from sealbus.policies.syntax import (
    Array,
    Assign,
    Body,
    Call,
    Comprehension,
    Every,
    Expression,
    Infix,
    Membership,
    Names,
    Negative,
    Number,
    ObjectLiteral,
    Reference,
    Rule,
    Scalar,
    SetLiteral,
    SomeIn,
    SomeNames,
    Statement,
    Text,
    Variable,
)

__all__ = ["children", "constant", "every_expression", "expressions_of", "leading_names", "statements"]


def leading_names(expression: Expression) -> Names:
    """Return the plain parts at the start: `data.a[x].b` gives `("data", "a")`, what starts with no name nothing."""
    if isinstance(expression, Variable):
        return (expression.name,)
    if not isinstance(expression, Reference) or not isinstance(expression.head, Variable):
        return ()
    names = [expression.head.name]
    for part in expression.path:
        if not isinstance(part, Text):
            break
        names.append(part.value)
    return tuple(names)


def children(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions directly inside `expression`; a comprehension's terms and body are not among them."""
    match expression:
        case Reference():
            return (expression.head, *expression.path)
        case Array() | SetLiteral() | ObjectLiteral():
            return expression.items
        case Call():
            return expression.arguments
        case Infix() | Assign():
            return (expression.left, expression.right)
        case Membership():
            key = () if expression.key is None else (expression.key,)
            return (*key, expression.value, expression.collection)
        case Negative():
            return (expression.operand,)
        case _:
            return ()


def constant(expression: Expression) -> bool:
    """Say whether `expression` is made of literals alone."""
    if isinstance(expression, Array | SetLiteral | ObjectLiteral):
        return all(constant(item) for item in expression.items)
    return isinstance(expression, Scalar | Text | Number)


def statements(rule: Rule) -> Iterator[Statement]:
    """Yield every statement of `rule`, those inside `every` and comprehensions as well."""
    for body in rule.bodies:
        yield from _statements(body)
    for expression in every_expression(rule):
        if isinstance(expression, Comprehension):
            yield from _statements(expression.body)


def _statements(body: Body) -> Iterator[Statement]:
    for statement in body.statements:
        yield statement
        if isinstance(statement, Every):
            yield from _statements(statement.body)


def every_expression(rule: Rule) -> Iterator[Expression]:
    """Yield every expression of `rule`, each before those inside it; heads themselves are left out, their parts not."""
    if isinstance(rule.head, Reference):
        for part in rule.head.path:
            yield from _inside(part)
    for one in (*rule.arguments, rule.key, rule.value):
        if one is not None:
            yield from _inside(one)
    for body in rule.bodies:
        yield from _of_body(body)


def _of_body(body: Body) -> Iterator[Expression]:
    if body.value is not None:
        yield from _inside(body.value)
    for statement in body.statements:
        yield from expressions_of(statement)


def expressions_of(statement: Statement) -> Iterator[Expression]:
    """Yield every expression of `statement`, each before those inside it."""
    match statement:
        case SomeNames():
            return
        case SomeIn():
            for one in (statement.key, statement.value, statement.collection):
                if one is not None:
                    yield from _inside(one)
        case Every():
            yield from _inside(statement.collection)
            yield from _of_body(statement.body)
        case _:
            yield from _inside(statement.expression)


def _inside(expression: Expression) -> Iterator[Expression]:
    yield expression
    inside = children(expression)
    if isinstance(expression, Reference) and isinstance(expression.head, Variable):
        # The reference says what it refers to; its first name alone would be a use of everything below that.
        inside = expression.path
    for child in inside:
        yield from _inside(child)
    if isinstance(expression, Comprehension):
        for term in expression.terms:
            yield from _inside(term)
        yield from _of_body(expression.body)
