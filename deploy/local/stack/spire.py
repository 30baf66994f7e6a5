"""SPIRE on one machine: a server, one agent, and the entries of the workloads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sealbus.envelopes.trust.spiffe_id import TrustDomain
from stack.served import until_served
from stack.spire_agent import SpireAgent
from stack.spire_entry import Entry
from stack.spire_server import SpireServer

__all__ = ["Spire", "federate", "open_spire"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spire:
    """A running server and agent."""

    server: SpireServer
    agent: SpireAgent

    async def register(self, *entries: Entry) -> list[str]:
        """Make `entries`, wait until the Workload API serves them, and return their IDs; other users' take root."""
        made = [await self.server.create(entry, parent=self.agent.spiffe_id) for entry in entries]
        for uid in {entry.uid for entry in entries}:
            of_user = [entry.spiffe_id for entry in entries if entry.uid == uid]
            await until_served(self.agent.address, of_user, uid=uid)
        return made


@asynccontextmanager
async def open_spire(
    folder: Path, *, trust_domain: TrustDomain, port: int, entries: Sequence[Entry] = (), refresh: int = 5
) -> AsyncGenerator[Spire, None]:
    """Start both in `folder`, which everybody on the machine must be able to enter, and stop them afterwards.

    `entries` are served by the time this yields. `port` is the server's for agents, on loopback.
    """
    async with (
        SpireServer(folder / "server", trust_domain=trust_domain, port=port, refresh=refresh) as server,
        SpireAgent(folder / "agent", server=server) as agent,
    ):
        spire = Spire(server=server, agent=agent)
        await spire.register(*entries)
        yield spire


async def federate(one: SpireServer, other: SpireServer) -> None:
    """Give each server the other's bundle as it is now; entries with `federates_with` may be made from then on.

    To be done anew after an authority of either has changed. Servers that reach each other do that by themselves, by a
    `federation` section in their configuration.
    """
    await one.set_foreign_bundle(other.trust_domain, await other.bundle(spiffe=True))
    await other.set_foreign_bundle(one.trust_domain, await one.bundle(spiffe=True))
