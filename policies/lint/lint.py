"""Rego forms that OPA and the embedded interpreter would decide differently: refused before a policy is in force.

Both engines must give one answer to one question. The table in tests/policies/forms holds several hundred forms,
each decided by regorus 0.12.0 and by OPA 1.22.2 (strict builtin errors); forms that both decide alike are accepted here,
all others are refused with file and line. The stable names of refused forms:

=============== =====================================================================================================
arity           a call with another number of arguments; a function without any
assign          := inside an expression
builtin         a builtin that is not in the closed list (`types.builtins`)
closure         a comprehension in the term of another that needs names of its body, and any in a head or the value of
                an else that has a body: regorus never runs it; one in a statement with a reference beside it, where
                OPA may find its names unsafe; one that collects an argument as it is
compile         what regorus itself refuses
conflict        one rule of two kinds, two numbers of arguments or two defaults; a rule inside another; and where two
                values might meet that are one (`types.conflicts`): in definitions that may hold together, for several
                solutions of a body, under one key of an object
copy            a copy of a name, or an array taken apart by its name, in a body with an `every` after it, which regorus may
                run before
default         a default that is not made of literals
depth           over 64 rules in a row
division        `/`: OPA computes with decimal, regorus with binary fractions; policies count in whole numbers
else            a value that may be undefined before an else: OPA goes on to the else, regorus has none; and one that is
                looked up there by a name of the body: regorus takes every key for it
encoding        U+0000 and U+FEFF, which OPA reads nowhere
function        a call, by an import or `data`, of a function that is not there
function-value  a function that is not called, a variable that is
head            what `contains`, or a head with keys, says for several solutions, where it may be undefined: regorus
                forgets the others
import          anything but `data...`, `rego.v1` and `future.keywords` of if, in, every and contains; an import
                whose name is a rule's as well
in              `in` as a value, with a side that may be undefined: false in regorus, undefined in OPA; and two names before
                `in` a set, which has keys in OPA only
match           two sides of == or `in` whose types differ, or that hold objects of other names, and a name that is nowhere:
                OPA's compiler refuses these
negation        `not` over something that may be undefined (`undefined`)
nesting, size   what takes regorus' parser exponential time, or its stack
number          a fraction, an exponent, over 2^53-1, -0, or a minus before anything but a literal; a product that may be
                over 2^256 (`types.inference`), in a chain of which the digits double at each step; and an object's key that
                may be a number over 2^53-1: regorus rounds its digits beyond 64 bits
order           < <= > >= with a set, an object or a comprehension, and sets beside objects in one set
package         `system...`, which OPA keeps for itself
pattern         an object or an expression where names are matched; := to a literal or an array of another length
recursion       a rule that uses itself
regex           a pattern that is not a literal, that Go and Rust read otherwise, or that one of them finds too large
shadow          a name that is declared twice, or that a rule or an import has already
sprintf         anything but a literal with %v and %%, and one value for each %v
time            a literal that is no instant of the years 1970 to 2255
type            what a builtin, an operator or `some ... in` might fail for (`types.inference`); and an object's key that may
                be an array, a set or an object: the engines escape its JSON text otherwise
unify           `=` in a body
unknown         syntax that this version of the check has never seen
unsafe          a name without a value
unused          a name of `some x` or `every` that nothing uses: OPA refuses it
with            outside test files (`*_test.rego`), which may also call `print`
=============== =====================================================================================================

`check_bundle` adds what needs the data or the whole bundle: `type`, `else`, `in`, `match`, `order`, products, keys, most of
`conflict` (`types.inference`), `lookup` (`undefined`, and numbers that look up a text), `entrypoint` (`bundle.check`),
`roots`, `library` and `reasons` (modules of `bundle` that are called so), and `conflict` where data stands in the place of
a rule.

What the text does not show, the complete and typed input document rules out: its keys are always present and their
types fixed; it holds no null, no fraction and no integer beyond 2^53-1, and the policy's data no fraction.
The remaining differences (`differing.toml` next to the table):

- OPA reads METADATA comments when it compiles. A policy that it refuses there is never decided by OPA; `opa check` and
  `sealbus policy test` report it.
- A number beyond 64 bits, which only sums and products reach, is exact in both, but the embedded regorus writes it as a
  fraction in JSON: no decision can hold it, because obligations hold only numbers within 2^53-1.
- A document that no gate made, such as a redacted one, may have other types than a policy was checked for. An evaluation
  that then fails in one engine is a denial there.
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
    """Return every form in `files` that the engines would decide differently, in no particular order.

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
            problems.extend(_of_default(file, rule))
            for expression in syntax.every_expression(rule):
                refusal = _arithmetic(expression)
                if refusal is not None:
                    problems.append(Problem.at(file.path, expression.place, *refusal))
    table.check_depth()
    return [*problems, *table.problems]


def _of_header(file: syntax.File) -> Iterable[Problem]:
    if file.package[:1] == ("system",):
        yield Problem.at(file.path, syntax.Place(line=1, column=1), "package", "packages under system are OPA's own")
    for imported in file.imports:
        keyword = imported.path[:2] == ("future", "keywords") and (
            len(imported.path) == 2 or imported.path[2] in _KEYWORDS
        )
        if not keyword and imported.path != ("rego", "v1") and (imported.path[0] != "data" or len(imported.path) == 1):
            text = f"{'.'.join(imported.path)} cannot be imported: data..., rego.v1 and future.keywords can"
            yield Problem.at(file.path, imported.place, "import", text)


def _of_default(file: syntax.File, rule: syntax.Rule) -> Iterable[Problem]:
    if rule.kind == "default" and (rule.value is None or not syntax.constant(rule.value)):
        yield Problem.at(file.path, rule.place, "default", "a default is made of literals")


def _arithmetic(expression: syntax.Expression) -> tuple[str, str] | None:
    match expression:
        case syntax.Number():
            whole = _WHOLE.fullmatch(expression.written) is not None
            if not whole or abs(int(expression.written)) > DEFAULT_LIMITS.max_integer:
                return "number", "numbers are whole, within 9007199254740991, and written in digits; 0 has no minus"
        case syntax.Negative():
            return "number", "a minus stands before digits only: write 0 - x"
        case syntax.Infix(operator="Div"):
            return "division", "/ makes fractions, which the engines compute otherwise: multiply the other side"
        case syntax.Infix(operator="Lt" | "Le" | "Gt" | "Ge"):
            if any(
                isinstance(side, syntax.SetLiteral | syntax.ObjectLiteral | syntax.Comprehension)
                for side in syntax.children(expression)
            ):
                return "order", "sets and objects are put in order otherwise: compare what is in them"
        case _:
            pass
    return None
