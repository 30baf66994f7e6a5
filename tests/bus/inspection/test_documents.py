"""The documents that command line and console share: times, explanations, and the parts of the policy."""

from __future__ import annotations

import json

import pytest
from support.policies import signing_key
from support.teams import signed_platform, signed_team

from sealbus.bus.inspection.documents import explanation_document, part_documents, shown_time
from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.denials import DENIAL
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.explain.explanation import (
    ExplainedDecision,
    LiteralShown,
    Looked,
    NotExplained,
    ReasonShown,
    Unexplained,
)
from sealbus.policies.lint.module import PolicyRefused

ROOT, STOCK = signing_key(), signing_key()


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        (1_795_528_800_123_000, "2026-11-24T14:00:00.123Z"),
        (1_795_528_800_000_000, "2026-11-24T14:00:00.000Z"),
        (0, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_shown_in_utc_with_milliseconds(time: int, shown: str) -> None:
    assert shown_time(time) == shown


def test_an_explanation_is_json_with_the_literals_of_its_reasons() -> None:
    owner = LiteralShown(
        file="a.rego", line=7, written="user.id == owner", looked=(Looked(written="owner", value=None),)
    )
    explained = ExplainedDecision(
        revision="r1", policy="p", allow=False, reasons=(ReasonShown(reason="not_owner", failed=(owner,)),), rules=()
    )
    document = json.loads(json.dumps(explanation_document(explained)))
    assert document["explained"] is True
    assert (document["revision"], document["allow"], document["cut"]) == ("r1", False, False)
    [reason] = document["reasons"]
    assert (reason["reason"], reason["held"]) == ("not_owner", [])
    assert reason["failed"] == [
        {"file": "a.rego", "line": 7, "written": "user.id == owner", "looked": [{"written": "owner", "value": None}]}
    ]


def test_a_decision_that_is_not_explained_says_why() -> None:
    missing = NotExplained(why=Unexplained.NO_POLICY, detail="revision r1")
    assert explanation_document(missing) == {"explained": False, "why": "no_policy", "detail": "revision r1"}


def test_each_stored_part_is_in_force_or_has_a_problem() -> None:
    parts = PartSet({key_id(ROOT.public): ROOT.public})
    parts.offer(PLATFORM, signed_platform(ROOT, {"stock": STOCK}))
    parts.offer("stock", signed_team("stock", STOCK))
    with pytest.raises(PolicyRefused):
        parts.offer("money", signed_team("money", STOCK))
    stock, money, platform = part_documents(parts, {"stock": [1, 2], "money": [4], PLATFORM: []})
    assert (stock["part"], stock["serial"], stock["key"], stock["kept"]) == ("stock", 1, key_id(STOCK.public), [1, 2])
    assert (platform["serial"], platform["key"], platform["problem"]) == (1, key_id(ROOT.public), "")
    bundle = parts.bundle("stock")
    assert bundle is not None
    assert (stock["revision"], stock["problem"]) == (bundle.revision, "")
    assert (money["serial"], money["revision"], money["key"], money["kept"]) == (None, "", "", [4])
    assert "names no team" in money["problem"]
    with pytest.raises(PolicyRefused):
        parts.offer(DENIAL, signed_platform(ROOT, {}))
    [platform] = part_documents(parts, {PLATFORM: []})
    assert "scope" in platform["problem"]
