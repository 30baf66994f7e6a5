"""Tests from ways of deciding: a document on which the policy fails stands for none."""

from __future__ import annotations

import json

from support.policies import document
from support.recorded import recorded

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.past.ways import Evaluation, Ways
from sealbus.policies.past.writing import past_tests

ALLOWED = {"allow": True, "reasons": [], "obligations": [], "policy": "p"}


def needs_a_quantity(rule: str, asked: InputDocument) -> Evaluation:
    """Answer as a policy that fails on a message without a quantity."""
    del rule
    if "quantity" not in json.loads(asked).get("action", {}).get("properties", {}):
        raise PolicyFailed("no quantity")
    return Evaluation(ALLOWED, frozenset())


def test_what_the_policy_needs_stays_in_a_reduced_document() -> None:
    ways = Ways(needs_a_quantity)
    ways.add(recorded("yes", input=document("yes", properties={"quantity": 7, "text": "x"})))
    [test] = past_tests(ways, needs_a_quantity)
    assert (test.document, test.answer) == ({"action": {"properties": {"quantity": 7}}}, ALLOWED)
