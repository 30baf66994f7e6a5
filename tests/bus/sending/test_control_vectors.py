"""The vectors of control messages: we and the independent reader find the same in each body, and refuse the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from independent import control_bodies as independent
from independent.verify_export import Bad
from support.vectors import Given, load, octets

from sealbus.bus.sending.approval import ApprovalRequest, encode_approval, parse_approval
from sealbus.bus.sending.cancel import CancelRequest, encode_cancel, parse_cancel
from sealbus.bus.work.schedules.request import ScheduleRequest, encode_schedule, parse_schedule
from sealbus.bus.work.schedules.rule import when_json
from sealbus.envelopes.errors import BadBody

VECTORS = load("control.json")
ACCEPT = [(kind, case) for kind, cases in VECTORS.items() for case in cases["accept"]]
REJECT = [(kind, case) for kind, cases in VECTORS.items() for case in cases["reject"]]

PARSERS: dict[str, Callable[[bytes, str], CancelRequest | ApprovalRequest | ScheduleRequest]] = {
    "cancel": parse_cancel,
    "approve": parse_approval,
    "schedule": parse_schedule,
}
READERS = {
    "cancel": independent.read_cancel,
    "approve": independent.read_approval,
    "schedule": independent.read_schedule,
}


def named(value: object) -> str | None:
    return value if isinstance(value, str) else value["name"] if isinstance(value, dict) else None


def ours(kind: str, body: bytes, typ: str) -> Given:
    """Return the members that we find, under the names that they have in a body."""
    request = PARSERS[kind](body, typ)
    match request:
        case CancelRequest():
            return {
                "task": request.digest.hex(),
                "action": request.action,
                "end": request.end,
                "role": request.role.value,
                "reason": request.reason,
            }
        case ApprovalRequest():
            return {
                "decision": request.decision.hex(),
                "verdict": request.verdict.value,
                "note": request.note,
            }
        case ScheduleRequest():
            return {"name": request.name, "state": request.state.value, **planned(request)}


def planned(request: ScheduleRequest) -> Given:
    if request.planned is None:
        return {}
    plan = request.planned
    return {
        "do": {
            "action": plan.action,
            "typ": plan.body.typ,
            "body": plan.body.body.hex(),
            "partition": plan.partition,
            "grants": list(plan.grants) if plan.grants is not None else None,
            "life": plan.life,
        },
        "when": when_json(plan.when),
        "overlap": plan.overlap.value,
        "catchup": plan.catchup,
        "until": plan.until,
    }


def theirs(kind: str, body: bytes, typ: str) -> dict[str, Any]:
    found = READERS[kind](body, typ)
    if "do" in found:
        found = {**found, "do": {**found["do"], "body": found["do"]["body"].hex()}}
    return found


@pytest.mark.parametrize(("kind", "case"), ACCEPT, ids=named)
def test_accepted(kind: str, case: Given) -> None:
    body, typ = octets(case["body"]), case["typ"]
    assert ours(kind, body, typ) == case["expect"]
    assert theirs(kind, body, typ) == case["expect"]


@pytest.mark.parametrize(("kind", "case"), REJECT, ids=named)
def test_refused(kind: str, case: Given) -> None:
    body, typ = octets(case["body"]), case["typ"]
    with pytest.raises(BadBody):
        PARSERS[kind](body, typ)
    with pytest.raises(Bad):
        READERS[kind](body, typ)


@pytest.mark.parametrize(("kind", "case"), ACCEPT, ids=named)
def test_what_we_write_is_read_again(kind: str, case: Given) -> None:
    encoders = {"cancel": encode_cancel, "approve": encode_approval, "schedule": encode_schedule}
    written = encoders[kind](PARSERS[kind](octets(case["body"]), case["typ"]))  # type: ignore[operator]
    assert theirs(kind, *written) == case["expect"]
