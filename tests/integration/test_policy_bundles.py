"""From a push to force, in the embedded engine and in a real OPA that polls the policy server; and all that is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.lab import Lab, running
from support.opa import OpaServer
from support.policies import document, eventually, signing_key
from support.policy_bus import ANCHORS, COMPOSER, ROOT, opa_polling, pushed, serving
from support.teams import signed_platform, signed_team, team_policy

from sealbus.agents.control.policy_server.server import PolicyServer
from sealbus.agents.denials import Denial, add, forget
from sealbus.agents.policy_push import change_platform, content_of, push_content, push_signed, roll_back
from sealbus.agents.policy_store import PolicyStore
from sealbus.agents.policy_sync import PolicySync
from sealbus.policies.bundle import STARTER
from sealbus.policies.bundle_archive import pack_archive, unpack_archive
from sealbus.policies.bundle_signing import sign_bundle
from sealbus.policies.decision import Decision
from sealbus.policies.embedded import EmbeddedEngine
from sealbus.policies.engine import PolicyEngine
from sealbus.policies.sidecar import SidecarEngine

pytestmark = [pytest.mark.nats, pytest.mark.opa]

STOCK, MONEY = signing_key(), signing_key()
TEAMS = {"stock": STOCK, "money": MONEY}
PLANNER = "spiffe://example.org/agent/planner"


@dataclass
class Deployment:
    store: PolicyStore
    sync: PolicySync
    server: PolicyServer
    opa: OpaServer
    engines: tuple[PolicyEngine, PolicyEngine]

    async def revisions(self) -> list[str]:
        return [(await engine.status()).revision.partition(".")[2] for engine in self.engines]

    async def until(self, revision: str) -> None:
        async def holds() -> bool:
            return await self.revisions() == [revision] * 2

        try:
            await eventually(holds)
        except TimeoutError:
            raise AssertionError(f"{await self.revisions()} and not {revision}") from None

    async def decided(self, action: str) -> tuple[bool, tuple[str, ...]]:
        """Return the one answer of both engines."""
        found = []
        for engine in self.engines:
            [answer] = await engine.decide([document(action)])
            assert isinstance(answer, Decision)
            found.append((answer.allow, answer.reasons))
        assert found[0] == found[1]
        return found[0]

    async def refused(self, part: str, why: str) -> None:
        """Wait until the newest bundle of a part was refused for a reason."""

        async def holds() -> bool:
            return why in self.sync.parts.problems.get(part, "")

        await eventually(holds)


@asynccontextmanager
async def deployment(tmp_path: Path, *first: tuple[str, bytes]) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        lab: Lab = await stack.enter_async_context(running(tmp_path / "nats", "a"))
        connection = await stack.enter_async_context(lab.connection("a"))
        store = PolicyStore(connection, "policies")
        await store.create()
        for name, raw in first:
            await push_signed(store, ANCHORS, name, raw)
        sync, server = await stack.enter_async_context(serving(lab, store, tmp_path / "cache"))
        context = opa_polling(lab, server.port, tmp_path / "opa")
        # It polls us: it would wait for ever where its start blocks the loop.
        opa = await asyncio.to_thread(context.__enter__)
        stack.callback(context.__exit__, None, None, None)
        embedded = await stack.enter_async_context(EmbeddedEngine(sync.bundle))
        sidecar = await stack.enter_async_context(SidecarEngine(opa.socket, deadline=5.0))
        yield Deployment(store=store, sync=sync, server=server, opa=opa, engines=(embedded, sidecar))


def two_teams() -> list[tuple[str, bytes]]:
    return [
        ("platform", signed_platform(ROOT, TEAMS)),
        ("stock", signed_team("stock", STOCK)),
        ("money", signed_team("money", MONEY)),
    ]


async def test_a_push_comes_in_force_in_both_and_back_again(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        assert await running_.decided("inventory.read") == (True, ())
        denying = team_policy("stock", allow='request.action.name == "inventory.none"')
        await push_signed(running_.store, ANCHORS, "stock", signed_team("stock", STOCK, denying, serial=2))
        await running_.until("platform-1.money-1.stock-2")
        assert await running_.decided("inventory.read") == (False, ("not_stock",))
        # What one team pushed is nothing to the other.
        assert await running_.decided("pricing.quote") == (True, ())
        await roll_back(running_.store, ANCHORS, "stock", 1, STOCK)
        await running_.until("platform-1.money-1.stock-3")
        assert await running_.decided("inventory.read") == (True, ())


async def test_what_may_not_be_put_in_force_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await push_signed(running_.store, ANCHORS, "stock", signed_team("stock", STOCK, serial=5))
        await running_.until("platform-1.money-1.stock-5")
        genuine = unpack_archive(signed_team("stock", STOCK, serial=9))
        genuine["policy.rego"] += b"\nx := 1\n"
        everything = f"package sealbus.authz\n\ndecide(request) := {json.dumps({'allow': True})} if request.v\n"
        for number, (raw, why) in enumerate(
            (
                (pack_archive(genuine), "not the one that was signed"),
                (signed_team("stock", MONEY, serial=9), "may not sign"),
                (signed_team("stock", STOCK, serial=4), "not after 5"),
                (signed_team("stock", STOCK, everything, serial=9), "policy.rego:1:1: the package is outside"),
            )
        ):
            await pushed(running_.store, "stock", raw, 100 + number)
            await running_.refused("stock", why)
            assert running_.server.problem
            assert await running_.revisions() == ["platform-1.money-1.stock-5"] * 2
            assert await running_.decided("inventory.read") == (True, ())
        await push_signed(running_.store, ANCHORS, "money", signed_team("money", MONEY, serial=2))
        await running_.until("platform-1.money-2.stock-5")


async def test_opa_itself_refuses_what_the_policy_server_did_not_sign(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        served, composed = running_.server.served, running_.sync.composed
        assert composed is not None
        tampered = unpack_archive(served.raw)
        tampered["stock/policy.rego"] += b"\nx := 1\n"
        for number, (raw, why) in enumerate(
            (
                (pack_archive(tampered), "digest mismatch"),
                (sign_bundle(composed, signing_key(), scope="sealbus").raw, "verify"),
                (sign_bundle(composed, COMPOSER, scope="other").raw, "scope mismatch"),
                (composed.raw, "signature"),
            )
        ):
            served.raw, served.etag = raw, f'"forged-{number}"'
            served._wake()
            found: dict[str, Any] = {}

            async def told(why: str = why, found: dict[str, Any] = found) -> bool:
                _, body = await asyncio.to_thread(running_.opa.request, "GET", "/v1/status")
                found.update(json.loads(body)["result"]["bundles"]["sealbus"])
                return why in str(found.get("message")) + str(found.get("errors"))

            await eventually(told)
            assert found["code"] == "bundle_error"
            assert found["active_revision"] == composed.revision
            assert await running_.decided("inventory.read") == (True, ())


async def test_a_denial_acts_at_the_next_message_in_whole_policies_and_above_teams(tmp_path: Path) -> None:
    async with deployment(tmp_path, *two_teams()) as running_:
        await running_.until("platform-1.money-1.stock-1")
        await change_platform(running_.store, ANCHORS, add(Denial(kind="workload", id=PLANNER, at="now")), ROOT)
        await running_.until("platform-2.money-1.stock-1")
        assert await running_.decided("inventory.read") == (False, ("revoked_agent",))
        # The starter policy is whole: the teams are gone with it, and who is denied is not.
        await push_content(running_.store, ANCHORS, "platform", content_of(STARTER), ROOT)
        await running_.until("platform-3")
        assert await running_.decided("pricing.quote") == (False, ("revoked_agent",))
        await change_platform(running_.store, ANCHORS, forget("workload", PLANNER), ROOT)
        await running_.until("platform-4")
        assert await running_.decided("pricing.quote") == (True, ())
