"""Scenes of a payment that needs an approval: it waits, all processes are restarted, and a manager approves it."""

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
    """Alice tries to approve her own payment, with a login as fresh and strong as a manager's: it is not shown to her."""
    return Outcome(got=len(await _waiting(stage, "alice")))


async def _old_login(stage: Stage) -> Outcome:
    """Bob approves it with a login that the policy finds too weak."""
    approval = await _shown(stage)
    token = await stage.backstage.approver("bob", acr="")
    answer = await stage.door.post(f"/v1/approvals/{approval['id']}", _verdict(approval), token)
    return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))


async def _approved(stage: Stage) -> Outcome:
    """Bob, who manages the customer, approves it with a fresh login: it is paid once, exactly as alice sent it."""
    approval = await _shown(stage)
    answer = await stage.door.post(
        f"/v1/approvals/{approval['id']}", _verdict(approval), await stage.backstage.approver("bob")
    )
    if answer.status_code != 200:
        return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))
    stage.approved = approval
    token = stage.door.token("alice")
    state = await stage.door.state(str(approval["task"]), token)
    if state["state"] != "completed":
        return Outcome(got=str(state["state"]), code=str(state.get("code", "")))
    result = (await stage.door.get(f"/v1/tasks/{approval['task']}/result", token)).json()
    paid = (result["invoice_id"], result["amount"], result["approved_by"]) == (INVOICE, AMOUNT, ["bob"])
    return Outcome(got=ALLOW if paid else "error")


async def _again(stage: Stage) -> Outcome:
    """Bob approves the same payment again: it does not wait any more."""
    approval = stage.approved
    answer = await stage.door.post(
        f"/v1/approvals/{approval['id']}", _verdict(approval), await stage.backstage.approver("bob")
    )
    return Outcome(got=answer.status_code, code=str(answer.json().get("code", "")))


async def _waiting(stage: Stage, user: str) -> list[dict[str, Any]]:
    """Return the approvals for managers that `user` sees, once the notary has recorded the former keys."""
    token = await stage.backstage.approver(user)
    async with asyncio.timeout(2 * WITHIN):
        while True:
            answer = await stage.door.get(f"/v1/approvals?queue={_QUEUE}", token)
            if answer.status_code != 503:
                return list(answer.json()["approvals"])
            await asyncio.sleep(int(answer.headers["retry-after"]))


async def _shown(stage: Stage) -> dict[str, Any]:
    """Return the payment as bob sees it; no other may wait."""
    waiting = await _waiting(stage, "bob")
    if len(waiting) != 1:
        raise LookupError(f"{len(waiting)} payments wait")
    approval = waiting[0]
    if approval["facts"] != {"amount": AMOUNT} or approval["resource"]["id"] != INVOICE:
        raise LookupError("another payment waits")
    return dict(approval)


def _verdict(approval: Mapping[str, Any]) -> dict[str, Any]:
    return {"decision": approval["decision"], "verdict": "approve", "note": "as agreed"}


PAYMENTS: Final = (
    Scene(
        name="a payment over the limit",
        actor=SHOP, user="alice", attempt="payments.pay of 4,200.00 for invoice 2041, where the limit is 1,000.00",
        expected=Outcome(got="input-required", code=str(Code.APPROVAL_REQUIRED), reasons=("over_limit",)), play=_waits,
    ),
)  # fmt: skip
"""Before all processes are restarted."""

NEXT_DAY: Final = (
    Scene(
        name="nobody approves their own request",
        actor=SHOP, user="alice", attempt="a look at the queue of managers, which shows her nothing",
        expected=Outcome(got=0), play=_herself,
    ),
    Scene(
        name="a login that is not enough",
        actor=SHOP, user="bob", attempt="the approval of the payment, without the second factor that the policy requires",
        expected=Outcome(got=401, code=str(Code.DENIED)), play=_old_login,
    ),
    Scene(
        name="a manager approves",
        actor=SHOP, user="bob", attempt="the approval of the payment, with a fresh login: it is paid, once",
        expected=Outcome(got=ALLOW), play=_approved,
    ),
    Scene(
        name="approved twice",
        actor=SHOP, user="bob", attempt="the same approval once more",
        expected=Outcome(got=409, code=str(Code.APPROVAL_CLOSED)), play=_again,
    ),
)  # fmt: skip
"""After all processes were restarted and every key was replaced."""
