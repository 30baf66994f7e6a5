"""Processes of one agent that claim effects: as many as a test wants, on one broker in memory and one clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from support.acceptance import INVENTORY, ISSUER
from support.envelopes import NOW
from support.faulty_transport import FaultyTransport
from support.sites import inventory_identity, site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.idempotency.claim_store import ClaimStore
from sealbus.envelopes.message.seal import Sealer

__all__ = ["MARGIN", "Site"]

MARGIN = 10.0


def sealer() -> Sealer:
    return ISSUER.sealer(INVENTORY)


@dataclass
class Site:
    """Processes of one agent, by number, on one broker and one clock."""

    now: int = NOW
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.transport = FaultyTransport(self.broker)
        self.keyed = KeyValue(self.broker.connect())

    def process(self, number: int, seal: Callable[[], Sealer] = sealer) -> ClaimStore:
        identity = inventory_identity(seal)
        site = site_of(self.transport, lambda: self.now, identity=identity, counters=self.counters)
        return ClaimStore(site, instance=bytes([number] * 16), margin=MARGIN)
