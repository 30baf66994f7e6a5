"""Scenes with people: they log in and call the edge, and every agent on the way decides for itself."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sealbus.agents.dev.demo.scene import ALLOW, CANCELED, DENY, Outcome, Play, Scene
from sealbus.agents.dev.demo.stage import STRANGER, Stage
from sealbus.agents.examples.inventory import Update
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import DecisionRecord

SHOP: Final = "the shop's web page, through the edge"

_REASON: Final = "counted enough"
_STOPPED: Final = Counter(
    {
        ("pricing.appraise", None): 1,
        ("inventory.stocktake", None): 1,
        ("pricing.appraise", "canceled"): 1,
        ("inventory.stocktake", "canceled"): 1,
        ("planner.stocktake", "canceled"): 1,
    }
)
"""The outcomes recorded of the canceled plan: how often each action ended with which error, if any."""


def allowed() -> Outcome:
    """Return the expected outcome of an allowed message."""
    return Outcome(got=ALLOW)


def denied(*reasons: str) -> Outcome:
    """Return the expected outcome of a message that the policy denies for `reasons`."""
    return Outcome(got=DENY, code=str(Code.DENIED), reasons=reasons)


def decision_of(entry: AuditEntry) -> DecisionRecord:
    """Return the decision record of an entry."""
    if not isinstance(entry.record, DecisionRecord):
        raise TypeError("a decision")
    return entry.record


def outcome_of(record: DecisionRecord) -> Outcome:
    """Return the outcome that a decision record holds."""
    if record.allow:
        return allowed()
    return Outcome(got=DENY, code=str(record.code), reasons=record.reasons)


async def through_the_edge(stage: Stage, user: str, item: str, quantity: int, *, session: str = "") -> Outcome:
    """Submit an update over HTTP as `user`, and check that the decision and the task's last state agree."""
    token = stage.door.token(user, session=session)
    answer = await stage.door.post("/v1/tasks/inventory/update", {"item_id": item, "quantity": quantity}, token)
    if answer.status_code != 202:
        return Outcome(got=answer.status_code, code=answer.json().get("code", ""))
    task_id = answer.json()["id"]
    got = outcome_of(await stage.decision_on(task_id))
    state = await stage.door.state(task_id, token)
    if state["state"] != ("completed" if got.got == ALLOW else "rejected"):
        return Outcome(got=str(state["state"]), code=str(state.get("code", "")))
    return got


def task(user: str, *, item: str = "42", quantity: int = 3, session: str = "") -> Play:
    """Return the play of one update by `user`."""

    async def run(stage: Stage) -> Outcome:
        return await through_the_edge(stage, user, item, quantity, session=session)

    return run


async def _without_the_right(stage: Stage) -> Outcome:
    """Exchange alice's token for a context of `pricing`, as any backend may, and try an action that `pricing` may not use."""
    client = stage.clients["pricing"]
    user = await client.user_context(stage.door.token("alice"))
    handle = await client.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
    return outcome_of(await stage.decision_on(handle.message_id))


async def _stranger(stage: Stage) -> Outcome:
    handle = await stage.clients[STRANGER].submit("inventory.update", Update(item_id="42", quantity=3))
    return outcome_of(await stage.decision_on(handle.message_id))


async def _three_hops(stage: Stage) -> Outcome:
    """Call the planner, and find its third hop among the decisions, with alice and all agents on the way in its input."""
    before = len(stage.entries)
    answer = await stage.door.post(
        "/v1/calls/planner/plan", {"item_ids": ["42"], "quantity": 12}, stage.door.token("alice")
    )
    if answer.status_code != 200:
        return Outcome(got=answer.status_code, code=answer.json().get("code", ""))
    names = stage.backstage.settings.names
    chain = [names.id_of(name).value for name in ("edge", "planner", "inventory")]

    def third(entry: object) -> bool:
        place = next(place for place, known in enumerate(stage.entries) if known is entry)
        return place >= before and _context(stage.entries[place].input).get("chain") == chain

    decided = await stage.decision(third)
    user = _context(decided.input).get("user")
    alice = stage.door.user_id("alice")
    if not isinstance(user, dict) or user.get("id") != alice or not isinstance(decided.record, DecisionRecord):
        return Outcome(got="error", code="user")
    return outcome_of(decided.record)


