"""The cost of a denial by itself in a process that decides, with a small registry and with a large one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from support.lab import running, until
from support.policy_bus import ANCHORS, ROOT

from bench.growth import registry_folder
from bench.report import Figure
from sealbus.agents.runtime.policy.deny_list import Denial, add
from sealbus.agents.runtime.policy.push import Pushed, change_platform, content_of, push_content, push_denial
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.agents.runtime.worker import settle_collector
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

REGISTRIES = (1_000, 100_000)
DENIALS = 20
GOAL = 20.0
"""Milliseconds of a processor."""
GUARD = 5.0
"""Most that the large registry may cost in the small one's costs."""


async def figures() -> AsyncIterator[Figure]:
    """Deny users one after the other, and measure this process, which pushes and decides, until each denial is in force."""
    costs = {}
    for users in REGISTRIES:
        with tempfile.TemporaryDirectory() as folder:
            costs[users], bundle = await _denied(Path(folder), users)
        name = f"a denial in force, {users:,} users in the registry"
        yield Figure.of(costs[users], name=name, unit="ms of a processor", goal=GOAL)
        yield Figure.of([bundle], name="  the same by a new bundle", unit="ms of a processor")
    small, large = (sorted(costs[users])[DENIALS // 2] for users in REGISTRIES)
    yield Figure.of([large / small], name="  the large registry to the small one", unit="", guard=GUARD, goal=2.0)


async def _denied(folder: Path, users: int) -> tuple[list[float], float]:
    """Return milliseconds of this process for each denial, and for one by a new bundle."""
    policy = await asyncio.to_thread(registry_folder, folder / "policy", users)
    async with running(folder / "nats", "a") as lab, lab.connection("a") as connection, lab.connection("a") as ours:
        store = PolicyStore(connection, "policies")
        await store.create()
        await push_content(store, ANCHORS, "platform", content_of(policy), ROOT)
        sync = PolicySync(PolicyStore(ours, "policies"), folder / "kept", ANCHORS, for_opa=False)
        async with policy_synced(sync), EmbeddedEngine(sync.in_force) as engine:
            settle_collector()

            async def cost(number: int, push: Callable[..., Awaitable[Pushed]] = push_denial) -> float:
                began, before = time.process_time(), (await engine.status()).revision
                await push(store, ANCHORS, add(Denial(kind="user", id=f"denied-{number}")), ROOT)
                await until(lambda: _revision(sync) != before)
                return (time.process_time() - began) * 1_000

            return [await cost(number) for number in range(DENIALS)], await cost(DENIALS, change_platform)


def _revision(sync: PolicySync) -> str:
    return sync.in_force.bundle.revision if sync.in_force.bundle is not None else ""
