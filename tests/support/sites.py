"""A `Site` for parts of the bus that a test builds by itself: the agent `inventory`, on one broker."""

from __future__ import annotations

import time
from collections.abc import Callable

from support.acceptance import INVENTORY, ISSUER, TRUST
from support.envelopes import NAMES
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Identity, Transport
from sealbus.bus.site import Site
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches

__all__ = ["inventory_identity", "site_of"]


def inventory_identity(sealer: Callable[[], Sealer] = lambda: ISSUER.sealer(INVENTORY)) -> Identity:
    """Return the identity of the agent `inventory`."""
    return StaticIdentity(ThrowawayCa("example.org"), INVENTORY.value, sealer=sealer)


def site_of(
    transport: Transport,
    clock: Callable[[], int],
    *,
    identity: Identity | None = None,
    trust: Callable[[], Trust] = lambda: TRUST,
    counters: Counters | None = None,
) -> Site:
    """Return the site of a process with `identity`, or of `inventory`, whose clock shows `clock`."""
    return Site(
        identity=identity or inventory_identity(),
        names=NAMES,
        own_subjects={},
        trust=trust,
        caches=Caches(),
        bus_clock=BusClock(clock),
        counters=counters or Counters(),
        transport=transport,
        random=lambda: 0.5,
        elapsed=time.monotonic,
    )
