"""`Site`: what all parts of one process have in common, made once and handed on whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealbus.bus.clocks import BusClock
from sealbus.bus.loop_turns import LoopTurns
from sealbus.bus.ports import Identity, Transport
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from sealbus.bus.telemetry.tracing import Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The identity of a process, the names and trust of its deployment, its clocks, counters, transport and randomness.

    `trust` returns the bundles and revocations in force now. `elapsed` counts seconds (`clocks.ELAPSED`). `random`
    returns a number in [0, 1). `tracer` is absent where nobody collects spans. Agents of one process share their `turns`.
    """

    identity: Identity
    names: Names
    own_subjects: OwnSubjects
    trust: Callable[[], Trust]
    caches: Caches
    bus_clock: BusClock
    counters: Counters
    transport: Transport
    random: Callable[[], float]
    elapsed: Callable[[], float]
    tracer: Tracer | None = None
    turns: LoopTurns = field(default_factory=LoopTurns)

    @property
    def own(self) -> SpiffeId:
        """The SPIFFE ID of the process."""
        return self.identity.spiffe_id

    @property
    def token(self) -> str:
        """The token that stands for the process's agent in subjects."""
        return self.names.token(self.identity.spiffe_id)
