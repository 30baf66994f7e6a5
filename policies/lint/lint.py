"""Rego forms that OPA and the embedded interpreter would decide differently are refused before a policy is in force.

Both engines must give the same answer to the same question. The table in tests/policies/forms has several hundred forms,
each decided by regorus 0.12.0 and by OPA 1.22.2 (strict builtin errors). Forms that both decide alike are accepted here; all
others are refused with file and line. The stable names of refused forms:

=============== =====================================================================================================
arity           a call with another number of arguments; a function without arguments
assign          := inside an expression
builtin         a builtin that is not in the closed list (`types.builtins`)
closure         comprehensions that regorus does not run: in the term of another comprehension, and in a head or an else
                value that has a body; a comprehension beside a reference in one statement, where OPA may find its names
                unsafe; a term that is an argument unchanged
compile         a text that regorus itself refuses
conflict        one rule of two kinds, with two numbers of arguments or two defaults; a rule inside another; and two possible
                values where only one may be (`types.conflicts`): in definitions that may hold at once, for several
                solutions of a body, under one key of an object
copy            a copy of a name, or an array taken apart by its name, before an `every` in the same body: regorus may run
                the `every` first
default         a default that is not made of literals
depth           a chain of over 64 rules
division        `/`: OPA computes with decimal, regorus with binary fractions; policies count in whole numbers
else            a value before an else that may be undefined: OPA goes on to the else, regorus has no value; and a lookup
                there by a name of the body: regorus looks up every key
encoding        U+0000 and U+FEFF, which OPA reads nowhere
function        a call of a function that does not exist, by an import or `data`
function-value  a function that is not called, or a variable that is
head            for several solutions, a `contains` or a head with keys that may be undefined: regorus drops the other
                solutions
import          anything but `data...`, `rego.v1` and `future.keywords` of if, in, every and contains; an import with the
                name of a rule
in              `in` as a value, with a side that may be undefined: false in regorus, undefined in OPA; and two names before
                `in` a set, which has keys in OPA only
match           what OPA's compiler refuses: sides of == or `in` with different types, or with objects of different names, and
                lookups that never find anything
negation        `not` of an expression that may be undefined (`undefined`)
nesting, size   texts on which regorus' parser spends exponential time, or its stack
number          a fraction, an exponent, over 2^53-1, -0, or a minus before anything but a literal; a product that may exceed
                2^256 (`types.inference`), because a chain of products doubles its digits at each step; and an object's key
                that may be a number over 2^53-1, because regorus rounds digits beyond 64 bits
order           < <= > >= with a set, an object or a comprehension, and sets beside objects in one set
package         `system...`, which OPA reserves for itself
pattern         an object or an expression where names are matched; := to a literal or to an array of another length
recursion       a rule that uses itself
regex           a pattern that is not a literal, that Go and Rust read differently, or that is too large for one of them
shadow          a name that is declared twice, or that is a rule or an import
sprintf         anything but a literal with %v and %%, and a literal array with one value for each %v
time            a literal that is not an instant of the years 1970 to 2255
type            values for which a builtin, an operator or `some ... in` might fail (`types.inference`); and an object's key
                that may be an array, a set or an object, because the engines escape its JSON text differently
unify           `=` in a body
unknown         syntax that this version of the check does not know
unsafe          a name without a value
unused          a name of `some x` or `every` without a use: OPA refuses it
with            `with` outside test files (`*_test.rego`); these may also call `print`
=============== =====================================================================================================

`check_bundle` adds the forms that need the data or the whole bundle: `type`, `else`, `in`, `match`, `order`, products, keys,
most of `conflict` (`types.inference`), `lookup` (`undefined`, and numbers that look up a text), `entrypoint`
(`bundle.check`), `roots`, `library` and `reasons` (the modules of `bundle` with these names), and `conflict` for data at the
path of a rule.

The complete and typed input document excludes other differences: its keys are always present, their types are fixed, and it
has no null, no fraction and no integer beyond 2^53-1. The policy's data has no fraction either. The remaining differences
(`differing.toml` next to the table):

- OPA reads METADATA comments when it compiles. If OPA refuses them, it never decides by that policy; `opa check` and
  `sealbus policy test` report it.
- Only sums and products give a number beyond 64 bits. It is exact in both engines, but the embedded regorus writes it as a
  fraction in JSON. No decision can hold it, because obligations hold only numbers within 2^53-1.
- A document that no gate made, such as a redacted document, may have types that the policy was not checked for. If the
  evaluation fails in one engine, that engine denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.lint import syntax
from sealbus.policies.lint.module import TEST_SUFFIX, Module, PolicyRefused, Problem
from sealbus.policies.lint.names import check_names
from sealbus.policies.lint.parse import parse
from sealbus.policies.lint.rules import RuleTable

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,15}")
_KEYWORDS: Final = frozenset({"if", "in", "every", "contains"})


def parse_all(modules: Iterable[Module]) -> tuple[list[syntax.File], list[Problem]]:
    """Return the parsed files, and the problems of those that regorus cannot parse."""
    files: list[syntax.File] = []
    problems: list[Problem] = []
    for module in modules:
        try:
            files.append(parse(module))
        except PolicyRefused as refused:
            problems.extend(refused.problems)
    return files, problems


def refused_forms(files: Iterable[syntax.File]) -> list[Problem]:
    """Return every form in `files` that the engines would decide differently, in no order.

    `files` must be all files that are compiled together. An empty list says nothing about what the policy decides.
    """
    table = RuleTable(files)
    problems: list[Problem] = []
    for file in table.files:
        relaxed = file.path.endswith(TEST_SUFFIX)
        problems.extend(_of_header(file))
        outside = table.outside(file)
        for rule in file.rules:
            problems.extend(check_names(file.path, rule, outside, relaxed=relaxed))
            table.check_uses(file, rule, relaxed=relaxed)
            if rule.kind == "default" and (rule.value is None or not syntax.constant(rule.value)):
                problems.append(Problem.at(file.path, rule.place, "default", "a default must be made of literals"))
            for expression in syntax.every_expression(rule):
                refusal = _arithmetic(expression)
                if refusal is not None:
                    problems.append(Problem.at(file.path, expression.place, *refusal))
    table.check_depth()
    return [*problems, *table.problems]


def _of_header(file: syntax.File) -> Iterable[Problem]:
    if file.package[:1] == ("system",):
        yield Problem.at(file.path, syntax.Place(line=1, column=1), "package", "OPA reserves the packages under system")
    for imported in file.imports:
        keyword = imported.path[:2] == ("future", "keywords") and (
            len(imported.path) == 2 or imported.path[2] in _KEYWORDS
        )
        if not keyword and imported.path != ("rego", "v1") and (imported.path[0] != "data" or len(imported.path) == 1):
            text = f"{'.'.join(imported.path)} cannot be imported: import data..., rego.v1 or future.keywords only"
            yield Problem.at(file.path, imported.place, "import", text)


def _arithmetic(expression: syntax.Expression) -> tuple[str, str] | None:
    match expression:
        case syntax.Number():
            whole = _WHOLE.fullmatch(expression.written) is not None
            if not whole or abs(int(expression.written)) > DEFAULT_LIMITS.max_integer:
                return "number", "a number must be whole, within 9007199254740991, written in digits, and not -0"
        case syntax.Negative():
            return "number", "a minus can only stand before digits: write 0 - x"
        case syntax.Infix(operator="Div"):
            return "division", "/ makes fractions, which the engines compute differently: multiply the other side"
        case syntax.Infix(operator="Lt" | "Le" | "Gt" | "Ge"):
            if any(
                isinstance(side, syntax.SetLiteral | syntax.ObjectLiteral | syntax.Comprehension)
                for side in syntax.children(expression)
            ):
                return "order", "the engines order sets and objects differently: compare their contents"
        case _:
            pass
    return None
