"""The policy store's server killed: what is in force goes on deciding, and what is pushed afterwards comes in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.lab import running, until
from support.policies import document
from support.policy_bus import ANCHORS, ROOT
from support.teams import signed_platform

from sealbus.agents.runtime.policy.deny_list import Denial, add
from sealbus.agents.runtime.policy.push import change_platform, push_signed
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.embedded import EmbeddedEngine

pytestmark = pytest.mark.nats


async def test_a_killed_server_costs_no_decision_and_no_push(tmp_path: Path) -> None:
    async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as ours, lab.connection("a") as theirs:
        store = PolicyStore(ours, "policies")
        await store.create()
        await push_signed(store, ANCHORS, "platform", signed_platform(ROOT, {}))
        sync = PolicySync(PolicyStore(theirs, "policies"), tmp_path / "cache", ANCHORS)
        async with policy_synced(sync), EmbeddedEngine(sync.in_force) as engine:
            for serial in (2, 3):
                await lab.server.kill9()
                [answer] = await engine.decide([document("pricing.quote")])
                assert isinstance(answer, Decision)
                assert answer.revision.endswith(f".platform-{serial - 1}")
                await lab.server.restart()
                await until(lambda: ours.connected and theirs.connected)
                pushed = await change_platform(store, ANCHORS, add(Denial(kind="user", id=f"u-{serial}")), ROOT)

                async def decided(revision: str = pushed.composed) -> bool:
                    return (await engine.status()).revision == revision

                async with asyncio.timeout(60):
                    while not await decided():
                        await asyncio.sleep(0.02)
