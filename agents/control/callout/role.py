"""The auth callout as a role of the control process: a responder, and what is done over an ordinary connection beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from sealbus.agents.control.callout.opening import open_callout
from sealbus.agents.control.callout.ordinary import Ordinary, Use
from sealbus.agents.control.callout.policy import first_policy, follow_bucket
from sealbus.agents.control.callout.refused import RefusedConnections
from sealbus.agents.control.callout.responder import Callout
from sealbus.agents.runtime import connection_of, open_engine, open_identity
from sealbus.agents.settings import Settings
from sealbus.bus.connection import Connection
from sealbus.bus.counters import Counters
from sealbus.envelopes.subjects import refused_subject

__all__ = ["CONTROL", "CalloutRole", "open_callout_role"]

CONTROL: Final = "control"
"""The name of the control process's workload."""


class CalloutRole:
    """A responder that runs, and an ordinary connection that it lets in."""

    def __init__(self, callout: Callout, ordinary: Ordinary) -> None:
        self._callout = callout
        self._ordinary = ordinary

    @property
    def problem(self) -> str:
        """Why connections cannot be answered now; empty where they can."""
        return self._callout.problem

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._callout.run(), name="callout")
            group.create_task(self._ordinary.run(), name="callout-ordinary")


@asynccontextmanager
async def open_callout_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[CalloutRole, None]:
    """Open identity, policy engine and the responder's connection. Raises `SealbusError` for what is missing."""
    policy = await asyncio.to_thread(first_policy, settings.policy, settings.control.callout.bootstrap)
    async with open_identity(CONTROL, settings, counters=counters) as identity:
        refused = RefusedConnections(
            subject=refused_subject(settings.names.token(identity.spiffe_id)), counters=counters
        )
        uses: list[Use] = [refused.publish]
        if policy is not settings.policy:

            async def follow(connection: Connection) -> None:
                await follow_bucket(settings.policy, connection, counters)

            uses.append(follow)
        async with (
            open_engine(policy, identity) as engine,
            open_callout(
                settings, identity=identity, engine=engine, counters=counters, on_refused=refused.note
            ) as callout,
        ):
            connect = partial(connection_of, CONTROL, settings, identity, counters)
            yield CalloutRole(callout, Ordinary(connect, uses))
