"""Opens the revoker from the settings: an agent whose one action is granted to the edge, and its connection to the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sealbus.agents.control.revoker.revoker import WAITING, Revoker
from sealbus.agents.edge.oauth.private_file import read_private
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_connected_node
from sealbus.agents.runtime.policy.revocation import REVOKER, Revocation
from sealbus.agents.runtime.policy.source import anchors_of
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.context import Context
from sealbus.bus.routing.retry import Reject
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import SigningKey, read_signing_key

__all__ = ["RevokerRole", "open_revoker", "revoker_agent", "revoker_limits"]

_SETTING: Final = "control.revoker.key"
_KEY_BYTES: Final = 4_096
"""More than a P-256 key in PEM has."""


def revoker_agent(revoker: Revoker) -> Agent:
    """Return the agent that hands to `revoker` what it is told.

    A call is answered once it is published. A call with a user behind it is rejected: it came in as a user's request
    (`edge.actions`), not by word of an identity provider.
    """
    agent = Agent(REVOKER)

    @agent.call("revoke", facts=["kind", "issuer", "at"], timeout=10.0)
    async def revoke(body: Revocation, ctx: Context) -> None:
        if ctx.user is not None:
            raise Reject("user_present")
        await revoker.revoke(body)

    return agent


def revoker_limits() -> WorkerLimits:
    """Return the limits of the revoker's worker: calls wait for a push, and nothing else."""
    return WorkerLimits(concurrency=WAITING, pending_calls=WAITING)


class RevokerRole:
    """A running revoker, and the worker that is asked for it."""

    def __init__(self, revoker: Revoker, worker: Worker) -> None:
        self._revoker = revoker
        self._worker = worker

    @property
    def problem(self) -> str:
        """The reason why revocations cannot be published now; empty if they can."""
        return self._revoker.problem or "; ".join(self._worker.not_ready().values())

    async def run(self) -> None:
        """Take calls and publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._revoker.run(), name="revoker")
            group.create_task(self._worker.run(asyncio.Event()), name="revoker-worker")


@asynccontextmanager
async def open_revoker(settings: Settings, *, counters: Counters) -> AsyncGenerator[RevokerRole, None]:
    """Open the role under the identity `revoker`. Raises `SealbusError`, one line, for what is missing."""
    policy = settings.policy
    if settings.control.revoker.key is None:
        raise ConfigurationError(f"{_SETTING} is not set: the key that signs revocations, and nothing else")
    if policy.bucket is None:
        raise ConfigurationError("policy.bundle is not a bucket, where revocations are published: set nats://policies")
    key = await asyncio.to_thread(_read_key, settings.control.revoker.key)
    anchors = await asyncio.to_thread(anchors_of, policy)
    async with open_connected_node(REVOKER, settings, counters=counters) as (node, connection):
        store = PolicyStore(connection, policy.bucket)
        revoker = Revoker(store, anchors, key, in_force=node.revocations, counters=counters)
        async with Worker(revoker_agent(revoker), node, revoker_limits()) as worker:
            yield RevokerRole(revoker, worker)


def _read_key(file: Path) -> SigningKey:
    return read_signing_key(read_private(file, name=_SETTING, most=_KEY_BYTES), name=f"{_SETTING}: {file}")
