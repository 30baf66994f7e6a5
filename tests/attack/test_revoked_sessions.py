"""A user whose session ended at the identity provider: denied at the next hop of what runs for them, and at the edge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.edge import door
from support.engines import ScriptedEngine
from support.shop import Price, Shop, Update

from sealbus import Agent, Context
from sealbus.agents.dev.users import DEV_IDP
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.envelopes.errors import Code, Denied
from sealbus.envelopes.limits import SECOND
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.testing import TestBus


async def test_at_the_next_hop_of_a_chain_it_is_denied_and_the_record_says_why() -> None:
    in_force = NONE_REVOKED
    shop, asking = Shop(), Agent("asking")

    @asking.call("call")
    async def call(body: Update, ctx: Context) -> Price:
        nonlocal in_force
        # The session ends while its request is under way.
        in_force = Revocations(revision="revocations-9", sessions=frozenset({(DEV_IDP, "session-1")}))
        return await ctx.call("pricing.quote", body, returns=Price)

    async with TestBus(asking, shop.pricing, engine=ScriptedEngine(), revocations=lambda: in_force) as bus:
        client = await bus.client("shop-web")
        user = bus.user("alice", "shop-web", session="session-1")
        with pytest.raises(Denied) as refused:
            await client.call("asking.call", Update(item_id="1"), returns=Price, user=user)
        assert refused.value.code is Code.DENIED
        [decision] = await bus.decisions("pricing.quote")
        assert (decision.allow, decision.code, decision.reasons) == (False, Code.DENIED, ("revoked_session",))
        assert (decision.policy, decision.revision, decision.engine) == ("revocations", "revocations-9", "revocations")
        # Another session of the same user goes on.
        other = bus.user("alice", "shop-web", session="session-2")
        assert (await client.call("pricing.quote", Update(item_id="1"), returns=Price, user=other)).price


async def test_at_the_edge_nothing_more_is_told_of_what_it_asked_for() -> None:
    async with door(Shop().inventory, engine=ScriptedEngine()) as edge:
        who: dict[str, Any] = {"sid": "session-1", "auth_time": 1_700_000_000}
        stored = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"}, **who)
        path = stored.headers["location"]
        assert (await edge.get(path, **who)).status_code == 200
        for revoked, reason in (
            (Revocations(sessions=frozenset({(edge.issuer.issuer, "session-1")})), "revoked_session"),
            (Revocations(clients=frozenset({(edge.issuer.issuer, "shop-web")})), "revoked_client"),
            (Revocations(users={(edge.issuer.issuer, "alice"): 1_700_000_000 * SECOND}), "revoked_user"),
        ):
            edge.edge.node.revocations = lambda revoked=revoked: revoked  # type: ignore[misc]  # mypy knows no type for it
            for answer in (await edge.get(path, **who), await edge.post("/v1/calls/inventory/read", {}, **who)):
                assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (401, "revoked", reason)
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        # Who logged in since is somebody else.
        assert (await edge.get(path, **{**who, "auth_time": 1_700_000_001})).status_code == 200


async def test_with_pseudonyms_a_user_is_known_by_theirs(tmp_path: Path) -> None:
    write_key(tmp_path / "key")
    async with door(Shop().pricing, engine=ScriptedEngine(), pseudonym_key=tmp_path / "key") as edge:
        pseudonyms = edge.edge.front.pseudonyms
        assert pseudonyms is not None
        issuer = edge.issuer.issuer
        for name, status in (
            ("alice", 200),
            (pseudonyms.key.derived(issuer, "bob"), 200),
            (pseudonyms.key.derived(issuer, "alice"), 401),
        ):
            revoked = Revocations(users={(issuer, name): 1 << 52})
            edge.edge.node.revocations = lambda revoked=revoked: revoked  # type: ignore[misc]  # mypy knows no type for it
            assert (await edge.post("/v1/calls/pricing/quote", {"item_id": "42"})).status_code == status


@pytest.mark.parametrize("kind", ["task", "call"])
async def test_a_stream_that_is_open_already_tells_nothing_more(kind: str) -> None:
    agent, going_on = Agent("inventory"), asyncio.Event()

    @agent.task("write", retry=0)
    async def write(body: dict[str, int], ctx: Context) -> AsyncIterator[dict[str, str]]:
        yield {"said": "before"}
        await going_on.wait()
        yield {"said": "after"}

    @agent.call("tell", chunks=True)
    async def tell(body: dict[str, int], ctx: Context) -> AsyncIterator[dict[str, str]]:
        yield {"said": "before"}
        await going_on.wait()
        yield {"said": "after"}

    who: dict[str, Any] = {"sid": "session-1"}
    async with door(agent, engine=ScriptedEngine()) as edge:
        headers = {**edge.authorized(**who), "Accept": "text/event-stream", "Content-Type": "application/json"}
        if kind == "task":
            stored = await edge.post("/v1/tasks/inventory/write", {}, **who)
            opening = edge.http.stream("GET", f"{stored.headers['location']}/events", headers=headers)
        else:
            opening = edge.http.stream("POST", "/v1/calls/inventory/tell", content=b"{}", headers=headers)
        told: list[dict[str, Any]] = []
        async with asyncio.timeout(60), opening as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    told.append(json.loads(line[6:]))
                if "before" in line:
                    revoked = Revocations(sessions=frozenset({(edge.issuer.issuer, "session-1")}))
                    edge.edge.node.revocations = lambda revoked=revoked: revoked  # type: ignore[misc]  # mypy knows no type for it
                    going_on.set()
        assert "after" not in json.dumps(told)
        assert (told[-1]["status"], told[-1]["code"], told[-1]["detail"]) == (401, "revoked", "revoked_session")
