"""The types of rules and functions, statement by statement.

A function's arguments have the types of its calls. If its calls have too many different types, the arguments count as
unknown, which bounds the time of the analysis.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import LIBRARY
from sealbus.policies.types.analysis import Analysis
from sealbus.policies.types.builtins import GUARDS
from sealbus.policies.types.comparison import never_equal, pattern_type
from sealbus.policies.types.conflicts import iterates, solutions_of
from sealbus.policies.types.expressions import (
    call_type,
    check_membership,
    comprehension_type,
    infix_type,
    key_type,
    object_type,
    refuse_mixed,
    refuse_unfit,
    set_type,
)
from sealbus.policies.types.facts import Facts, certain
from sealbus.policies.types.references import keys_of, reference_type
from sealbus.policies.types.value import (
    ANY,
    BOOLEAN,
    NEVER,
    UNBOUNDED,
    Type,
    join_all,
    number,
    object_of,
    row_of,
    set_of,
)

CALLS: Final = 16
"""Different argument types with which one function is analysed before they count as unknown."""
LIBRARY_CALLS: Final = 2_048
"""The same for a function of the library, which many teams call, each with its own conditions."""

_STEPS: Final = (1 << 16, 1 << 32, DEFAULT_LIMITS.max_integer, 1 << 64, 1 << 128, UNBOUNDED)
"""Bounds to which the numbers in calls are rounded up."""


@dataclass(kw_only=True)
class RuleTypes(Analysis):
    """Walks over all rules. Each rule is read once, and each function once for each list of argument types."""

    rules: dict[syntax.Names, Type] = field(default_factory=dict)
    calls: dict[syntax.Names, dict[tuple[Type, ...], Type]] = field(default_factory=lambda: defaultdict(dict))

    def read_rules(self) -> None:
        """Find the problems of all rules."""
        arity = {path: len(definitions[0][1].arguments) for path, definitions in self.table.definitions.items()}
        functions = [path for path in arity if self.table.kind(path) == "function"]
        for path in arity:
            if path not in functions:
                self.rule_type(path)
            else:
                types = self.question_types(path, arity[path])
                if types is not None:
                    self.function_type(path, types)
        # A function without calls is analysed for any arguments. An uncalled function of the library decides nothing.
        for path in functions:
            if not self.calls[path] and path[: len(LIBRARY)] != LIBRARY:
                self.function_type(path, [ANY] * arity[path])

    # Rules

    def rule_type(self, path: syntax.Names) -> Type:
        """Read every definition of a rule once, and return their common type."""
        type_ = self.rules.get(path)
        if type_ is None:
            type_ = join_all(
                self._definition_type(Facts(file=file), rule) for file, rule in self.table.definitions[path]
            )
            self.rules[path] = type_
        return type_

    def function_type(self, path: syntax.Names, arguments: Sequence[Type]) -> Type:
        """Read every definition of a function once for `arguments`, and return their common type."""
        known = self.calls[path]
        key = tuple([_stepped(type_) for type_ in arguments])
        most = LIBRARY_CALLS if path[: len(LIBRARY)] == LIBRARY else CALLS
        if key not in known and len(known) >= most:
            key = (ANY,) * len(arguments)
        result = known.get(key)
        if result is None:
            results: list[Type] = []
            for file, rule in self.table.definitions[path]:
                facts = Facts(file=file)
                for pattern, type_ in zip(rule.arguments, key, strict=True):
                    self._bind(facts, pattern, type_)
                results.append(self._definition_type(facts, rule))
            result = known[key] = join_all(results)
        return result

    def _definition_type(self, facts: Facts, rule: syntax.Rule) -> Type:
        """Return the type of one definition's value."""
        if not rule.bodies:
            return self._head_type(facts, rule, rule.value, None)
        results: list[Type] = []
        for number_of, body in enumerate(rule.bodies):
            inner = facts.inner()
            self.read_body(inner, body)
            self.infer_parameters(inner, rule)
            value = body.value if body.is_else else rule.value
            results.append(self._head_type(inner, rule, value, body))
            followed = number_of + 1 < len(rule.bodies) and rule.bodies[number_of + 1].is_else
            if followed and value is not None and not certain(value, inner, self.table):
                text = "an else follows, and this may be undefined: name it in the body (x := ...), then use x"
                self.refuse(inner, value.place, "else", text)
        return join_all(results)

    def _head_type(
        self, facts: Facts, rule: syntax.Rule, value: syntax.Expression | None, body: syntax.Body | None
    ) -> Type:
        """Return the type of the value that a head gives after its body."""
        keys = keys_of(rule)
        if rule.key is not None or keys:
            parts = [part for part in (*keys, rule.key, value) if part is not None]
            if solutions_of(body) or any(map(iterates, parts)):
                for part in parts:
                    if not certain(part, facts, self.table):
                        # regorus drops all solutions if the last one has no head, and fails if another one has none.
                        text = "this may be undefined for one of the body's solutions: name it in the body (x := ...)"
                        self.refuse(facts, part.place, "head", text)
        if rule.key is not None:
            items = self.expression_type(facts, rule.key)
            refuse_mixed(self, facts, rule.key.place, items)
            result = set_of(items)
        else:
            result = BOOLEAN if value is None else self.expression_type(facts, value)
        for key in reversed(keys):
            result = object_of(key_type(self, facts, key), result)
        return result

    # Bodies

    def read_body(self, facts: Facts, body: syntax.Body) -> None:
        """Read the statements in order: each one knows what the earlier ones have checked."""
        for statement in body.statements:
            self._read_statement(facts, statement)

    def _read_statement(self, facts: Facts, statement: syntax.Statement) -> None:
        match statement:
            case syntax.Plain(expression=syntax.Assign() as assigned):
                self._assign(facts, assigned.left, assigned.right, self.expression_type(facts, assigned.right))
            case syntax.Plain(expression=expression):
                self._check_statement(facts, expression)
                self._learn(facts, expression)
            case syntax.Negation(expression=expression):
                self._check_statement(facts, expression)
            case syntax.SomeNames():
                pass
            case syntax.SomeIn():
                collection = self.expression_type(facts, statement.collection)
                if not collection.names <= {"array", "set", "object"}:
                    text = "`some ... in` takes an array, set or object"
                    refuse_unfit(self, facts, statement.collection, collection, text, ("array",))
                if statement.key is not None:
                    self._bind(facts, statement.key, self.data.keys(collection))
                self._bind(facts, statement.value, self.data.items(collection))
            case _:
                collection = self.expression_type(facts, statement.collection)
                inner = facts.inner()
                types = (self.data.keys(collection), self.data.items(collection))[-len(statement.names) :]
                for name, type_ in zip(statement.names, types, strict=True):
                    self._bind(inner, name, type_)
                self.read_body(inner, statement.body)

    def _check_statement(self, facts: Facts, expression: syntax.Expression) -> None:
        """Check a statement, or an expression under `not`. There `in` with an undefined side is false in both engines."""
        if isinstance(expression, syntax.Membership):
            check_membership(self, facts, expression)
            return
        self.expression_type(facts, expression)
        if isinstance(expression, syntax.Infix) and expression.operator == "Eq":
            self.check_equality(facts, expression)

    def _assign(self, facts: Facts, pattern: syntax.Expression, assigned: syntax.Expression, type_: Type) -> None:
        """Bind the names of `pattern` to `assigned`, item by item if both are written as arrays."""
        if (
            isinstance(pattern, syntax.Array)
            and isinstance(assigned, syntax.Array)
            and len(pattern.items) == len(assigned.items)
        ):
            for item, part in zip(pattern.items, assigned.items, strict=True):
                self._assign(facts, item, part, self.expression_type(facts, part))
        else:
            self._bind(facts, pattern, type_)

    def _bind(self, facts: Facts, pattern: syntax.Expression, type_: Type) -> None:
        if isinstance(pattern, syntax.Variable):
            facts.names[pattern.name] = type_
        elif isinstance(pattern, syntax.Array):
            if not type_.data and never_equal(row_of(*[ANY] * len(pattern.items)), type_):
                self.refuse(facts, pattern.place, "match", "the value on the right is never an array of this form")
            for item in pattern.items:
                self._bind(facts, item, self.data.items(type_))

    def _learn(self, facts: Facts, expression: syntax.Expression) -> None:
        """Note what is known after the statement `expression`."""
        key = facts.key(expression)
        if key is not None:
            facts.stated.add(key)
        match expression:
            case syntax.Call(name=(name,), arguments=(argument,)) if name in GUARDS:
                self.check_guard(facts, name, argument, self.expression_type(facts, argument))
                self.allow(facts, argument, GUARDS[name])
            case syntax.Infix(operator="Eq", left=left, right=right):
                names = self.expression_type(facts, left).names & self.expression_type(facts, right).names
                self.allow(facts, left, names)
                self.allow(facts, right, names)
            case syntax.Membership(key=None, value=value, collection=collection):
                self.allow(facts, value, self.data.items(self.expression_type(facts, collection)).names)
            case _:
                pass

    # Expressions

    def expression_type(self, facts: Facts, expression: syntax.Expression) -> Type:
        """Pass the expression to the function for its kind."""
        match expression:
            case syntax.Scalar() | syntax.Text() | syntax.Number():
                return pattern_type(expression)
            case syntax.Variable() | syntax.Reference():
                return reference_type(self, facts, expression)
            case syntax.Array():
                return row_of(*[self.expression_type(facts, item) for item in expression.items])
            case syntax.SetLiteral():
                return set_type(self, facts, expression)
            case syntax.ObjectLiteral():
                return object_type(self, facts, expression)
            case syntax.Comprehension():
                return comprehension_type(self, facts, expression)
            case syntax.Call():
                return call_type(self, facts, expression)
            case syntax.Infix():
                return infix_type(self, facts, expression)
            case syntax.Membership():
                for side in syntax.children(expression):
                    if not certain(side, facts, self.table):
                        text = "in `in` as a value, this may be undefined: name it first (x := ...), then use x"
                        self.refuse(facts, side.place, "in", text)
                check_membership(self, facts, expression)
                return BOOLEAN
            case _:
                # Its form was refused before: a minus before anything but digits, or an assignment inside an expression.
                return NEVER


def _stepped(type_: Type) -> Type:
    """Round a number's bound up to one of a few bounds, because functions are called with many numbers."""
    return number(next(step for step in _STEPS if type_.most <= step)) if type_.names == {"number"} else type_
