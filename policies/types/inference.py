"""Type inference: no evaluation can fail, and no part is undefined where the engines would differ.

If an evaluation ends with an error, the engines disagree about everything around it: OPA leaves out rules that its index
excludes, stops at a first solution, and evaluates the parts of an expression in its own order; regorus evaluates all of
them, from the left. So every value is given a type, from the policy's text, its data and the shape of its questions, and
each builtin and operator accepts only types for which it cannot fail. The result is then a value or undefined, in both.
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
    """Return every place of `files` that could fail for some question, or mean something else to OPA's compiler.

    `files` have passed the other checks. `data` is known below `roots`; the rest may be anything.
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
    """What OPA's compiler knows and refuses: it sees neither the data nor the arguments of calls."""

    parameters: dict[tuple[syntax.Place, str], frozenset[str]] = field(default_factory=dict)
    """The types that a function takes for an argument, by definition and name: what its bodies do with the argument."""

    def refuse(self, facts: Facts, place: syntax.Place, form: str, text: str) -> None:
        if form in ("match", "type"):
            self.problems.add(Problem.at(facts.file.path, place, form, text))

    def accepts(self, wrong: frozenset[str], right: frozenset[str]) -> bool:
        # OPA refuses what is impossible, and checks the rest at evaluation.
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
            text = "OPA refuses this: the two sides are never equal, or are objects of other names. Compare their parts"
            self.refuse(facts, expression.place, "match", text)
        self.infer_name(facts, expression.left, _unguarded(facts, expression.right, right))
        self.infer_name(facts, expression.right, _unguarded(facts, expression.left, left))

    def check_membership(self, facts: Facts, expression: syntax.Membership, pairs: Sequence[tuple[Type, Type]]) -> None:
        if any(incomparable(sought, present) for sought, present in pairs):
            text = "OPA refuses this: nothing of this type, or no object of these names, is in there. Compare the parts"
            self.refuse(facts, expression.place, "match", text)
        elif expression.key is None:
            self.infer_name(facts, expression.value, pairs[0][1].names)

    def check_guard(self, facts: Facts, guard: str, argument: syntax.Expression, type_: Type) -> None:
        if type_.names and not type_.names & GUARDS[guard]:
            # OPA continues with the type that it knows, and refuses operations on the other.
            self.refuse(facts, argument.place, "match", f"{guard} is never true of this")

    def allow(self, facts: Facts, expression: syntax.Expression, names: frozenset[str]) -> None:
        if names:  # from what holds nothing it learns nothing
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
    """Return the types of an expression of `type_`, for a name without what guards have asked: OPA heeds none."""
    if not isinstance(expression, syntax.Variable):
        return type_.names
    return facts.inferred.get(expression.name) or facts.names.get(expression.name, type_).names
