"""What-if: which decisions flip, and what becomes of a policy that is refused, never ends or eats all memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sealbus.agents.console.decisions.rows import DecisionRow
from sealbus.agents.console.decisions.what_if import ReplayableDecision, WhatIfRefused, answers_of
from sealbus.envelopes.errors import Code
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.request import Caller, Request, Resource, User, input_document

REGO = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "all"} if request.v == 1
"""
ENDLESS = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "all"} if {
	request.v == 1
	some a in numbers.range(1, 9999)
	some b in numbers.range(1, 9999)
	some c in numbers.range(1, 9999)
	a + b + c == 0
}
"""


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return build_bundle(Path("policies/rego"))


def asked(user: str, *, allow: bool, reasons: tuple[str, ...] = ()) -> ReplayableDecision:
    document = input_document(
        Request(
            caller=Caller(
                subject="spiffe://example.org/edge",
                trust_domain="example.org",
                user=User(present=True, id=user, type="user"),
                chain=("spiffe://example.org/edge",),
            ),
            action="inventory.read",
            resource=Resource(
                type="item", id="42", properties={"owner": "alice", "customer": "acme", "region": "always"}
            ),
            time=1_800_000_000_000_000,
            nats_subject="call.inventory.read",
            kind="call",
            message_id="0" * 32,
        )
    )
    row = DecisionRow(
        sequence=1, record=b"r" * 32, time=1_800_000_000_000_000, message=b"m" * 16, digest=b"", txn=b"",
        action="inventory.read", sender="edge", decider="inventory", user=user, allow=allow, reasons=reasons,
        code="" if allow else "denied",
    )  # fmt: skip
    recorded = RecordedDecision(
        sequence=1, time=row.time, leaf=row.record, recorder="", caller="", action=row.action,
        code=None if allow else Code.DENIED, input=bytes(document), redacted=False, reasons=reasons, obligations=b"",
        revision="r", engine="embedded", micros=1,
    )  # fmt: skip
    return ReplayableDecision(row=row, recorded=recorded)


DECISIONS = [asked("alice", allow=True), asked("carol", allow=False, reasons=("not_owner",))]


async def test_the_policy_in_force_says_the_same_again(starter: Bundle) -> None:
    found = (await answers_of(starter, {}, DECISIONS)).document()
    assert (found["read"], found["compared"], found["same"], found["flipped"]) == (2, 2, 2, [])


async def test_a_changed_file_and_changed_data_flip_what_they_should(starter: Bundle) -> None:
    found = (await answers_of(starter, {"sealbus/authz/decision.rego": REGO}, DECISIONS)).document()
    assert found["changes"] == {"deny-to-allow": 1}
    flipped = found["flipped"]
    assert isinstance(flipped, list)
    assert flipped[0]["was"] == {"allow": False, "reasons": ("not_owner",)}
    assert flipped[0]["now"] == {"allow": True, "reasons": ()}
    users = '{"alice": {"customers": {}}, "carol": {"customers": {"acme": true}}}'
    found = (await answers_of(starter, {"sealbus/registry/users/data.json": users}, DECISIONS)).document()
    assert found["changes"] == {"deny-to-allow": 1}


async def test_what_cannot_be_asked_again_is_counted(starter: Bundle) -> None:
    redacted = replace(DECISIONS[0], recorded=replace(DECISIONS[0].recorded, redacted=True))
    found = (await answers_of(starter, {}, [redacted])).document()
    assert found["not_replayable"] == {"redacted": 1}


async def test_what_is_no_policy_is_refused(starter: Bundle) -> None:
    with pytest.raises(WhatIfRefused) as refused:
        await answers_of(starter, {"sealbus/authz/decision.rego": "package x\n\nsurely {"}, DECISIONS)
    assert "decision.rego" in refused.value.detail


async def test_a_policy_that_never_ends_is_ended(starter: Bundle) -> None:
    with pytest.raises(WhatIfRefused):
        await answers_of(starter, {"sealbus/authz/decision.rego": ENDLESS}, DECISIONS, within=4.0)
