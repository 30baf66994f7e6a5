"""One process of `policy_push`: engines that are asked repeatedly, and that report when another revision answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from support.policies import document

from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import X509Material
from sealbus.envelopes.trust.keys import key_id, read_public_key
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.sidecar import SidecarEngine

ASK_EVERY = 0.05
"""Seconds between two questions to one engine: the resolution of the figures."""


class _Identity:
    """The X.509-SVID that the parent gave."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.spiffe_id = SpiffeId(said["id"])
        self._material = X509Material(
            spiffe_id=self.spiffe_id,
            chain=(bytes.fromhex(said["certificate"]),),
            key=bytes.fromhex(said["key"]),
            bundles={TrustDomain(self.spiffe_id.trust_domain.name): (bytes.fromhex(said["anchor"]),)},
            not_before=said["not_before"],
            not_after=said["not_after"],
        )

    def x509(self) -> X509Material:
        return self._material

    def on_rotation(self, callback: object) -> Any:
        del callback
        return lambda: None


async def consume(said: dict[str, Any]) -> None:
    """Open the engines that `said` describes, and print a line for each revision that each of them reaches."""
    async with AsyncExitStack() as stack:
        engines: list[PolicyEngine] = []
        if said["opa"]:
            engines += [SidecarEngine(Path(said["opa"]), deadline=5.0) for _ in range(said["engines"])]
        else:
            connection = await stack.enter_async_context(
                Connection(
                    [said["url"]],
                    identity=_Identity(said),  # type: ignore[arg-type]  # all that a connection asks of one
                    server_ids=frozenset({SpiffeId(said["server"])}),
                    inbox_prefix="_INBOX.a.",
                )
            )
            key = read_public_key(said["anchor_key"].encode(), name="anchor")
            sync = PolicySync(PolicyStore(connection, "policies"), Path(said["folder"]), {key_id(key): key})
            await stack.enter_async_context(policy_synced(sync))
            for_each = [InForce() for _ in range(said["engines"])]

            async def hand_on(bundle: Bundle) -> None:
                for in_force in for_each:
                    await in_force.put(bundle)

            await stack.enter_async_context(sync.in_force.taken(hand_on))
            engines += [EmbeddedEngine(in_force) for in_force in for_each]
        for engine in engines:
            await stack.enter_async_context(engine)
        async with asyncio.TaskGroup() as group:
            for number, engine in enumerate(engines):
                group.create_task(_ask(engine, number))


async def _ask(engine: PolicyEngine, number: int) -> None:
    asked, last = document("pricing.quote"), ""
    while True:
        [answer] = await engine.decide([asked])
        at = time.monotonic()
        if isinstance(answer, Decision) and answer.revision != last:
            last = answer.revision
            print(json.dumps({"revision": last, "engine": number, "at": at}), flush=True)
        await asyncio.sleep(ASK_EVERY)


if __name__ == "__main__":
    asyncio.run(consume(json.loads(sys.stdin.readline())))
