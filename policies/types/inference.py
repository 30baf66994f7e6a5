"""Type inference: it shows that no evaluation can fail, and that nothing is undefined where the engines would differ.

If an evaluation fails, the engines disagree about the rest. OPA skips rules that its index excludes, stops at a first
solution, and evaluates the parts of an expression in its own order. regorus evaluates all parts, from the left. So every
value gets a type, from the policy's text, its data and the shape of its requests. Each builtin and operator accepts only
types for which it cannot fail. Both engines then give a value, or both give undefined.

There are two analyses: one knows what an evaluation knows, the other what OPA's compiler knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import TEST_SUFFIX, Problem
from sealbus.policies.lint.rules import RuleTable
from sealbus.policies.types.builtins import GUARDS
from sealbus.policies.types.comparison import incomparable, never_equal
from sealbus.policies.types.conflicts import conflicts
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.facts import Facts
from sealbus.policies.types.rules import RuleTypes
from sealbus.policies.types.value import ANY, DataPath, Type, narrowed


def type_problems(files: Iterable[syntax.File], data: Json, roots: Iterable[DataPath] = ((),)) -> list[Problem]:
    """Return every place in `files` that could fail for some request, or that OPA's compiler would refuse.

    `files` have passed the other checks. `data` is known below `roots`; the other data may be anything.
    """
    table = RuleTable(file for file in files if not file.path.endswith(TEST_SUFFIX))
    problems: set[Problem] = set()
    try:
        problems.update(conflicts(table.definitions, table.kind))
        RuleTypes(table=table, data=DataTypes(data, roots), problems=problems).read_rules()
        _OpaCompiler(table=table, data=DataTypes(data, (), known=False), problems=problems).read_rules()
    except RecursionError:
        text = "an expression is too long, or too many functions call one another in a row: name the parts"
        problems.add(Problem.of_whole("the bundle", "nesting", text))
    return sorted(problems)


@dataclass(kw_only=True)
class _OpaCompiler(RuleTypes):
    """Knows and refuses what OPA's compiler does. It sees neither the data nor the arguments of calls."""

    parameters: dict[tuple[syntax.Place, str], frozenset[str]] = field(default_factory=dict)
    """The types that the bodies of a function accept for an argument, by definition and name of the argument."""

    def refuse(self, facts: Facts, place: syntax.Place, form: str, text: str) -> None:
        if form in ("match", "type"):
            self.problems.add(Problem.at(facts.file.path, place, form, text))

    def accepts(self, wrong: frozenset[str], right: frozenset[str]) -> bool:
        # OPA's compiler refuses impossible types. It leaves the others to the evaluation.
        return bool(right) or not wrong

    def input_type(self, package: syntax.Names) -> Type:
        return ANY

    def question_types(self, function: syntax.Names, arity: int) -> Sequence[Type]:
        return [ANY] * arity

    def argument_types(self, types: Sequence[Type]) -> Sequence[Type]:
        return [ANY] * len(types)

    def parameter_type(self, rule: syntax.Rule, position: int) -> Type:
        argument = rule.arguments[position]
        names = self.parameters.get((rule.place, argument.name)) if isinstance(argument, syntax.Variable) else None
        return super().parameter_type(rule, position) if names is None else narrowed(ANY, names)

    def finds_nothing(self, facts: Facts, type_: Type, part: syntax.Expression, below: Type) -> bool:
        if type_.scalar or (isinstance(part, syntax.Text) and not below.names):
            return True
        if isinstance(part, syntax.Number) and 0 <= max(type_.lengths, default=-1) <= int(part.written):
            return True
        if self.unbound(facts, part):
            return type_.lengths == {0}
        return never_equal(self.expression_type(facts, part), self.data.keys(type_))

    def check_equality(self, facts: Facts, expression: syntax.Infix) -> None:
        left, right = (self.expression_type(facts, side) for side in (expression.left, expression.right))
        if incomparable(left, right):
            text = "OPA refuses this ==: its sides are never equal, or are objects with different names. Compare their parts"
            self.refuse(facts, expression.place, "match", text)
        self.infer_name(facts, expression.left, _unguarded(facts, expression.right, right))
        self.infer_name(facts, expression.right, _unguarded(facts, expression.left, left))

    def check_membership(self, facts: Facts, expression: syntax.Membership, pairs: Sequence[tuple[Type, Type]]) -> None:
        if any(incomparable(sought, present) for sought, present in pairs):
            text = "OPA refuses this `in`: no item has this type, or is an object with these names. Compare their parts"
            self.refuse(facts, expression.place, "match", text)
        elif expression.key is None:
            self.infer_name(facts, expression.value, pairs[0][1].names)

    def check_guard(self, facts: Facts, guard: str, argument: syntax.Expression, type_: Type) -> None:
        if type_.names and not type_.names & GUARDS[guard]:
            # OPA's compiler keeps the type that it knows, and refuses operations on the type of the guard.
            self.refuse(facts, argument.place, "match", f"{guard} is never true here")

    def allow(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        if names:  # an empty collection teaches the compiler nothing
            facts.allow(expression, names)

    def allow_in_place(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        if isinstance(expression, syntax.Variable):
            self.allow(facts, expression, names)

    def infer_name(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        if isinstance(expression, syntax.Variable) and names and names != ANY.names:
            facts.inferred.setdefault(expression.name, facts.checked.get((("", expression.name),), names))

    def infer_parameters(self, facts: Facts, rule: syntax.Rule) -> None:
        for argument in rule.arguments:
            if isinstance(argument, syntax.Variable):
                names = facts.inferred.get(argument.name) or facts.checked.get((("", argument.name),), ANY.names)
                key = (rule.place, argument.name)
                self.parameters[key] = self.parameters.get(key, frozenset()) | names


def _unguarded(facts: Facts, expression: syntax.Expression, type_: Type) -> frozenset[str]:
    """Return the types of an expression of `type_`, for a name without its guards: OPA's compiler ignores them."""
    if not isinstance(expression, syntax.Variable):
        return type_.names
    return facts.inferred.get(expression.name) or facts.names.get(expression.name, type_).names
