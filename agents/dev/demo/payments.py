"""Scenes of a payment that somebody has to approve: it waits, everything is restarted, and a manager approves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from sealbus.agents.dev.demo.backstage import WITHIN
from sealbus.agents.dev.demo.people import SHOP
from sealbus.agents.dev.demo.scene import ALLOW, Outcome, Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.envelopes.errors import Code

INVOICE: Final = "2041"
AMOUNT: Final = 420_000
_QUEUE: Final = "managers"


async def _waits(stage: Stage) -> Outcome:
    """Submit a payment over the limit: it is denied until a manager approves it, and waits."""
    token = stage.door.token("alice")
    answer = await stage.door.post("/v1/tasks/payments/pay", {"invoice_id": INVOICE, "amount": AMOUNT}, token)
    if answer.status_code != 202:
        return Outcome(got=answer.status_code, code=answer.json().get("code", ""))
    task = str(answer.json()["id"])
    denied = await stage.decision_on(task)
    state = await stage.door.state(task, token, until="input-required")
    return Outcome(got=str(state["state"]), code=str(state.get("code", "")), reasons=denied.reasons)


async def _herself(stage: Stage) -> Outcome:
    """Alice approves what she asked for, with a login as fresh and strong as a manager's: she is not even shown it."""
    return Outcome(got=len(await _waiting(stage, "alice")))


async def _old_login(stage: Stage) -> Outcome:
    """Bob says it with a login that the policy finds too weak."""
    one = await _shown(stage)
    token = await stage.backstage.approver("bob", acr="")
    answer = await stage.door.post(f"/v1/approvals/{one['id']}", _verdict(one), token)
    return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))


async def _approved(stage: Stage) -> Outcome:
    """Bob, who manages the customer, approves it with a fresh login: it is paid, once, exactly as alice has sent it."""
    one = await _shown(stage)
    answer = await stage.door.post(f"/v1/approvals/{one['id']}", _verdict(one), await stage.backstage.approver("bob"))
    if answer.status_code != 200:
        return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))
    stage.approved = one
    token = stage.door.token("alice")
    state = await stage.door.last_state(str(one["task"]), token)
    if state["state"] != "completed":
        return Outcome(got=str(state["state"]), code=str(state.get("code", "")))
    result = (await stage.door.get(f"/v1/tasks/{one['task']}/result", token)).json()
    paid = (result["invoice_id"], result["amount"], result["approved_by"]) == (INVOICE, AMOUNT, ["bob"])
    return Outcome(got=ALLOW if paid else "error")


async def _again(stage: Stage) -> Outcome:
    """Bob approves once more what he approved: nothing waits for it any more."""
    one = stage.approved
    answer = await stage.door.post(f"/v1/approvals/{one['id']}", _verdict(one), await stage.backstage.approver("bob"))
    return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))


async def _waiting(stage: Stage, user: str) -> list[dict[str, Any]]:
    """Return what waits for a manager as `user` is shown it, once the notary has vouched for the keys of before."""
    token = await stage.backstage.approver(user)
    async with asyncio.timeout(2 * WITHIN):
        while True:
            answer = await stage.door.get(f"/v1/approvals?queue={_QUEUE}", token)
            if answer.status_code != 503:
                return list(answer.json()["approvals"])
            await asyncio.sleep(int(answer.headers["retry-after"]))


async def _shown(stage: Stage) -> dict[str, Any]:
    """Return the payment as bob is shown it; it must be the only thing that waits."""
    found = await _waiting(stage, "bob")
    if len(found) != 1:
        raise LookupError(f"{len(found)} payments wait")
    one = found[0]
    if one["facts"] != {"amount": AMOUNT} or one["resource"]["id"] != INVOICE:
        raise LookupError("another payment waits")
    return dict(one)


def _verdict(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"decision": one["decision"], "verdict": "approve", "note": "as agreed"}


PAYMENTS: Final = (
    Scene(
        name="a payment over the limit",
        who=SHOP, user="alice", what="payments.pay of 4,200.00 for invoice 2041, where the limit is 1,000.00",
        expected=Outcome(got="input-required", code=str(Code.APPROVAL_REQUIRED), reasons=("over_limit",)), play=_waits,
    ),
)  # fmt: skip
"""Before everything is restarted."""

NEXT_DAY: Final = (
    Scene(
        name="nobody approves their own request",
        who=SHOP, user="alice", what="what waits in the queue of managers, as alice is shown it: nothing",
        expected=Outcome(got=0), play=_herself,
    ),
    Scene(
        name="a login that is not enough",
        who=SHOP, user="bob", what="the approval of the payment, without the second factor that the policy asks for",
        expected=Outcome(got=401, code=str(Code.DENIED)), play=_old_login,
    ),
    Scene(
        name="a manager approves",
        who=SHOP, user="bob", what="the approval of the payment, with a fresh login: it is paid, once",
        expected=Outcome(got=ALLOW), play=_approved,
    ),
    Scene(
        name="approved twice",
        who=SHOP, user="bob", what="the same approval once more",
        expected=Outcome(got=409, code=str(Code.APPROVAL_CLOSED)), play=_again,
    ),
)  # fmt: skip
"""After everything was restarted and every key was replaced."""
