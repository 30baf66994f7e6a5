"""What is made of a decision: which paths of the input its rules looked at, which queue it asks, what is not explained."""

from __future__ import annotations

import pytest

from sealbus.agents.console.decisions.decision_document import (
    approval_queue,
    explained_document,
    looked_at,
    reason_documents,
)
from sealbus.agents.console.documents import ExplainedDocument, LiteralDocument, ReasonDocument
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.trust.proof import Proof
from sealbus.policies.explain.explanation import NotExplained, Unexplained

GIVEN = {
    "action": {"name": "inventory.read", "properties": {"quantity": 5000}},
    "resource": {"properties": {"owner": "bob", "tags": ["a"]}},
    "context": {"user": {"id": "alice", "session": "s"}, "chain": ["x"]},
}


def told(*looked: tuple[str, str | None]) -> ExplainedDocument:
    literals: list[LiteralDocument] = [
        {"file": "a.rego", "line": 1, "written": name, "looked": [{"written": name, "value": value}]}
        for name, value in looked
    ]
    reason: ReasonDocument = {"reason": "x", "title": "", "remedy": "", "failed": literals, "held": []}
    return {"explained": True, "reasons": [reason]}


@pytest.mark.parametrize(
    ("looked", "paths"),
    [
        (("user.id", '"alice"'), ["context.user.id"]),
        (("request.context.user.id", '"alice"'), ["context.user.id"]),
        (("input.action.name", '"inventory.read"'), ["action.name"]),
        (("properties.owner", '"bob"'), ["resource.properties.owner"]),
        # The same words for another value: of the registry, for instance.
        (("user.id", '"bob"'), []),
        (("properties.limit", None), []),
        # A local variable says nothing about where it is from.
        (("owner", '"bob"'), []),
        (("id", '"alice"'), []),
    ],
)
def test_the_looked_at_paths_have_the_words_and_the_value(looked: tuple[str, str | None], paths: list[str]) -> None:
    assert looked_at(told(looked), GIVEN) == paths


def test_nothing_was_looked_at_without_an_explanation() -> None:
    document = explained_document(NotExplained(why=Unexplained.REDACTED), None)
    assert document == {"explained": False, "why": "redacted", "detail": ""}
    assert looked_at(document, GIVEN) == []


def test_a_reason_without_words_stands_alone() -> None:
    assert reason_documents(["x"], None) == [{"reason": "x", "title": "", "remedy": ""}]


@pytest.mark.parametrize(
    ("obligations", "queue"),
    [
        (b'[{"type":"approval","queue":"managers"}]', "managers"),
        (b'[{"type":"other"},{"type":"approval","queue":"managers"}]', "managers"),
        (b'[{"type":"approval","queue":7}]', ""),
        (b'{"type":"approval"}', ""),
        (b"[[1]]", ""),
        (b"not json", ""),
        (b"", ""),
    ],
)
def test_the_queue_is_that_of_a_denial_that_asks_people(obligations: bytes, queue: str) -> None:
    record = DecisionRecord(
        b"h", Proof(1, 0, (), b"s" * 64), "a.b", CorePlace(1), 1, allow=False, code="denied", input=b"{}",
        obligations=obligations, revision="r", policy="p", engine="e", micros=1,
    )  # fmt: skip
    assert approval_queue(record) == queue
