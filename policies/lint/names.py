"""The variables of a rule: each is declared once, before it is used.

OPA and regorus both sort the statements of a body before they run them, by different rules. If every name is declared
before its use, neither engine has anything to sort, and the body means the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import Problem
from sealbus.policies.lint.undefined import undefinable
from sealbus.policies.types.builtins import BUILTINS

_ROOTS: Final = frozenset({"input", "data"})

Outer: TypeAlias = Literal["value", "function"]
"""The kind of a name outside a rule: a rule or import with a value, or a function."""

Origin: TypeAlias = Literal["argument", "some", "every", "assigned"]
"""How a variable gets its value."""


def check_names(path: str, rule: syntax.Rule, outside: Mapping[str, Outer], *, relaxed: bool = False) -> list[Problem]:
    """Return the problems with the names of `rule`, a rule of the file `path`.

    `outside` has the names of the file's imports and of its package's rules. `relaxed` is for tests, which may use `with`.
    """
    scope = Scope(path=path, outside=outside)
    _Names(scope=scope, relaxed=relaxed).rule(rule)
    return scope.problems


@dataclass(slots=True, kw_only=True)
class _Names:
    scope: Scope
    relaxed: bool
    in_term: bool = False
    in_head: bool = False
    """Whether the place is a head or an else value with a body. There regorus runs no comprehension."""
    before_else: bool = False
    """Whether the place is a head before an else. There regorus looks up every key, not only the key that the body found."""

    # Rules and bodies

    def rule(self, rule: syntax.Rule) -> None:
        for argument in rule.arguments:
            self.scope.declare_pattern(argument, "argument")
        arguments = self.scope.frame
        if not rule.bodies:
            self.head(rule)
        for body in rule.bodies:
            self.scope.open()
            self.body(body)
            self.in_head = True
            if body.is_else:
                self.optional(body.value)
            else:
                self.before_else = len(rule.bodies) > 1
                self.head(rule)
                self.before_else = False
            self.in_head = False
            self.scope.close(arguments)

    def head(self, rule: syntax.Rule) -> None:
        """Check a head, after the body that gives its names their values."""
        if isinstance(rule.head, syntax.Reference):
            for part in rule.head.path:
                self.expression(part)
        self.optional(rule.key)
        self.optional(rule.value)

    def optional(self, expression: syntax.Expression | None) -> None:
        if expression is not None:
            self.expression(expression)

    def body(self, body: syntax.Body) -> None:
        copies: list[syntax.Variable] = []
        for statement in body.statements:
            if copies and _has_every(statement):
                # regorus defers copies to the end, and does not see that an `every` needs them. It runs the `every` without
                # them, and treats a name without a value as any value.
                text = "an `every` follows this copy of a name, and may run before it: use the name itself"
                for copy in copies:
                    self.scope.refuse(copy.place, "copy", text)
                copies = []
            self.statement(statement)
            if isinstance(statement, syntax.Plain) and isinstance(statement.expression, syntax.Assign):
                copies.extend(self.copied(statement.expression.left, statement.expression.right))

    def copied(self, left: syntax.Expression, right: syntax.Expression) -> Iterator[syntax.Variable]:
        """Yield the names that `left := right` copies, if the same body gives them their values."""
        if isinstance(right, syntax.Variable):
            local = self.scope.frame.locals.get(right.name)
            if local is not None and local.origin != "every":
                yield right
        elif isinstance(left, syntax.Array) and isinstance(right, syntax.Array):
            for left_item, other in zip(left.items, right.items, strict=False):
                yield from self.copied(left_item, other)

    def statement(self, statement: syntax.Statement) -> None:
        if statement.modified and not self.relaxed:
            self.scope.refuse(
                statement.place, "with", "`with` is for tests: pass the value as an argument of a function"
            )
        match statement:
            case syntax.Plain():
                self.plain(statement.expression)
            case syntax.Negation():
                problem = undefinable(statement.expression, self.scope.origin)
                if problem is not None:
                    self.scope.refuse(problem[0], "negation", problem[1])
                self.expression(statement.expression, binds=False)
            case syntax.SomeNames():
                for variable in statement.names:
                    self.scope.declare(variable, "some", bound=False)
            case syntax.SomeIn():
                self.expression(statement.collection)
                for pattern in (statement.key, statement.value):
                    if pattern is not None:
                        self.scope.declare_pattern(pattern, "assigned")
            case _:
                self.expression(statement.collection)
                outside = self.scope.open()
                for variable in statement.names:
                    self.scope.declare(variable, "every")
                self.body(statement.body)
                self.scope.close(outside)

    def plain(self, expression: syntax.Expression) -> None:
        if not isinstance(expression, syntax.Assign):
            self.expression(expression)
            inside = list(_inside(expression))
            if any(isinstance(part, syntax.Reference) and isinstance(part.head, syntax.Variable) for part in inside):
                for part in inside:
                    if isinstance(part, syntax.Comprehension):
                        # OPA assumes that the reference gives values to the names of the comprehension.
                        text = "a comprehension beside a reference: name it first (x := ...), then use the name"
                        self.scope.refuse(part.place, "closure", text)
        elif not expression.declares:
            self.scope.refuse(expression.place, "unify", "write := to name a value or == to compare two")
        else:
            self.assign(expression)

    def assign(self, expression: syntax.Assign) -> None:
        self.expression(expression.right)
        left, right = expression.left, expression.right
        if isinstance(left, syntax.Array) and isinstance(right, syntax.Array) and len(left.items) != len(right.items):
            self.scope.refuse(left.place, "pattern", "the two arrays differ in length")
        if _has_literal(left):
            self.scope.refuse(left.place, "pattern", "the left side of := has names only")
        self.scope.declare_pattern(left, "assigned")

    # Uses

    def expression(self, expression: syntax.Expression, *, binds: bool = True) -> None:
        match expression:
            case syntax.Variable():
                self.use(expression)
            case syntax.Reference():
                self.reference(expression, binds=binds)
            case syntax.Comprehension():
                self.comprehension(expression)
            case syntax.Assign():
                self.scope.refuse(expression.place, "assign", "an assignment must be a statement of its own")
            case syntax.Call():
                self.call(expression, binds=binds)
            case _:
                for child in syntax.children(expression):
                    self.expression(child, binds=binds)

    def reference(self, expression: syntax.Reference, *, binds: bool) -> None:
        self.expression(expression.head, binds=binds)
        for part in expression.path:
            if not isinstance(part, syntax.Variable):
                self.expression(part, binds=binds)
            elif part.name == "_":
                if not binds:
                    self.scope.refuse(
                        part.place, "negation", "_ under `not`: write a rule for this and negate the rule"
                    )
            else:
                if binds and part.name in self.scope.frame.locals:
                    self.scope.frame.locals[part.name].bound = True
                if self.before_else and self.scope.origin(part.name) in ("some", "assigned"):
                    text = f"[{part.name}] in a value that an else follows: look it up in the body, then use the name"
                    self.scope.refuse(part.place, "else", text)
                self.use(part)

    def call(self, expression: syntax.Call, *, binds: bool) -> None:
        if self.scope.find(expression.name[0]) is not None:
            self.scope.refuse(
                expression.place, "function-value", f"{expression.name[0]} is a variable here, not a function"
            )
        for argument in expression.arguments:
            self.expression(argument, binds=binds)

    def comprehension(self, expression: syntax.Comprehension) -> None:
        if self.in_term:
            text = "a comprehension inside another one's term: name it in the body, then use the name"
            self.scope.refuse(expression.place, "closure", text)
        elif self.in_head:
            text = "a comprehension beside a body: name it in the body, then use the name"
            self.scope.refuse(expression.place, "closure", text)
        outside = self.scope.open()
        within, self.in_term = self.in_term, False
        self.body(expression.body)
        self.in_term = True
        for term in expression.terms:
            self.expression(term)
            for name in _bare(term):
                if self.scope.origin(name.name) == "argument":
                    # OPA's compiler takes the collection to be empty, and refuses lookups in it.
                    text = f"a comprehension's term has the argument {name.name} unchanged: name it first (x := {name.name})"
                    self.scope.refuse(name.place, "closure", text)
        self.in_term = within
        self.scope.close(outside)

    def use(self, variable: syntax.Variable) -> None:
        name, place = variable.name, variable.place
        if name in _ROOTS:
            return
        declared = self.scope.find(name)
        if declared is None:
            self.use_outer(variable)
            return
        _, local = declared
        local.used = True
        if not local.bound:
            self.scope.refuse(
                place, "unsafe", f"{name} has no value yet: a reference such as list[{name}] gives it one"
            )

    def use_outer(self, variable: syntax.Variable) -> None:
        name = variable.name
        kind = self.scope.outside.get(name)
        if kind is None:
            text = "_ has no value" if name == "_" else f"{name} is not declared: use := or some, or define a rule"
            self.scope.refuse(variable.place, "unsafe", text)
        elif kind == "function":
            self.scope.refuse(variable.place, "function-value", f"{name} is a function: call it")


def _has_every(statement: syntax.Statement) -> bool:
    """Return whether `statement` is an `every`, or holds one in a comprehension."""
    return isinstance(statement, syntax.Every) or any(
        isinstance(expression, syntax.Comprehension) and any(map(_has_every, expression.body.statements))
        for expression in syntax.expressions_of(statement)
    )


def _inside(expression: syntax.Expression) -> Iterator[syntax.Expression]:
    """Yield `expression` and those inside it, except inside comprehensions and calls of builtins: OPA checks these first."""
    yield expression
    if not isinstance(expression, syntax.Call) or ".".join(expression.name) not in BUILTINS:
        for child in syntax.children(expression):
            yield from _inside(child)


def _bare(expression: syntax.Expression) -> Iterator[syntax.Variable]:
    """Yield the variable that `expression` is, or the variables that a collection literal directly holds."""
    if isinstance(expression, syntax.Variable):
        yield expression
    elif isinstance(expression, syntax.Array | syntax.SetLiteral | syntax.ObjectLiteral):
        for item in expression.items:
            yield from _bare(item)


def _has_literal(expression: syntax.Expression) -> bool:
    if isinstance(expression, syntax.Array):
        return any(_has_literal(item) for item in expression.items)
    return isinstance(expression, syntax.Scalar | syntax.Text | syntax.Number)


@dataclass(slots=True, kw_only=True)
class Local:
    """One variable; `bound` is whether it has a value. All variables but those of `some x` have one from the start."""

    place: syntax.Place
    origin: Origin
    bound: bool = True
    used: bool = False


@dataclass(slots=True, kw_only=True)
class Frame:
    """The variables that one body, comprehension or `every` declares."""

    parent: Frame | None = None
    locals: dict[str, Local] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Scope:
    """The frames around one place of a rule in the file `path`, innermost first, and the problems found so far.

    `outside` has the names of the file's imports and of its package's rules.
    """

    path: str
    outside: Mapping[str, Outer]
    problems: list[Problem] = field(default_factory=list)
    frame: Frame = field(default_factory=Frame)

    def refuse(self, place: syntax.Place, form: str, text: str) -> None:
        """Add a problem."""
        self.problems.append(Problem.at(self.path, place, form, text))

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, innermost first."""
        frame: Frame | None = self.frame
        while frame is not None:
            yield frame
            frame = frame.parent

    def find(self, name: str) -> tuple[Frame, Local] | None:
        """Return the variable `name` and its frame."""
        for frame in self.frames():
            if name in frame.locals:
                return frame, frame.locals[name]
        return None

    def origin(self, name: str) -> Origin | None:
        """Return how the variable `name` got its value; None if it is not a variable or has no value yet."""
        declared = self.find(name)
        return declared[1].origin if declared is not None and declared[1].bound else None

    def open(self) -> Frame:
        """Enter a new frame and return the one around it, for `close`."""
        outside = self.frame
        self.frame = Frame(parent=outside)
        return outside

    def close(self, outside: Frame) -> None:
        """Leave the innermost frame for `outside`; OPA refuses unused names of `some x` and `every`."""
        for name, local in self.frame.locals.items():
            if not local.used and local.origin in ("some", "every"):
                self.refuse(local.place, "unused", f"{name} is declared and never used: write _ or leave it out")
        self.frame = outside

    def declare(self, variable: syntax.Variable, origin: Origin, *, bound: bool = True) -> None:
        """Declare a variable in the innermost frame; `_` declares nothing."""
        name, place = variable.name, variable.place
        if name == "_":
            return
        if name in _ROOTS:
            self.refuse(place, "shadow", f"{name} cannot be the name of a variable")
        elif self.find(name) is not None:
            self.refuse(place, "shadow", f"{name} is declared already: use another name")
        elif name in self.outside:
            self.refuse(place, "shadow", f"{name} is a rule or an import: use another name")
        else:
            self.frame.locals[name] = Local(place=place, origin=origin, bound=bound)

    def declare_pattern(self, expression: syntax.Expression, origin: Origin) -> None:
        """Declare the variables of a pattern: names, literals and arrays of these."""
        match expression:
            case syntax.Variable():
                self.declare(expression, origin)
            case syntax.Array():
                for item in expression.items:
                    self.declare_pattern(item, origin)
            case syntax.Scalar() | syntax.Text() | syntax.Number():
                pass
            case _:
                text = "a pattern has only names, literals and arrays of them: name the whole value, then use its parts"
                self.refuse(expression.place, "pattern", text)
