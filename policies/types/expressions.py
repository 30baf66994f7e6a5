"""The types of calls, operators, `in` and written collections, and the types that each accepts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint import syntax
from sealbus.policies.types.analysis import Analysis
from sealbus.policies.types.builtins import BUILTINS, GUARDS, OPERATORS, mixed
from sealbus.policies.types.comparison import never_equal
from sealbus.policies.types.conflicts import unique
from sealbus.policies.types.facts import Facts
from sealbus.policies.types.value import (
    BOOLEAN,
    UNBOUNDED,
    Type,
    array_of,
    join,
    join_all,
    number,
    object_of,
    record,
    row_of,
    set_of,
)

_KEYS: Final = frozenset({"text", "boolean", "null", "number"})


def call_type(analysis: Analysis, facts: Facts, call: syntax.Call) -> Type:
    """Return the type of a call's result."""
    types = [analysis.expression_type(facts, argument) for argument in call.arguments]
    path = analysis.table.called_function(call, facts.file)
    if path is not None:
        result = analysis.function_type(path, analysis.argument_types(types))
        for position, (argument, type_) in enumerate(zip(call.arguments, types, strict=True)):
            definitions = analysis.table.definitions[path]
            parameter = join_all(analysis.parameter_type(rule, position) for _, rule in definitions)
            if never_equal(type_, parameter):
                analysis.refuse(facts, argument.place, "match", "no definition of the function accepts this")
            analysis.infer_name(facts, argument, parameter.names)
        return result
    name = ".".join(call.name)
    builtin = BUILTINS[name]
    for position, (accepted, argument, type_) in enumerate(
        zip(builtin.arguments, call.arguments, types, strict=True), 1
    ):
        analysis.allow_in_place(facts, argument, frozenset(accepted.names))
        if not accepted.fits(argument, type_, analysis.data):
            text = f"argument {position} of {name} is {accepted.text}"
            refuse_unfit(analysis, facts, argument, type_, text, accepted.names)
    return builtin.result(call.arguments, types, analysis.data)


def infix_type(analysis: Analysis, facts: Facts, expression: syntax.Infix) -> Type:
    """Return the type of an operator's result."""
    left, right = types = [analysis.expression_type(facts, side) for side in (expression.left, expression.right)]
    sides = OPERATORS[expression.operator].sides
    match expression.operator:
        case "Eq" | "Ne":
            return BOOLEAN
        case "Lt" | "Le" | "Gt" | "Ge":
            if mixed(left, right):
                text = "the engines order sets and objects differently: compare their contents"
                analysis.refuse(facts, expression.place, "order", text)
            return BOOLEAN
        case "Union" | "Intersection":
            _check_operands(analysis, facts, expression, types, sides)
            return set_of(join(analysis.data.items(left), analysis.data.items(right)))
        case "Sub" if "set" in left.names | right.names and "number" not in left.names & right.names:
            _check_operands(analysis, facts, expression, types, ("set",))
            return left
        case "Mod":
            if not isinstance(expression.right, syntax.Number) or not int(expression.right.written):
                text = "the right side of % must be a literal other than 0"
                analysis.refuse(facts, expression.right.place, "type", text)
            _check_operands(analysis, facts, expression, types, sides)
            return number(right.most)
        case "Mul":
            _check_operands(analysis, facts, expression, types, sides)
            if left.names | right.names <= {"number"} and left.most * right.most > UNBOUNDED:
                text = (
                    "this product may exceed 2^256, and no engine bounds the time of larger products: multiply at most four "
                    "numbers of the request or the data, or use remainders (x % 1000). The numbers that a function gets are "
                    "known from its calls"
                )
                analysis.refuse(facts, expression.place, "number", text)
            return number(left.most * right.most)
        case _:
            _check_operands(analysis, facts, expression, types, sides[:1])
            return number(left.most + right.most)


