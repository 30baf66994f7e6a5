"""The vectors of revocations: we and the independent reader find the same contexts revoked, and refuse the same documents."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from independent import revocations as independent
from independent import verify_export
from support.engines import ScriptedEngine
from support.vectors import Given, load
from vectors.issuing import NOW

from sealbus.bus.gate.authorizer import caller_for
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.revocations import Revocations, issued_before, revocations_of
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.request import Request, input_document
from sealbus.policies.engines.revoking import RevokingEngine
from sealbus.policies.lint.module import PolicyRefused

VECTORS = load("revocations.json")


def part(data: Any) -> Revocations:
    bundle = SimpleNamespace(data={"sealbus": {"revocations": data}}, serial=7)
    return revocations_of(cast("Bundle", bundle))


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
async def test_whom_revocations_deny(case: Given) -> None:
    payload = bytes.fromhex(case["context"])
    known = part(case["revocations"])
    context = parse_payload(payload)
    request = Request(
        caller=caller_for(context.iss, context), action="inventory.update", time=NOW, nats_subject="task.inventory.update",
        kind="task", message_id="",
    )  # fmt: skip
    [answer] = await RevokingEngine(ScriptedEngine(), lambda: known).decide([input_document(request)])
    assert isinstance(answer, Decision)
    if case["reason"] is None:
        assert answer.allow
    else:
        assert (answer.allow, answer.reasons, answer.obligations) == (False, (case["reason"],), ())
        assert (answer.policy, answer.engine, answer.revision) == ("revocations", "revocations", "revocations-7")
    theirs = independent.read_revocations(case["revocations"])
    assert independent.revoked(theirs, verify_export.read_context(payload)) == case["reason"]


@pytest.mark.parametrize("data", VECTORS["reject"], ids=json.dumps)
def test_what_spoils_them(data: Any) -> None:
    with pytest.raises(PolicyRefused):
        part(data)
    with pytest.raises(verify_export.Bad):
        independent.read_revocations(data)


@pytest.mark.parametrize("data", VECTORS["issued_before"]["accept"], ids=json.dumps)
def test_the_operators(data: Any) -> None:
    ours = issued_before({"sealbus": {"registry": {"issued_before": data}}})
    assert {iss.value: time for iss, time in ours.items()} == data == independent.read_issued_before(data)


@pytest.mark.parametrize("data", VECTORS["issued_before"]["reject"], ids=json.dumps)
def test_what_spoils_the_operators(data: Any) -> None:
    with pytest.raises(ValueError, match="issued_before"):
        issued_before({"sealbus": {"registry": {"issued_before": data}}})
    with pytest.raises(verify_export.Bad):
        independent.read_issued_before(data)
