"""Rego's syntax as typed values, made from regorus' own syntax tree, and functions to traverse it.

Only what a check needs is kept. Every node knows where it starts (line and column from 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Names: TypeAlias = tuple[str, ...]
"""A path, part by part: parts may hold dots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something starts: line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """A part of a file, with the place where it starts."""

    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable(_Node):
    """A name: a local, a rule, an import, `input` or `data`; `_` is a wildcard."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar(_Node):
    """`true`, `false` or `null`."""

    value: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(_Node):
    """A string literal, its escapes resolved."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(_Node):
    """A number literal exactly as it is written, its sign included."""

    written: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(_Node):
    """`head.a["b"][c]`: dotted names are `Text` in `path`."""

    head: Expression
    path: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Array(_Node):
    """`[a, b]`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLiteral(_Node):
    """`{a, b}` or `set()`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLiteral(_Node):
    """`{k: v}`: keys and values in turn."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comprehension(_Node):
    """`[t | body]`, `{t | body}` or `{k: v | body}`."""

    kind: Literal["array", "set", "object"]
    terms: tuple[Expression, ...]
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Node):
    """`f(a)`; `name` is the name of the function, part by part. Rego calls plain names only."""

    name: Names
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Infix(_Node):
    """Arithmetic, comparison or a set operation; `operator` as regorus names it, such as `Add` or `Lt`."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(_Node):
    """`v in c` or `k, v in c`."""

    key: Expression | None
    value: Expression
    collection: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative(_Node):
    """`-x` of anything but a number literal."""

    operand: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign(_Node):
    """`a := b`, or `a = b` where `declares` is false."""

    declares: bool
    left: Expression
    right: Expression


Expression: TypeAlias = (
    Variable
    | Scalar
    | Text
    | Number
    | Reference
    | Array
    | SetLiteral
    | ObjectLiteral
    | Comprehension
    | Call
    | Infix
    | Membership
    | Negative
    | Assign
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negation(_Node):
    """`not x`."""

    expression: Expression
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(_Node):
    """An expression that must be neither false nor undefined."""

    expression: Expression
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeNames(_Node):
    """`some a, b`."""

    names: tuple[Variable, ...]
    modified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeIn(_Node):
    """`some v in c` or `some k, v in c`."""

    key: Expression | None
    value: Expression
    collection: Expression
    modified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Every(_Node):
    """`every v in c { body }` or `every k, v in c { body }`."""

    names: tuple[Variable, ...]
    collection: Expression
    body: Body
    modified: bool = False


Statement: TypeAlias = Negation | Plain | SomeNames | SomeIn | Every


@dataclass(frozen=True, slots=True, kw_only=True)
class Body(_Node):
    """Statements that must all hold; `value` is that of the `else` before it."""

    statements: tuple[Statement, ...]
    value: Expression | None = None
    is_else: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Import(_Node):
    """`import path as alias`; without `as` the alias is the last part of the path."""

    path: Names
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(_Node):
    """One definition. All definitions of one path together are a rule.

    `head` is the name with its keys. `arguments` are those of a function. `key` is the member that a `contains` adds.
    """

    kind: Literal["complete", "contains", "function", "default"]
    head: Expression
    arguments: tuple[Expression, ...] = ()
    value: Expression | None = None
    key: Expression | None = None
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A parsed Rego file; its package is without `data`."""

    path: str
    package: Names
    imports: tuple[Import, ...] = ()
    rules: tuple[Rule, ...] = ()


def leading_names(expression: Expression) -> Names:
    """Return the plain parts at the start: `("data", "a")` for `data.a[x].b`; empty if the start is no name."""
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
    """Return the expressions directly inside `expression`, without a comprehension's terms and body."""
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
    """Return whether `expression` consists of literals only."""
    if isinstance(expression, Array | SetLiteral | ObjectLiteral):
        return all(constant(item) for item in expression.items)
    return isinstance(expression, Scalar | Text | Number)


def statements(rule: Rule) -> Iterator[Statement]:
    """Yield every statement of `rule`, including those inside `every` and comprehensions."""
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
    """Yield every expression of `rule`, outer ones first. Of a head, only the keys."""
    if isinstance(rule.head, Reference):
        for part in rule.head.path:
            yield from _inside(part)
    for expression in (*rule.arguments, rule.key, rule.value):
        if expression is not None:
            yield from _inside(expression)
    for body in rule.bodies:
        yield from _of_body(body)


def _of_body(body: Body) -> Iterator[Expression]:
    if body.value is not None:
        yield from _inside(body.value)
    for statement in body.statements:
        yield from expressions_of(statement)


def expressions_of(statement: Statement) -> Iterator[Expression]:
    """Yield every expression of `statement`, outer ones first."""
    match statement:
        case SomeNames():
            return
        case SomeIn():
            for expression in (statement.key, statement.value, statement.collection):
                if expression is not None:
                    yield from _inside(expression)
        case Every():
            yield from _inside(statement.collection)
            yield from _of_body(statement.body)
        case _:
            yield from _inside(statement.expression)


def _inside(expression: Expression) -> Iterator[Expression]:
    yield expression
    inside = children(expression)
    if isinstance(expression, Reference) and isinstance(expression.head, Variable):
        # The reference as a whole names its target; its first name alone would count as a use of everything below it.
        inside = expression.path
    for child in inside:
        yield from _inside(child)
    if isinstance(expression, Comprehension):
        for term in expression.terms:
            yield from _inside(term)
        yield from _of_body(expression.body)
