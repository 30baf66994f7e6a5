"""The consoles of a simulation: their real reader of the audit stream, and what they show at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from promises.promises import UNSEEN, UNVERIFIED

from sealbus.agents.console.decisions.feed import DecisionFeed
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.audit.trail import AuditTrail
from sealbus.envelopes.records.archive import ArchiveProfile
from simulation.network import Link, SimulatedTransport
from simulation.site import Site

__all__ = ["SHOWN_WITHIN", "Console"]

SHOWN_WITHIN: Final = 30.0
"""Seconds after which the console must show what is recorded, once nothing is broken any more."""


class Console:
    """The console of one cell, which a fault may end and which then starts anew."""

    def __init__(self, site: Site, cell: str) -> None:
        self._site = site
        self._cell = cell
        self._feed: DecisionFeed | None = None

    async def run(self, link: Link) -> None:
        """Read and verify the decisions from the first record on."""
        site = self._site
        identity = MemoryIdentity(site.authority, site.names.id_of("console"))
        transport = SimulatedTransport(link, site.brokers[self._cell])

        def trail(after: int) -> AuditTrail:
            profile = ArchiveProfile(names=site.names, minters=site.deployment.minters)
            return AuditTrail(transport=transport, profile=profile, bundles=identity.bundles, after=after)

        self._feed = DecisionFeed(trail, names=site.names, edges=(), after=0)
        await self._feed.run()

    @property
    def last(self) -> float:
        """The last sequence of AUDIT that it has read."""
        return self._feed.last if self._feed is not None else -math.inf

    def missed(self, recorded: set[str]) -> Iterator[tuple[str, str]]:
        """Yield each promise that it shows to be broken, and how; `recorded` are the messages that stored records allow."""
        feed = self._feed
        shown = {row.message.hex() for row in feed.rows() if row.allow} if feed is not None else set()
        for message in sorted(recorded - shown):
            yield UNSEEN, message
        for code, count in sorted(feed.unverified.items()) if feed is not None else ():
            yield UNVERIFIED, f"{count} {code}"