def _check_operands(
    analysis: Analysis, facts: Facts, expression: syntax.Infix, types: Sequence[Type], names: tuple[str, ...]
) -> None:
    for side, type_ in zip((expression.left, expression.right), types, strict=True):
        analysis.allow_in_place(facts, side, frozenset({*names, "set"} if expression.operator == "Sub" else names))
        if not type_.names <= set(names):
            refuse_unfit(analysis, facts, side, type_, f"this operator takes a {names[0]}", names)


def check_membership(analysis: Analysis, facts: Facts, expression: syntax.Membership) -> None:
    """Check the sides of `in`."""
    *keys, value, collection = [analysis.expression_type(facts, side) for side in syntax.children(expression)]
    if keys and "set" in collection.names:
        text = "a set has no keys in regorus, and its items as keys in OPA: write one name, x in set"
        analysis.refuse(facts, expression.place, "in", text)
    pairs = [(value, analysis.data.items(collection)), *((key, analysis.data.keys(collection)) for key in keys)]
    analysis.check_membership(facts, expression, pairs)


def refuse_unfit(
    analysis: Analysis, facts: Facts, expression: syntax.Expression, type_: Type, text: str, names: Iterable[str]
) -> None:
    """Refuse an expression of `type_` where only the types `names` fit, as `text` says. The problem tells what to write."""
    wrong, right = type_.names - set(names), type_.names & set(names)
    if analysis.accepts(wrong, right):
        return
    if wrong and right:
        guards = " or ".join(sorted(guard for guard, known in GUARDS.items() if known & right))
        text += f", and this may be {' or '.join(sorted(wrong))}: check it first with {guards}"
    elif wrong:
        text += f", and this is {' or '.join(sorted(wrong))}"
    elif not type_.scalar:
        text += ": first collect the items that fit, as in [x | some x in xs; is_string(x)]"
    analysis.refuse(facts, expression.place, "type", text)


def refuse_mixed(analysis: Analysis, facts: Facts, place: syntax.Place, items: Type) -> None:
    """Refuse a set whose `items` may be both sets and objects."""
    if mixed(items):
        text = "the engines order sets and objects in one set differently: keep them in different sets"
        analysis.refuse(facts, place, "order", text)


def set_type(analysis: Analysis, facts: Facts, expression: syntax.SetLiteral) -> Type:
    """Return the type of `{a, b}`."""
    items = join_all([analysis.expression_type(facts, item) for item in expression.items])
    refuse_mixed(analysis, facts, expression.place, items)
    return set_of(items)


def object_type(analysis: Analysis, facts: Facts, expression: syntax.ObjectLiteral) -> Type:
    """Return the type of `{k: v}`."""
    keys, values = expression.items[::2], expression.items[1::2]
    types = [analysis.expression_type(facts, value) for value in values]
    if all(isinstance(key, syntax.Text) for key in keys):
        return record(
            {key.value: type_ for key, type_ in zip(keys, types, strict=True) if isinstance(key, syntax.Text)}
        )
    return object_of(join_all([key_type(analysis, facts, key) for key in keys]), join_all(types))


def key_type(analysis: Analysis, facts: Facts, expression: syntax.Expression) -> Type:
    """Return the type of an object's key. Its text in an answer must be the same for both engines."""
    type_ = analysis.expression_type(facts, expression)
    text = "an object's key is a text, a boolean, null or a number within 2^53"
    if not type_.names <= _KEYS:
        refuse_unfit(analysis, facts, expression, type_, text, sorted(_KEYS))
    elif type_.most > DEFAULT_LIMITS.max_integer:
        text += ": make the number a text, with format_int or sprintf"
        analysis.refuse(facts, expression.place, "number", text)
    return type_


def comprehension_type(analysis: Analysis, facts: Facts, expression: syntax.Comprehension) -> Type:
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
        text = "two values might get the same key, which is an error: take the key from `some key, value in` alone"
        analysis.refuse(facts, expression.place, "conflict", text)
    return object_of(terms[0], terms[1])
