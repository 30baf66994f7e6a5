"""One analysis of all rules: what its parts ask of one another, and what an evaluation knows.

`RuleTypes` fills in the walk over rules and bodies. `OpaCompiler` replaces what OPA's compiler knows and does otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import Problem
from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.comparison import never_equal, pattern_type
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.facts import Facts
from sealbus.policies.types.questions import APPROVAL_REQUEST, CONNECT_REQUEST, REQUEST, batch_of
from sealbus.policies.types.value import Type

_REQUESTS: Final[dict[syntax.Names, Type]] = {
    ("sealbus", "authz", "decide"): REQUEST,
    ("sealbus", "platform", "denials"): REQUEST,
    ("sealbus", "connect", "decide"): CONNECT_REQUEST,
    ("sealbus", "approval", "decide"): APPROVAL_REQUEST,
}
_TEAMS: Final = ("sealbus", "teams")


@dataclass(kw_only=True)
class Analysis(ABC):
    """One analysis of all rules of `table` over `data`; adds what it refuses to `problems`."""

    table: RuleTable
    data: DataTypes
    problems: set[Problem]

    @abstractmethod
    def rule_type(self, path: syntax.Names) -> Type:
        """Return the type of the rule at `path`, which is no function."""

    @abstractmethod
    def function_type(self, path: syntax.Names, arguments: Sequence[Type]) -> Type:
        """Return the type that the function at `path` gives for `arguments`."""

    @abstractmethod
    def read_body(self, facts: Facts, body: syntax.Body) -> None:
        """Check the statements of `body` and add to `facts` what holds after them."""

    @abstractmethod
    def expression_type(self, facts: Facts, expression: syntax.Expression) -> Type:
        """Check `expression` and return its type."""

    def unbound(self, facts: Facts, part: syntax.Expression) -> bool:
        """Return whether a reference gives `part` its value: it is a name of `some x` that has none yet."""
        if not isinstance(part, syntax.Variable) or part.name in facts.names or part.name in ("input", "data"):
            return False
        return self.table.resolve((part.name,), facts.file) is None

    # What an evaluation knows

    def refuse(self, facts: Facts, place: syntax.Place, form: str, text: str) -> None:
        """Add a problem."""
        self.problems.add(Problem.at(facts.file.path, place, form, text))

    def accepts(self, wrong: frozenset[str], right: frozenset[str]) -> bool:
        """Return whether a value is accepted that may be of the types `wrong`, which do not fit, or `right`, which do."""
        del wrong, right
        return False

    def input_type(self, package: syntax.Names) -> Type:
        """Return the type of `input` in a package."""
        return batch_of(_REQUESTS.get((*package[:2], "decide"), REQUEST))

    def question_types(self, function: syntax.Names, arity: int) -> Sequence[Type] | None:
        """Return the types that the engines themselves call `function` with; None if they never do."""
        request = REQUEST if function[:2] == _TEAMS and function[3:] == ("decide",) else _REQUESTS.get(function)
        return None if request is None or arity != 1 else [request]

    def argument_types(self, types: Sequence[Type]) -> Sequence[Type]:
        """Return what is known of arguments of the types `types` inside the function that they are passed to."""
        return types

    def parameter_type(self, rule: syntax.Rule, position: int) -> Type:
        """Return the type that one definition of a function takes as the argument at `position`, from 0."""
        return pattern_type(rule.arguments[position])

    def finds_nothing(self, facts: Facts, type_: Type, part: syntax.Expression, below: Type) -> bool:
        """Return whether looking up `part` in a value of `type_` never finds anything; `below` is what it would find.

        OPA's compiler also infers types from the calls that an argument is passed to. An evaluation sees these.
        """
        del below
        if isinstance(part, syntax.Text) or self.unbound(facts, part):
            return False
        return never_equal(self.expression_type(facts, part), self.data.keys(type_))

    # What OPA's compiler checks and learns besides: an evaluation has nothing to add

    def check_equality(self, facts: Facts, expression: syntax.Infix) -> None:
        """Check a statement `left == right`."""

    def check_membership(self, facts: Facts, expression: syntax.Membership, pairs: Sequence[tuple[Type, Type]]) -> None:
        """Check that what `in` looks for may be equal to what is there: `pairs` of types, that of the value first."""

    def check_guard(self, facts: Facts, guard: str, argument: syntax.Expression, type_: Type) -> None:
        """Check a statement `is_string(x)` or its like, in which `argument` is of `type_`."""

    def allow(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note that only the types `names` are possible for `expression` from here on."""
        facts.allow(expression, names)

    def allow_in_place(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note where `expression` stands: as an argument, an operand or a key that must be of the types `names`."""

    def infer_name(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note beside what `expression` stands: something of the types `names`, whether or not it is equal."""

    def infer_parameters(self, facts: Facts, rule: syntax.Rule) -> None:
        """Note what a body of a function does with its arguments."""
