"""Names: what a rule's variables are, that each is declared before it is used, and once.

OPA and regorus both sort the statements of a body before they run them, by different rules. A body in which every name
is declared before its use means the same in both, and leaves neither anything to sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.policies.form_frames import Frame, Outer, Scope
from sealbus.policies.form_negation import undefinable
from sealbus.policies.problems import Problem
from sealbus.policies.syntax import (
    Array,
    Assign,
    Body,
    Call,
    Comprehension,
    Expression,
    Negation,
    Number,
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

__all__ = ["check_names"]

_ROOTS: Final = frozenset({"input", "data"})


def check_names(path: str, rule: Rule, outside: Mapping[str, Outer], *, relaxed: bool = False) -> list[Problem]:
    """Return what is wrong with the names of `rule`, a rule of the file `path`.

    `outside` holds the names that the file's imports and its package's rules give; `relaxed` is for tests, which may
    use `with`.
    """
    scope = Scope(path=path, outside=outside)
    _Names(scope=scope, relaxed=relaxed).rule(rule)
    return scope.problems


@dataclass(slots=True, kw_only=True)
class _Names:
    scope: Scope
    relaxed: bool
    body_of_head: Frame | None = None
    """In a head: the frame of its body, whose names regorus does not give to a comprehension in the head."""
    in_term: bool = False
    in_else: bool = False
    """In the value of an else, where regorus runs no comprehension, whatever it needs."""

    # Rules and bodies

    def rule(self, rule: Rule) -> None:
        for argument in rule.arguments:
            self.scope.declare_pattern(argument, "argument")
        arguments = self.scope.frame
        if not rule.bodies:
            self.head(rule)
        for body in rule.bodies:
            self.scope.open()
            self.body(body)
            self.body_of_head = self.scope.frame
            if body.is_else:
                self.in_else = True
                self.optional(body.value)
                self.in_else = False
            else:
                self.head(rule)
            self.body_of_head = None
            self.scope.close(arguments)

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

    def statement(self, statement: Statement) -> None:
        if statement.modified and not self.relaxed:
            self.scope.refuse(
                statement.place, "with", "`with` is for tests: pass the value as an argument of a function"
            )
        match statement:
            case Plain():
                self.plain(statement.expression)
            case Negation():
                problem = undefinable(statement.expression, self.scope.origin)
                if problem is not None:
                    self.scope.refuse(problem[0], "negation", problem[1])
                self.expression(statement.expression, binds=False)
            case SomeNames():
                for variable in statement.names:
                    self.scope.declare(variable, "some", bound=False)
            case SomeIn():
                self.expression(statement.collection)
                for one in (statement.key, statement.value):
                    if one is not None:
                        self.scope.declare_pattern(one, "assigned")
            case _:
                self.expression(statement.collection)
                outside = self.scope.open()
                for variable in statement.names:
                    self.scope.declare(variable, "every")
                self.body(statement.body)
                self.scope.close(outside)

    def plain(self, expression: Expression) -> None:
        if isinstance(expression, Call) and expression.name == ("walk",) and len(expression.arguments) == 2:
            self.walk(expression)
        elif not isinstance(expression, Assign):
            self.expression(expression)
        elif not expression.declares:
            self.scope.refuse(expression.place, "unify", "write := to name a value or == to compare two")
        else:
            self.assign(expression)

    def assign(self, expression: Assign) -> None:
        self.expression(expression.right)
        left, right = expression.left, expression.right
        if isinstance(left, Array) and isinstance(right, Array) and len(left.items) != len(right.items):
            self.scope.refuse(left.place, "pattern", "the two arrays differ in length")
        if _has_literal(left):
            self.scope.refuse(left.place, "pattern", "only names stand left of :=")
        self.scope.declare_pattern(left, "assigned")

    def walk(self, expression: Call) -> None:
        walked, pair = expression.arguments
        self.expression(walked)
        names = [item for item in pair.items if isinstance(item, Variable)] if isinstance(pair, Array) else []
        if not isinstance(pair, Array) or len(names) != 2 or len(pair.items) != 2:
            self.scope.refuse(pair.place, "walk", "write walk(value, [path, part]) with two names")
        for name in names:
            found = self.scope.frame.locals.get(name.name)
            if found is not None and not found.bound:
                found.bound = found.used = True
            else:
                self.scope.declare(name, "assigned")

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
                self.scope.refuse(expression.place, "assign", "an assignment stands alone, as a statement of its own")
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
                    self.scope.refuse(part.place, "negation", "_ under `not`: write a rule for it and negate that")
            else:
                if binds and part.name in self.scope.frame.locals:
                    self.scope.frame.locals[part.name].bound = True
                self.use(part)

    def call(self, expression: Call, *, binds: bool) -> None:
        if self.scope.find(expression.name[0]) is not None:
            self.scope.refuse(
                expression.place, "function-value", f"{expression.name[0]} is a variable here, not a function"
            )
        if expression.name == ("walk",):
            self.scope.refuse(
                expression.place, "walk", "walk(value, [path, part]) stands alone, as a statement of its own"
            )
        for argument in expression.arguments:
            self.expression(argument, binds=binds)

    def comprehension(self, expression: Comprehension) -> None:
        if self.in_term:
            text = "a comprehension inside the term of another: name it in the body, then use the name"
            self.scope.refuse(expression.place, "closure", text)
        elif self.in_else:
            text = "a comprehension in the value of an else: name it in the body of the else, then use the name"
            self.scope.refuse(expression.place, "closure", text)
        outside = self.scope.open()
        within, self.in_term = self.in_term, False
        self.body(expression.body)
        self.in_term = True
        for term in expression.terms:
            self.expression(term)
        self.in_term = within
        self.scope.close(outside)

    def use(self, variable: Variable) -> None:
        name, place = variable.name, variable.place
        if name in _ROOTS:
            return
        found = self.scope.find(name)
        if found is None:
            self.use_outer(variable)
            return
        frame, local = found
        local.used = True
        if not local.bound:
            self.scope.refuse(
                place, "unsafe", f"{name} has no value yet: a reference such as list[{name}] gives it one"
            )
        if frame is self.body_of_head and frame is not self.scope.frame and not self.in_else:
            text = f"{name} in a comprehension of the head: name the comprehension in the body, then use the name"
            self.scope.refuse(place, "closure", text)

    def use_outer(self, variable: Variable) -> None:
        name = variable.name
        kind = self.scope.outside.get(name)
        if kind is None:
            text = "_ has no value" if name == "_" else f"{name} is not declared: use := or some, or define a rule"
            self.scope.refuse(variable.place, "unsafe", text)
        elif kind == "function":
            self.scope.refuse(variable.place, "function-value", f"{name} is a function: call it")


def _has_literal(expression: Expression) -> bool:
    if isinstance(expression, Array):
        return any(_has_literal(item) for item in expression.items)
    return isinstance(expression, Scalar | Text | Number)
