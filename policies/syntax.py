"""Rego's syntax as typed values: what `forms` looks at, made from regorus' own syntax tree.

Only what a check needs is kept. Every node knows where it starts (line and column from 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "Array",
    "Assign",
    "Body",
    "Call",
    "Comprehension",
    "Every",
    "Expression",
    "File",
    "Import",
    "Infix",
    "Membership",
    "Names",
    "Negation",
    "Negative",
    "Number",
    "ObjectLiteral",
    "Place",
    "Plain",
    "Reference",
    "Rule",
    "Scalar",
    "SetLiteral",
    "SomeIn",
    "SomeNames",
    "Statement",
    "Text",
    "Variable",
]

Names: TypeAlias = tuple[str, ...]
"""A path, part by part: parts may hold dots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something starts: line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A name: a local, a rule, an import, `input` or `data`; `_` where nothing is named."""

    place: Place
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """`true`, `false` or `null`."""

    place: Place
    value: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string literal, its escapes resolved."""

    place: Place
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number literal exactly as it is written, its sign included."""

    place: Place
    written: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`head.a["b"][c]`: dotted names are `Text` in `path`."""

    place: Place
    head: Expression
    path: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """`[a, b]`."""

    place: Place
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLiteral:
    """`{a, b}` or `set()`."""

    place: Place
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectLiteral:
    """`{k: v}`: keys and values in turn."""

    place: Place
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comprehension:
    """`[t | body]`, `{t | body}` or `{k: v | body}`."""

    place: Place
    kind: Literal["array", "set", "object"]
    terms: tuple[Expression, ...]
    body: Body


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`f(a)`; `name` is what is called, part by part: Rego calls nothing but plain names."""

    place: Place
    name: Names
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Infix:
    """Arithmetic, comparison or a set operation; `operator` as regorus names it, such as `Add` or `Lt`."""

    place: Place
    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """`v in c` or `k, v in c`."""

    place: Place
    key: Expression | None
    value: Expression
    collection: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """`-x` of anything but a number literal."""

    place: Place
    operand: Expression


@dataclass(frozen=True, slots=True, kw_only=True)
class Assign:
    """`a := b`, or `a = b` where `declares` is false."""

    place: Place
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
class Negation:
    """`not x`."""

    place: Place
    expression: Expression
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """An expression that must be neither false nor undefined."""

    place: Place
    expression: Expression
    modified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeNames:
    """`some a, b`."""

    place: Place
    names: tuple[Variable, ...]
    modified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeIn:
    """`some v in c` or `some k, v in c`."""

    place: Place
    key: Expression | None
    value: Expression
    collection: Expression
    modified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """`every v in c { body }` or `every k, v in c { body }`."""

    place: Place
    names: tuple[Variable, ...]
    collection: Expression
    body: Body
    modified: bool = False


Statement: TypeAlias = Negation | Plain | SomeNames | SomeIn | Every


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Statements that must all hold; `value` is what an `else` after which it stands gives."""

    place: Place
    statements: tuple[Statement, ...]
    value: Expression | None = None
    is_else: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """`import path as alias`; the last part is the alias where none is given."""

    place: Place
    path: Names
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One definition; several of one path make a rule.

    `head` is the name and what follows it; `arguments` are a function's. `key` is what a `contains` adds.
    """

    place: Place
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
