"""The types of collections that a policy writes: arrays, sets, objects and comprehensions."""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint.syntax import Comprehension, Expression, ObjectLiteral, SetLiteral, Text
from sealbus.policies.types.analysis import Analysis
from sealbus.policies.types.conflicts import unique
from sealbus.policies.types.facts import Facts
from sealbus.policies.types.operations import refuse_mixed, refuse_unfit
from sealbus.policies.types.value import Type, array_of, join_all, object_of, record, row_of, set_of

_KEYS: Final = frozenset({"text", "boolean", "null", "number"})


def set_type(analysis: Analysis, facts: Facts, expression: SetLiteral) -> Type:
    """Return the type of `{a, b}`."""
    items = join_all([analysis.expression_type(facts, item) for item in expression.items])
    refuse_mixed(analysis, facts, expression.place, items)
    return set_of(items)


def object_type(analysis: Analysis, facts: Facts, expression: ObjectLiteral) -> Type:
    """Return the type of `{k: v}`."""
    keys, values = expression.items[::2], expression.items[1::2]
    types = [analysis.expression_type(facts, value) for value in values]
    if all(isinstance(key, Text) for key in keys):
        return record({key.value: type_ for key, type_ in zip(keys, types, strict=True) if isinstance(key, Text)})
    return object_of(join_all([key_type(analysis, facts, key) for key in keys]), join_all(types))


def key_type(analysis: Analysis, facts: Facts, expression: Expression) -> Type:
    """Return the type of an object's key, whose text in an answer must be the same for both engines."""
    type_ = analysis.expression_type(facts, expression)
    text = "an object's key is a text, a boolean, null or a number within 2^53"
    if not type_.names <= _KEYS:
        refuse_unfit(analysis, facts, expression, type_, text, sorted(_KEYS))
    elif type_.most > DEFAULT_LIMITS.max_integer:
        text += ": take the number as a text, by format_int or sprintf"
        analysis.refuse(facts, expression.place, "number", text)
    return type_


def comprehension_type(analysis: Analysis, facts: Facts, expression: Comprehension) -> Type:
    """Return the type of `[t | body]`, `{t | body}` or `{k: v | body}`."""
    inner = facts.inner()
    analysis.read_body(inner, expression.body)
    terms = [analysis.expression_type(inner, term) for term in expression.terms]
    if expression.kind == "array":
        # OPA gives an empty literal the type of an array without items.
        return array_of(terms[0]) if terms[0].names else row_of()
    if expression.kind == "set":
        refuse_mixed(analysis, facts, expression.place, terms[0])
        return set_of(terms[0])
    key_type(analysis, inner, expression.terms[0])
    if not unique(expression.terms[0], expression.terms[1], expression.body):
        text = "two values might meet under one key, which is an error: take the key from `some key, value in` alone"
        analysis.refuse(facts, expression.place, "conflict", text)
    return object_of(terms[0], terms[1])
