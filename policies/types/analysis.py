"""The interface that the parts of an analysis share, and the knowledge of an evaluation of the policy.

`RuleTypes` implements the walk over rules and bodies. The analysis that stands for OPA's compiler (`types.inference`)
replaces the methods by which it knows less or refuses more.
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
    """One analysis of the rules in `table` over `data`. It adds to `problems` what it refuses."""

    table: RuleTable
    data: DataTypes
    problems: set[Problem]

    @abstractmethod
    def rule_type(self, path: syntax.Names) -> Type:
        """Return the type of the rule at `path`, which is not a function."""

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
        """Return whether `part` is a name of `some x` without a value: a reference then gives it one."""
        if not isinstance(part, syntax.Variable) or part.name in facts.names or part.name in ("input", "data"):
            return False
        return self.table.resolve((part.name,), facts.file) is None

    # What an evaluation knows

    def refuse(self, facts: Facts, place: syntax.Place, form: str, text: str) -> None:
        """Add a problem."""
        self.problems.add(Problem.at(facts.file.path, place, form, text))

    def accepts(self, wrong: frozenset[str], right: frozenset[str]) -> bool:
        """Return whether a value is accepted of which the possible types `wrong` do not fit and `right` do."""
        del wrong, right
        return False

    def input_type(self, package: syntax.Names) -> Type:
        """Return the type of `input` in a package."""
        return batch_of(_REQUESTS.get((*package[:2], "decide"), REQUEST))

    def question_types(self, function: syntax.Names, arity: int) -> Sequence[Type] | None:
        """Return the types that the engines call `function` with; None if they never call it."""
        request = REQUEST if function[:2] == _TEAMS and function[3:] == ("decide",) else _REQUESTS.get(function)
        return None if request is None or arity != 1 else [request]

    def argument_types(self, types: Sequence[Type]) -> Sequence[Type]:
        """Return the types that a called function knows of its arguments, which are of `types`."""
        return types

    def parameter_type(self, rule: syntax.Rule, position: int) -> Type:
        """Return the type that one definition of a function takes as the argument at `position`, from 0."""
        return pattern_type(rule.arguments[position])

    def finds_nothing(self, facts: Facts, type_: Type, part: syntax.Expression, below: Type) -> bool:
        """Return whether a lookup of `part` in a value of `type_` can find nothing; `below` is the type that it would give.

        OPA's compiler also infers types from the calls that get an argument. An evaluation sees these calls.
        """
        del below
        if isinstance(part, syntax.Text) or self.unbound(facts, part):
            return False
        return never_equal(self.expression_type(facts, part), self.data.keys(type_))

    # What OPA's compiler checks and learns in addition

    def check_equality(self, facts: Facts, expression: syntax.Infix) -> None:
        """Check a statement `left == right`."""

    def check_membership(self, facts: Facts, expression: syntax.Membership, pairs: Sequence[tuple[Type, Type]]) -> None:
        """Check that `in` can be true. Each of `pairs` has a type that is sought and the type that is there, values first."""

    def check_guard(self, facts: Facts, guard: str, argument: syntax.Expression, type_: Type) -> None:
        """Check a statement such as `is_string(x)`: `guard` is the builtin, and its `argument` is of `type_`."""

    def allow(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note that only the types `names` are possible for `expression` from here on."""
        facts.allow(expression, names)

    def allow_in_place(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note that `expression` is an argument, an operand or a key, where only the types `names` are possible."""

    def infer_name(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        """Note that `expression` is compared with a value of the types `names`, whether or not the two are equal."""

    def infer_parameters(self, facts: Facts, rule: syntax.Rule) -> None:
        """Note the types that a body of the function `rule` requires of its arguments."""
