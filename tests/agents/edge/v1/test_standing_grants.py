"""What users granted is done while they may, and ends with them: revoked, refused by the policy, or with their edge."""

from __future__ import annotations

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.granting import Desk, asked, grant, granting, headers, login

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.envelopes.message.user_context import standing_session
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations


def revoked(kind: str, issuer: str) -> Revocations:
    match kind:
        case "user":
            return Revocations(users={(issuer, "alice"): 2**52})
        case "client":
            return Revocations(clients=frozenset({(issuer, "client-1")}))
    return Revocations(sessions=frozenset({(issuer, "s-1")}))


@pytest.mark.parametrize("kind", ["user", "session", "client"])
async def test_a_revoked_grant_does_nothing_more_and_does_not_come_back(kind: str) -> None:
    desk, now = Desk(), NONE_REVOKED
    async with granting(desk, row={"session_claim": "sid"}, revocations=lambda: now) as edge:
        await grant(edge, sub="alice", client_id="client-1")
        await grant(edge, asked(body={"item_id": "8"}), sub="bob", client_id="client-2", sid="s-2")
        assert await edge.bus.advance(65) == 2
        now = revoked(kind, edge.issuer.issuer)
        assert await edge.bus.advance(120) == 2
        assert desk.done.count(("alice", "7")) == 1
        # Lists forget: what has ended has ended.
        now = NONE_REVOKED
        assert await edge.bus.advance(120) == 2
        assert desk.done.count(("alice", "7")) == 1
        assert (await edge.get("/v1/schedules", **login(edge, sub="alice", sid="s-9"))).json() == {"schedules": []}


async def test_the_session_of_the_grant_itself_can_be_revoked() -> None:
    desk, now = Desk(), NONE_REVOKED
    async with granting(desk, revocations=lambda: now) as edge:
        await grant(edge)
        [s0] = await headers(edge, "edge._schedule")
        now = Revocations(sessions=frozenset({(edge.issuer.issuer, standing_session(s0.digest))}))
        assert (await edge.bus.advance(180), desk.done) == (0, [])


async def test_what_the_policy_does_not_allow_any_more_is_left_out() -> None:
    desk, engine = Desk(), ScriptedEngine()
    async with granting(desk, engine) as edge:
        await grant(edge)
        engine.verdict = lambda asked: deny("no") if asked["action"]["name"] == "edge._schedule" else allow()
        assert (await edge.bus.advance(120), desk.done) == (0, [])
        assert engine.asked[-1]["action"]["properties"]["state"] == "tick"
        engine.verdict = lambda _: allow()
        assert await edge.bus.advance(60) == 1


async def test_nothing_is_sent_while_the_policy_cannot_be_asked() -> None:
    desk, engine = Desk(), ScriptedEngine()
    async with granting(desk, engine) as edge:
        await grant(edge)
        engine.verdict = lambda _: PolicyUnavailable("away")
        assert (await edge.bus.advance(120, idle=False), desk.done) == (0, [])


async def test_a_grant_ends_with_the_credential_of_the_edge_that_took_it() -> None:
    desk = Desk()
    async with granting(desk) as edge:
        await grant(edge)
        node = edge.edge.node
        later = {node.own: node.clock() + 30 * 1_000_000}
        node._revoked_before = lambda: later
        assert (await edge.bus.advance(180), desk.done) == (0, [])
