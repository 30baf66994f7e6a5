"""The types of references: lookups in names, `input`, rules and data."""

from __future__ import annotations

from collections.abc import Sequence

from sealbus.policies.lint.rules import data_aliases
from sealbus.policies.lint.syntax import Expression, File, Reference, Rule, Text, Variable, leading_names
from sealbus.policies.types.analysis import Analysis
from sealbus.policies.types.facts import Facts, Key
from sealbus.policies.types.value import ANY, Type, narrowed


def reference_type(analysis: Analysis, facts: Facts, expression: Variable | Reference) -> Type:
    """Return the type of a name, or of the value that a reference finds."""
    head = expression.head if isinstance(expression, Reference) else expression
    path = expression.path if isinstance(expression, Reference) else ()
    key: Key | None = None
    if not isinstance(head, Variable):
        type_ = analysis.expression_type(facts, head)
    elif head.name in facts.names:
        key = (("", head.name),)
        type_ = facts.narrowed(facts.names[head.name], key)
    elif head.name == "input":
        key = (("", "input"),)
        type_ = analysis.input_type(facts.file.package)
    else:
        return _outside_type(analysis, facts, expression)
    return _looked_up_type(analysis, facts, type_, path, key, alias=False)


def keys_of(rule: Rule) -> Sequence[Expression]:
    """Return the parts of a head that stand for keys, after the rule's name."""
    if not isinstance(rule.head, Reference) or rule.kind == "function":
        return ()
    return rule.head.path[len(leading_names(rule.head)) - 1 :]


def _outside_type(analysis: Analysis, facts: Facts, expression: Variable | Reference) -> Type:
    """Return the type of a reference to rules or data."""
    table = analysis.table
    names = leading_names(expression)
    full = table.resolve(names, facts.file) or ()
    before = len(full) - len(names)
    path = expression.path if isinstance(expression, Reference) else ()
    alias = names[0] in data_aliases(facts.file)
    for length in range(1, len(full) + 1):
        if table.kind(full[:length]):
            rest = path[length - before - 1 :]
            if not rest and any(map(_deep, table.definitions[full[:length]])):
                # A rule without entries is undefined in regorus and empty in OPA.
                text = "look this rule up by key, r[x]: it cannot be used as a whole"
                analysis.refuse(facts, expression.place, "lookup", text)
            type_ = analysis.rule_type(full[:length])
            return _looked_up_type(analysis, facts, type_, rest, None, alias=alias or names[0] == "data")
    rest = path[len(names) - 1 :]
    if table.around(full):
        text = "a rule is found by a literal name: name the rule (x := ...), then look into x"
        analysis.refuse(facts, rest[0].place if rest else expression.place, "lookup", text)
        return ANY
    key: Key = (("", "data"), *((".", name) for name in full))
    type_ = facts.narrowed(analysis.data.at(full), key)
    return _looked_up_type(analysis, facts, type_, rest, key, alias=alias)


def _deep(definition: tuple[File, Rule]) -> bool:
    """Return whether a rule is defined key by key, at more than one depth."""
    _, rule = definition
    return len(keys_of(rule)) + (rule.key is not None) > 1


def _looked_up_type(
    analysis: Analysis, facts: Facts, type_: Type, path: Sequence[Expression], key: Key | None, *, alias: bool
) -> Type:
    """Return the type that the lookups in `path` give, starting at a value of `type_` with the key `key`.

    `alias` is whether the reference starts at `data` or at an import of data.
    """
    data = analysis.data
    for part in path:
        if isinstance(part, Text):
            below = data.field(type_, part.value)
        elif isinstance(part, Variable) and analysis.unbound(facts, part):
            if part.name != "_":
                facts.names[part.name] = data.keys(type_)
            below = data.items(type_)
        else:
            index, below = analysis.expression_type(facts, part), data.items(type_)
            if "object" in type_.names and index.names and index.names <= {"array", "set", "object"}:
                # OPA's compiler refuses some of these lookups.
                text = "look an object up by a text, number or boolean"
                analysis.refuse(facts, part.place, "lookup", text)
            if alias and "number" in index.names and "object" in type_.names:
                text = "a number may find a text here, in OPA alone: name the object first (o := ...), then use o[x]"
                analysis.refuse(facts, part.place, "lookup", text)
        known = type_.names and not type_.data and not type_.open
        if known and analysis.finds_nothing(facts, type_, part, below):
            analysis.refuse(facts, part.place, "match", "this lookup can never find anything")
        analysis.allow_in_place(facts, part, data.keys(type_).names)
        if type_.names == {"set"} and not analysis.unbound(facts, part):
            # A lookup in a set gives the key itself.
            sought = analysis.expression_type(facts, part).names
            below = narrowed(below, sought) if sought else below
        step = facts.step(part)
        key = None if key is None or step is None else (*key, step)
        type_ = below if key is None else facts.narrowed(below, key)
    return type_
