"""A policy asked with its lines, as the tests from the past are made with, and a log of what it decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from support.recorded import recorded

from sealbus.envelopes.errors import Code
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.decision import obligations_json, parse_decision
from sealbus.policies.decision.documents import InputDocument, canonical, checked_document
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.past.ways import Evaluation

__all__ = ["decided_log", "evaluator"]


def evaluator(bundle: Bundle) -> Callable[[str, InputDocument], Evaluation]:
    """Return what asks the policy of `bundle` in this thread."""
    interpreter = Interpreter(bundle.modules, canonical(bundle.data), cover=True)

    def evaluate(rule: str, document: InputDocument) -> Evaluation:
        interpreter.covered_lines()
        answer = interpreter.evaluate(rule, document)
        return Evaluation(answer, interpreter.covered_lines())

    return evaluate


def decided_log(
    evaluate: Callable[[str, InputDocument], Evaluation], questions: Iterable[tuple[str, bytes]]
) -> list[RecordedDecision]:
    """Return the records of what is decided on `questions`, each a rule and a document, with leaves of their own."""
    log = []
    for number, (rule, document) in enumerate(questions):
        answer = evaluate(rule, checked_document(document)).answer
        decision = parse_decision(answer, revision="r1", engine="embedded", micros=1)
        log.append(
            recorded(
                "payments._approve" if "approval" in rule else "inventory.update",
                code=None if decision.allow else Code.DENIED,
                input=document,
                reasons=decision.reasons,
                obligations=obligations_json(decision),
                leaf=number.to_bytes(32, "big"),
            )
        )
    return log