async def _canceled(stage: Stage) -> Outcome:
    """Cancel a plan of three agents while they handle its second item: all three stop, and the first item stays counted."""
    token = stage.door.token("alice")
    items = [{"item_id": "42", "seconds": 0}, {"item_id": "43", "seconds": 25}]
    answer = await stage.door.post("/v1/tasks/planner/stocktake", {"items": items}, token)
    if answer.status_code != 202:
        return Outcome(got=answer.status_code, code=answer.json().get("code", ""))
    task_id = answer.json()["id"]
    plan = await stage.decision(lambda entry: entry.decided is not None and entry.decided.id.hex() == task_id)
    if plan.decided is None or plan.txn is None:
        return Outcome(got="error", code="user")
    digest, txn = plan.decided.digest, plan.txn
    await stage.decision(lambda entry: entry.txn == txn and _asks_about(entry.input, "pricing.appraise", "43"))
    canceled = await stage.door.cancel(task_id, _REASON, token)
    if canceled.status_code != 202:
        return Outcome(got=canceled.status_code, code=canceled.json().get("code", ""))
    state, edge = await stage.door.state(task_id, token), stage.backstage.settings.names.id_of("edge").value
    if (state["state"], state.get("note"), state.get("by")) != (CANCELED, _REASON, edge):
        return Outcome(got=str(state["state"]), code=str(state.get("code", "")))
    cancel = await stage.decision(lambda entry: entry.decided is not None and entry.decided.re == digest)
    if not _asks_about(cancel.input, "planner._cancel", digest.hex()) or outcome_of(decision_of(cancel)) != allowed():
        return Outcome(got="error", code="not_decided")
    if Counter(await stage.outcomes(txn, _STOPPED.total())) != _STOPPED:
        return Outcome(got="error", code="outcomes")
    return Outcome(got=CANCELED, code=str(state["code"]))


def _asks_about(document: dict[str, object], action: str, resource: str) -> bool:
    """Return whether the decision was on `action` of `resource`."""
    requested, about = document.get("action"), document.get("resource")
    return (
        isinstance(requested, dict)
        and isinstance(about, dict)
        and (requested["name"], about["id"]) == (action, resource)
    )


def _context(document: dict[str, object]) -> dict[str, object]:
    context = document.get("context")
    return context if isinstance(context, dict) else {}


def _at_the_door(*, token: bool = True, audience: str = "", expires_in: int = 300) -> Play:
    async def run(stage: Stage) -> Outcome:
        text = stage.door.token("alice", audience=audience, expires_in=expires_in) if token else ""
        answer = await stage.door.post("/v1/calls/inventory/read", {"item_id": "42"}, text)
        return Outcome(got=answer.status_code, code=answer.json().get("code", ""))

    return run


def _turned_away(code: Code) -> Outcome:
    return Outcome(got=401, code=str(code))


PEOPLE: Final = (
    Scene(
        name="the owner updates her item",
        actor=SHOP, user="alice", attempt="inventory.update of item 42, which is hers",
        expected=allowed(), play=task("alice"),
    ),
    Scene(
        name="another user",
        actor=SHOP, user="carol", attempt="inventory.update of item 42, which is alice's",
        expected=denied("not_owner"), play=task("carol"),
    ),
    Scene(
        name="a managed customer's item",
        actor=SHOP, user="bob", attempt="inventory.update of item 42, of a customer that he manages",
        expected=allowed(), play=task("bob"),
    ),
    Scene(
        name="over the limit",
        actor=SHOP, user="alice", attempt="inventory.update of item 42 to 500, where the limit is 100",
        expected=denied("over_limit"), play=task("alice", quantity=500),
    ),
    Scene(
        name="three hops",
        actor=SHOP, user="alice", attempt="planner.plan, which asks inventory.read, which asks pricing.quote",
        expected=allowed(), play=_three_hops,
    ),
    Scene(
        name="a plan is canceled",
        actor=SHOP, user="alice", attempt="planner.stocktake, which waits for inventory.stocktake, which waits for pricing",
        expected=Outcome(got=CANCELED, code=str(Code.CANCELED)), play=_canceled,
    ),
    Scene(
        name="an agent without the right",
        actor="pricing", user="alice", attempt="inventory.update of item 42, with a context of its own for her",
        expected=denied("action_not_granted"), play=_without_the_right,
    ),
    Scene(
        name="an agent that the policy does not know",
        actor=STRANGER, attempt="inventory.update of item 42",
        expected=denied("action_not_granted", "not_owner", "unknown_agent", "unknown_chain_agent", "user_required"),
        play=_stranger,
    ),
    Scene(
        name="no token",
        actor=SHOP, attempt="inventory.read of item 42",
        expected=_turned_away(Code.NO_TOKEN), play=_at_the_door(token=False),
    ),
    Scene(
        name="a token for somebody else",
        actor=SHOP, user="alice", attempt="inventory.read of item 42, with a token whose audience is another service",
        expected=_turned_away(Code.TOKEN_AUDIENCE), play=_at_the_door(audience="https://other.example.org"),
    ),
    Scene(
        name="an expired token",
        actor=SHOP, user="alice", attempt="inventory.read of item 42, a second too late",
        expected=_turned_away(Code.TOKEN_EXPIRED), play=_at_the_door(expires_in=-1),
    ),
)  # fmt: skip
