"""Tests made of recorded decisions: one for each way of deciding, about the smallest document that is decided so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.decision.documents import InputDocument, canonical, parse_data
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.lint.regorus import parse_module
from sealbus.policies.past.reduction import reduced
from sealbus.policies.past.rego_text import PastTest, rego_files
from sealbus.policies.past.ways import Evaluate, Evaluation, Ways


def past_tests(ways: Ways, evaluate: Evaluate) -> Iterator[PastTest]:
    """Yield a test for each way in `ways`, in their order; `evaluate` asks the policy that made them.

    A document is reduced while the policy evaluates the same lines and answers the same.
    """
    for way, example in sorted(ways.examples.items()):
        wanted = evaluate(way.rule, example.document)

        def same(document: dict[str, Json], rule: str = way.rule, wanted: Evaluation = wanted) -> bool:
            try:
                return evaluate(rule, InputDocument(canonical(document))) == wanted
            except PolicyFailed:
                return False

        document = reduced(parse_data(example.document), same)
        answer = cast("dict[str, Json]", wanted.answer)
        yield PastTest(rule=way.rule, leaf=example.leaf, document=document, answer=answer)


def is_writable(test: PastTest) -> bool:
    """Return whether Rego can hold `test`: its values may be nested too deep, or too long for a line."""
    try:
        for module in rego_files([test]):
            parse_module(module)
    except PolicyRefused:
        return False
    return True
