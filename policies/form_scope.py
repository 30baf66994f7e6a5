"""Names: what a rule's variables are, that each is declared before it is used, and once.

OPA and regorus both sort the statements of a body before they run them, by different rules. A body in which every name
is declared before its use means the same in both, and leaves neither anything to sort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from sealbus.policies.form_negation import undefinable
from sealbus.policies.problems import Problem
from sealbus.policies.syntax import (
    Array,
    Assign,
    Body,
    Call,
    Comprehension,
    Every,
    Expression,
    Negation,
    Number,
    Place,
    Plain,
    Reference,
    Rule,
    Scalar,
    SomeIn,
    SomeNames,
    Statement,
    Text,
    Variable,
)
from sealbus.policies.syntax_walk import children

__all__ = ["Outer", "check_names"]

Outer = Literal["value", "function"]
"""What a name outside a rule is: a rule or import that has a value, or a function."""

_ROOTS: Final = frozenset({"input", "data"})


@dataclass(slots=True, kw_only=True)
class _Local:
    place: Place
    origin: Literal["argument", "some", "every", "assigned"]
    bound: bool = True
    used: bool = False


@dataclass(slots=True, kw_only=True)
class _Frame:
    parent: _Frame | None = None
    locals: dict[str, _Local] = field(default_factory=dict)


def check_names(path: str, rule: Rule, outside: Mapping[str, Outer], *, relaxed: bool = False) -> list[Problem]:
    """Return what is wrong with the names of `rule`, a rule of the file `path`.

    `outside` holds the names that the file's imports and its package's rules give; `relaxed` is for tests, which may
    use `with`.
    """
    check = _Names(path=path, outside=outside, relaxed=relaxed)
    check.rule(rule)
    return check.problems


@dataclass(slots=True, kw_only=True)
class _Names:
    path: str
    outside: Mapping[str, Outer]
    relaxed: bool
    problems: list[Problem] = field(default_factory=list)
    frame: _Frame = field(default_factory=_Frame)
    body_of_head: _Frame | None = None
    """In a head: the frame of its body, whose names regorus does not give to a comprehension in the head."""
    in_term: bool = False

    def refuse(self, place: Place, form: str, text: str) -> None:
        self.problems.append(Problem(file=self.path, line=place.line, column=place.column, form=form, text=text))

    def frames(self) -> Iterator[_Frame]:
        frame: _Frame | None = self.frame
        while frame is not None:
            yield frame
            frame = frame.parent

    def find(self, name: str) -> tuple[_Frame, _Local] | None:
        for frame in self.frames():
            if name in frame.locals:
                return frame, frame.locals[name]
        return None

    # Rules and bodies

    def rule(self, rule: Rule) -> None:
        for argument in rule.arguments:
            self.pattern(argument, "argument")
        arguments = self.frame
        if not rule.bodies:
            self.head(rule)
        for body in rule.bodies:
            self.frame = _Frame(parent=arguments)
            self.body(body)
            self.body_of_head = self.frame
            if body.is_else:
                self.optional(body.value)
            else:
                self.head(rule)
            self.body_of_head = None
            self.close(arguments)

    def head(self, rule: Rule) -> None:
        """Check what a head says, after the body that gives its names their values."""
        if isinstance(rule.head, Reference):
            for part in rule.head.path:
                self.expression(part)
        self.optional(rule.key)
        self.optional(rule.value)

    def optional(self, expression: Expression | None) -> None:
        if expression is not None:
            self.expression(expression)

    def body(self, body: Body) -> None:
        for statement in body.statements:
            self.statement(statement)

    def close(self, outside: _Frame) -> None:
        """Leave the innermost frame for `outside`; OPA refuses what `some x` or `every` declared and nothing used."""
        for name, local in self.frame.locals.items():
            if not local.used and local.origin in ("some", "every"):
                self.refuse(local.place, "unused", f"{name} is declared and never used: write _ or leave it out")
        self.frame = outside

    def statement(self, statement: Statement) -> None:
        if statement.modified and not self.relaxed:
            self.refuse(statement.place, "with", "`with` is for tests: pass the value as an argument of a function")
        match statement:
            case Plain():
                self.plain(statement.expression)
            case Negation():
                problem = undefinable(statement.expression, self.origin)
                if problem is not None:
                    self.refuse(problem[0], "negation", problem[1])
                self.expression(statement.expression, binds=False)
            case SomeNames():
                for variable in statement.names:
                    self.declare(variable, "some", bound=False)
            case SomeIn():
                self.expression(statement.collection)
                for one in (statement.key, statement.value):
                    if one is not None:
                        self.pattern(one, "assigned")
            case Every():
                self.expression(statement.collection)
                outside = self.frame
                self.frame = _Frame(parent=outside)
                for variable in statement.names:
                    self.declare(variable, "every")
                self.body(statement.body)
                self.close(outside)

    def plain(self, expression: Expression) -> None:
        if isinstance(expression, Call) and expression.name == ("walk",) and len(expression.arguments) == 2:
            self.walk(expression)
        elif not isinstance(expression, Assign):
            self.expression(expression)
        elif not expression.declares:
            self.refuse(expression.place, "unify", "write := to name a value or == to compare two")
        else:
            self.assign(expression)

    def assign(self, expression: Assign) -> None:
        self.expression(expression.right)
        left, right = expression.left, expression.right
        if isinstance(left, Array) and isinstance(right, Array) and len(left.items) != len(right.items):
            self.refuse(left.place, "pattern", "the two arrays differ in length")
        if _has_literal(left):
            self.refuse(left.place, "pattern", "only names stand left of :=")
        self.pattern(left, "assigned")

    def walk(self, expression: Call) -> None:
        walked, pair = expression.arguments
        self.expression(walked)
        if not isinstance(pair, Array) or not all(isinstance(item, Variable) for item in pair.items):
            self.refuse(pair.place, "walk", "write walk(value, [path, part]) with two names")
            return
        for item in pair.items:
            if isinstance(item, Variable):
                found = self.frame.locals.get(item.name)
                if found is not None and not found.bound:
                    found.bound = found.used = True
                else:
                    self.declare(item, "assigned")

    # Declarations

    def pattern(self, expression: Expression, origin: Literal["argument", "assigned"]) -> None:
        match expression:
            case Variable():
                self.declare(expression, origin)
            case Array():
                for item in expression.items:
                    self.pattern(item, origin)
            case Scalar() | Text() | Number():
                pass
            case _:
                text = "only names, literals and arrays of them can be matched: name the whole, then take its parts"
                self.refuse(expression.place, "pattern", text)

    def declare(
        self, variable: Variable, origin: Literal["argument", "some", "every", "assigned"], *, bound: bool = True
    ) -> None:
        name, place = variable.name, variable.place
        if name == "_":
            return
        if name in _ROOTS:
            self.refuse(place, "shadow", f"{name} is no name for a variable")
        elif self.find(name) is not None:
            self.refuse(place, "shadow", f"{name} is declared already: take another name")
        elif name in self.outside:
            self.refuse(place, "shadow", f"{name} is a rule or an import: take another name")
        else:
            self.frame.locals[name] = _Local(place=place, origin=origin, bound=bound)

    def origin(self, name: str) -> str | None:
        found = self.find(name)
        return found[1].origin if found is not None and found[1].bound else None

    # Uses

    def expression(self, expression: Expression, *, binds: bool = True) -> None:
        match expression:
            case Variable():
                self.use(expression)
            case Reference():
                self.reference(expression, binds=binds)
            case Comprehension():
                self.comprehension(expression)
            case Assign():
                self.refuse(expression.place, "assign", "an assignment stands alone, as a statement of its own")
            case Call():
                self.call(expression, binds=binds)
            case _:
                for child in children(expression):
                    self.expression(child, binds=binds)

    def reference(self, expression: Reference, *, binds: bool) -> None:
        self.expression(expression.head, binds=binds)
        for part in expression.path:
            if not isinstance(part, Variable):
                self.expression(part, binds=binds)
            elif part.name == "_":
                if not binds:
                    self.refuse(part.place, "negation", "_ under `not`: write a rule for it and negate that")
            else:
                if binds and part.name in self.frame.locals:
                    self.frame.locals[part.name].bound = True
                self.use(part)

    def call(self, expression: Call, *, binds: bool) -> None:
        if expression.name and self.find(expression.name[0]) is not None:
            self.refuse(expression.place, "function-value", f"{expression.name[0]} is a variable here, not a function")
        if expression.name == ("walk",):
            self.refuse(expression.place, "walk", "walk(value, [path, part]) stands alone, as a statement of its own")
        for argument in expression.arguments:
            self.expression(argument, binds=binds)

    def comprehension(self, expression: Comprehension) -> None:
        if self.in_term:
            text = "a comprehension inside the term of another: name it in the body, then use the name"
            self.refuse(expression.place, "closure", text)
        outside = self.frame
        self.frame = _Frame(parent=outside)
        within, self.in_term = self.in_term, False
        self.body(expression.body)
        self.in_term = True
        for term in expression.terms:
            self.expression(term)
        self.in_term = within
        self.close(outside)

    def use(self, variable: Variable) -> None:
        name, place = variable.name, variable.place
        if name in _ROOTS:
            return
        found = self.find(name)
        if found is None:
            self.use_outer(variable)
            return
        frame, local = found
        local.used = True
        if not local.bound:
            self.refuse(place, "unsafe", f"{name} has no value yet: a reference such as data.list[{name}] gives it one")
        if frame is self.body_of_head and frame is not self.frame:
            text = f"{name} in a comprehension of the head: name the comprehension in the body, then use the name"
            self.refuse(place, "closure", text)

    def use_outer(self, variable: Variable) -> None:
        name = variable.name
        kind = self.outside.get(name)
        if kind is None:
            text = "_ has no value" if name == "_" else f"{name} is not declared: use := or some, or define a rule"
            self.refuse(variable.place, "unsafe", text)
        elif kind == "function":
            self.refuse(variable.place, "function-value", f"{name} is a function: call it")


def _has_literal(expression: Expression) -> bool:
    if isinstance(expression, Array):
        return any(_has_literal(item) for item in expression.items)
    return isinstance(expression, Scalar | Text | Number)
