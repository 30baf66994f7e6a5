"""What is known at one place of a rule: the types of its names, and which expressions have a value there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sealbus.policies.lint import syntax
from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.builtins import BUILTINS
from sealbus.policies.types.value import ANY, Type, narrowed

Key: TypeAlias = "tuple[tuple[str, str], ...]"
"""A name, and the names and variables of the lookups in it."""


@dataclass(slots=True, kw_only=True)
class Facts:
    """The facts that are known at one place of a rule in `file`."""

    file: syntax.File
    names: dict[str, Type] = field(default_factory=dict)
    """The types of the names that have a value."""
    checked: dict[Key, frozenset[str]] = field(default_factory=dict)
    """The types that earlier statements allow for a name, or for a lookup in a name."""
    inferred: dict[str, frozenset[str]] = field(default_factory=dict)
    """The types that OPA's compiler infers for a name. They decide what a function may be called with."""
    stated: set[Key] = field(default_factory=set)
    """The names and lookups that were a statement by themselves, and so have a value."""

    def inner(self) -> Facts:
        """Return a copy for a body inside this place."""
        return replace(
            self,
            names=dict(self.names),
            checked=dict(self.checked),
            inferred=dict(self.inferred),
            stated=set(self.stated),
        )

    def key(self, expression: syntax.Expression) -> Key | None:
        """Return the key of a name, or of a lookup in a name by literals and variables; None for any other expression."""
        if isinstance(expression, syntax.Variable):
            return (("", expression.name),)
        if not isinstance(expression, syntax.Reference) or not isinstance(expression.head, syntax.Variable):
            return None
        steps: list[tuple[str, str]] = [("", expression.head.name)]
        for part in expression.path:
            step = self.step(part)
            if step is None:
                return None
            steps.append(step)
        return tuple(steps)

    def step(self, part: syntax.Expression) -> tuple[str, str] | None:
        """Return how `part` of a reference stands in a key; None if its value may change."""
        if isinstance(part, syntax.Text):
            return ".", part.value
        if isinstance(part, syntax.Number):
            return "[", part.written
        if isinstance(part, syntax.Variable) and part.name not in self.names:
            return None
        key = self.key(part)
        return None if key is None else ("[", repr(key))

    def allow(self, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note that only the types `names` are possible for `expression` from here on."""
        key = self.key(expression)
        if key is not None:
            self.checked[key] = self.checked.get(key, names) & names

    def narrowed(self, type_: Type, key: Key) -> Type:
        """Return `type_` without the types that earlier statements exclude for this key."""
        names = self.checked.get(key)
        return type_ if names is None else narrowed(type_, names)


def certain(expression: syntax.Expression, facts: Facts, table: RuleTable) -> bool:
    """Return whether `expression` has a value whenever the statements before it hold."""
    match expression:
        case syntax.Scalar() | syntax.Text() | syntax.Number() | syntax.Comprehension():
            return True
        case syntax.Variable():
            return expression.name in facts.names
        case syntax.Reference():
            return facts.key(expression) in facts.stated
        case syntax.Call():
            path, builtin = table.called_function(expression, facts.file), BUILTINS.get(".".join(expression.name))
            total = _total(path, table) if path is not None else builtin is not None and not builtin.partial
            return total and all(certain(argument, facts, table) for argument in expression.arguments)
        case _:
            return all(certain(child, facts, table) for child in syntax.children(expression))


def _total(function: syntax.Names, table: RuleTable) -> bool:
    """Return whether `function` has a value for all arguments. One definition without conditions is enough."""
    for file, rule in table.definitions[function]:
        arguments = [argument.name for argument in rule.arguments if isinstance(argument, syntax.Variable)]
        if not rule.bodies and rule.value is not None and len(arguments) == len(rule.arguments):
            return certain(rule.value, Facts(file=file, names=dict.fromkeys(arguments, ANY)), table)
    return False
