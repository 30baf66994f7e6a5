"""Scenes with changes: policy, data, sessions and the engine itself change while everything runs."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from sealbus.agents.dev.demo.door import session_of
from sealbus.agents.dev.demo.people import SHOP, allowed, decision_of, denied, outcome_of, task
from sealbus.agents.dev.demo.scene import REFUSED, Outcome, Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.agents.examples.planner import Plan, Proposal
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.envelopes.errors import Code, Denied

STOLEN: Final = "stolen-laptop"
TRIES: Final = 12


async def _hours_moved(stage: Stage) -> Outcome:
    """Close the region of item 42 in its data, try an update, and open the region again."""
    hours: dict[str, object] = {}

    def close(regions: dict[str, object]) -> None:
        region = _table(regions["always"])
        hours.update(region)
        region["weekdays"] = {}

    def open_again(regions: dict[str, object]) -> None:
        regions["always"] = hours

    await stage.backstage.change_data("regions", close)
    try:
        return await task("alice")(stage)
    finally:
        await stage.backstage.change_data("regions", open_again)


async def _limit_raised(stage: Stage) -> Outcome:
    def raise_limit(actions: dict[str, object]) -> None:
        _table(actions["inventory.update"])["limits"] = {"quantity": 1_000}

    await stage.backstage.change_data("actions", raise_limit)
    return await task("alice", quantity=500)(stage)


async def _session_revoked(stage: Stage) -> Outcome:
    """Start the planner for a session, and revoke the session before the planner's own message is decided: it is denied.

    If the change takes longer than inventory may load an item, no decision is made, and another session is tried.
    """
    for number in range(TRIES):
        outcome = await _revoked_meanwhile(stage, f"{STOLEN}-{number}")
        if outcome is not None:
            return outcome
    return Outcome(got="error", code="policy_too_slow")


async def _revoked_meanwhile(stage: Stage, wanted: str) -> Outcome | None:
    """Play the scene once; return `None` if no decision was made in time.

    Inventory loads the item before the decision: while its database is locked, the planner's message waits there.
    """
    client, token = stage.clients["shop-web"], stage.door.token("alice", session=wanted)
    # A provider may name its sessions itself.
    session = session_of(token)
    user = await client.user_context(token)

    def revoke(revoked: dict[str, object]) -> None:
        revoked["sessions"] = {session: True}

    with stage.database_held():
        plan = asyncio.ensure_future(
            client.call("planner.plan", Plan(item_ids=["42"], quantity=12), returns=Proposal, user=user)
        )
        try:
            began = await stage.decision(lambda entry: _is(entry, "planner.plan", session))
            await stage.backstage.change_data("revoked", revoke)
        except BaseException:
            plan.cancel()
            raise
    # The planner's answer is also for the revoked session: the shop's own policy refuses it.
    try:
        await plan
    except Denied:
        pass
    except (RemoteError, CallExpired):
        return None
    else:
        return Outcome(got="error", code="answered")
    try:
        stopped = await stage.decision(lambda entry: _is(entry, "inventory.read", session))
    except TimeoutError:
        # Inventory's load timed out first, and the planner's failure was refused for the revoked session.
        return None
    if not decision_of(began).allow:
        return Outcome(got="error", code="began")
    return outcome_of(decision_of(stopped))


async def _engine_stopped(stage: Stage) -> Outcome:
    """Stop the policy engine and submit a task: it is deferred, and neither decided, recorded nor handled."""
    await stage.backstage.stop_policy()
    before = stage.refused.get(str(Code.POLICY_UNAVAILABLE), 0)
    answer = await stage.door.post(
        "/v1/tasks/inventory/update", {"item_id": "42", "quantity": 7}, stage.door.token("alice")
    )
    stage.waiting = answer.json()["id"]
    await stage.refusal(str(Code.POLICY_UNAVAILABLE), before)
    decided = any(entry.decided is not None and entry.decided.id.hex() == stage.waiting for entry in stage.entries)
    return Outcome(got="error", code="decided") if decided else Outcome(got=REFUSED, code=str(Code.POLICY_UNAVAILABLE))


async def _engine_started(stage: Stage) -> Outcome:
    """Start the policy engine again: the waiting task is decided and handled."""
    await stage.backstage.start_policy()
    got = outcome_of(await stage.decision_on(stage.waiting))
    state = await stage.door.state(stage.waiting, stage.door.token("alice"))
    return got if state["state"] == "completed" else Outcome(got=str(state["state"]))


async def _replayed(stage: Stage) -> Outcome:
    """Read the whole audit stream again for one user: every record verifies, and all the user's decisions are there."""
    decisions, findings = await stage.replay(stage.door.user_id("carol"))
    outcomes = [outcome_of(decision_of(decision)) for decision in decisions]
    if findings or stage.findings:
        return Outcome(got=REFUSED, code="findings")
    return outcomes[-1] if outcomes else Outcome(got="error", code="no_records")


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TypeError("a table of the policy's data")
    return value


def _is(entry: AuditEntry, action: str, session: str) -> bool:
    """Return whether this is the decision on `action` for `session`."""
    record = decision_of(entry)
    if record.input is None or record.action != action:
        return False
    return bool(json.loads(record.input)["context"]["user"].get("session") == session)


CHANGES: Final = (
    Scene(
        name="the region's business hours are moved",
        actor=SHOP, user="alice", attempt="inventory.update of item 42, whose region has just been closed by its data",
        expected=denied("outside_business_hours"), play=_hours_moved,
    ),
    Scene(
        name="the policy is changed",
        actor=SHOP, user="alice", attempt="inventory.update of item 42 to 500, where the limit is now 1000",
        expected=allowed(), play=_limit_raised,
    ),
    Scene(
        name="a session is revoked mid-chain",
        actor="planner", user="alice", attempt="inventory.read, for a session that was revoked since the planner began",
        expected=denied("revoked_session"), play=_session_revoked,
    ),
    Scene(
        name="the policy engine is stopped",
        actor=SHOP, user="alice", attempt="inventory.update of item 42, without a policy engine",
        expected=Outcome(got=REFUSED, code=str(Code.POLICY_UNAVAILABLE)), play=_engine_stopped,
    ),
    Scene(
        name="the policy engine is started again",
        actor=SHOP, user="alice", attempt="the update that waited",
        expected=allowed(), play=_engine_started,
    ),
    Scene(
        name="the audit stream replayed for carol",
        actor="operator", user="carol", attempt="sealbus audit replay --user carol: her one decision, read back and verified",
        expected=denied("not_owner"), play=_replayed,
    ),
)  # fmt: skip
