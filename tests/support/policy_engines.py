"""A deployment that follows a bucket: an embedded engine, and a real OPA behind the policy server, asked alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from support.lab import Lab, running
from support.opa import OpaServer
from support.policies import document, eventually, signing_key
from support.policy_bus import ANCHORS, ROOT, opa_polling, serving
from support.teams import signed_platform, signed_team

from sealbus.agents.control.policy_server import PolicyServer
from sealbus.agents.runtime.policy.push import push_signed
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.sidecar import SidecarEngine

__all__ = ["MONEY", "STOCK", "Deployment", "deployment", "two_teams"]

STOCK, MONEY = signing_key(), signing_key()
TEAMS = {"stock": STOCK, "money": MONEY}


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
        embedded = await stack.enter_async_context(EmbeddedEngine(await _also(sync.in_force)))
        sidecar = await stack.enter_async_context(SidecarEngine(opa.socket, deadline=60.0))
        yield Deployment(store=store, sync=sync, server=server, opa=opa, engines=(embedded, sidecar))


async def _also(served: InForce) -> InForce:
    """Return what follows `served`, which one alone may take: as in another process, but for the wait."""
    own, take = InForce(), served._take
    assert take is not None

    async def both(bundle: Bundle) -> None:
        taking = take(bundle)
        if taking is not None:
            await taking
        await own.put(bundle)

    served._take = both
    if served.bundle is not None:
        await own.put(served.bundle)
    return own


def two_teams() -> list[tuple[str, bytes]]:
    return [
        ("platform", signed_platform(ROOT, TEAMS)),
        ("stock", signed_team("stock", STOCK)),
        ("money", signed_team("money", MONEY)),
    ]
