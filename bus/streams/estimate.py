"""Estimates what the streams will hold at a rate of tasks and calls, and what many agents take of a server.

It helps operators to choose `streams.max_bytes`, and their machines.

The bytes of one message were measured as nats-server 2.15.1 counts them for `max_bytes`: an agent that loads a resource, the
starter policy, a user's context, ES256 SVIDs, one message after the other. The records of 300 tasks at once took 42 % less,
because one audit message then holds many records, and their evidence once. `tests/integration/test_stream_sizes.py` compares
these figures with those of a server. For consumers the most is taken that was measured (docs/operations.md); `make bench
PARTS=cluster` measures them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.bus.stream_names import AUDIT, EVENTS, RESULTS, STATE, TASKS
from sealbus.bus.streams.declared import DEFAULT_MAX_BYTES, KEPT_SECONDS, MAX_CONSUMERS
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.cells import MOST_CELLS

TASK: Final = 1_890
"""Bytes of a task in TASKS, beside its body: header, proof, SVID and the user's context."""
RESULT: Final = 1_060
"""Bytes of the end of a task in RESULTS, beside its result's body."""
REFUSAL: Final = 1_210
"""Bytes of the end of a task that is denied."""
DECIDED: Final = 7_500
"""Bytes in AUDIT of an allowed message: the decision, its outcome, and the requester's decision about the answer."""
DENIED: Final = 3_720
"""Bytes in AUDIT of a denied message: the decision alone."""
CLAIM: Final = 1_940
"""Bytes of one effect in STATE (`once`)."""

CONSUMERS_OF_AGENT: Final = 4
"""Consumers of TASKS that an agent has: of its tasks, its cancels, its approvals and its schedules."""
SHARED_ASSETS: Final = 10
"""Replicated assets of a server that has every stream: these eight, the bucket of policies, and the group of the servers."""
ASSETS_OF_CELL: Final = 9
"""Those of them that each further cell has, too: the eight streams and a bucket."""
MANY_ASSETS: Final = 1_000
"""Replicated assets of a server at which Synadia's own check warns (CLUSTER_003)."""
CONSUMER_MEMORY: Final = 50_000
"""Bytes of each server of a cluster for a consumer of one replica, or of the one server."""
REPLICATED_MEMORY: Final = 200_000
"""Bytes of each server for a consumer with the replicas of its stream."""

DAY: Final = 86_400
HEADROOM: Final = 1.25
"""Room beyond the bytes held: the alert SealbusStreamFull fires once less than a fifth is left (docs/alerts.md)."""
_STEP: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedLoad:
    """The expected load: tasks and calls a second as means of a whole day, shares from 0 to 1, and mean bytes of bodies."""

    tasks: float
    calls: float = 0.0
    denied: float = 0.0
    once: float = 0.0
    """Share of the allowed tasks whose effect is claimed."""
    body: int = 1_024
    result: int = 256

    def __post_init__(self) -> None:
        if min(self.tasks, self.calls, self.body, self.result) < 0:
            raise ConfigurationError("rates and bytes are 0 or more")
        if not (0 <= self.denied <= 1 and 0 <= self.once <= 1):
            raise ConfigurationError("shares are from 0 to 1")

    @property
    def audit_bytes_per_second(self) -> float:
        """How fast AUDIT, which forgets nothing, grows."""
        return (self.tasks + self.calls) * ((1 - self.denied) * DECIDED + self.denied * DENIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAgents:
    """How many agents there will be, on streams of so many `replicas`, in `cells` that are alike, on the same servers."""

    agents: int
    listening: int = 0
    """Agents that listen to events, by one more consumer each, in each cell."""
    cells: int = 1
    processes: int = 0
    """Processes of all agents. Each reads the stops of every cell, by a consumer of STATE with one replica."""
    moved: int = 0
    """Agents that were moved within 33 days: they have consumers of TASKS in the former cell, too."""
    replicas: int = 1
    replicated_consumers: bool = False
    """Whether consumers have the replicas of their stream, too (`streams.replicated_consumers`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.listening <= self.agents:
            raise ConfigurationError("agents that listen to events are 0 or more, and no more than all agents")
        if not 1 <= self.cells <= MOST_CELLS + 1:
            raise ConfigurationError(f"there is one cell at least, and at most {MOST_CELLS + 1}")
        if self.processes < 0 or not 0 <= self.moved <= (self.agents if self.cells > 1 else 0):
            raise ConfigurationError("processes are 0 or more; agents move between cells, and no more than all of them")

    @property
    def consumers(self) -> int:
        """How many consumers of TASKS each cell will have; each task subject of an agent's own takes one more."""
        return (-(-self.agents // self.cells) + -(-self.moved // self.cells)) * CONSUMERS_OF_AGENT

    @property
    def replicated_consumers_held(self) -> int:
        """How many consumers of each cell will be a RAFT group."""
        return self.consumers + self.listening if self.replicas > 1 and self.replicated_consumers else 0

    @property
    def replicated_assets(self) -> int:
        """How many replicated streams and consumers a server has that holds all of them; 0 without replicas."""
        if self.replicas == 1:
            return 0
        return SHARED_ASSETS + (self.cells - 1) * ASSETS_OF_CELL + self.cells * self.replicated_consumers_held

    @property
    def memory(self) -> int:
        """How many bytes the consumers of all cells take of the memory of each server."""
        replicated = self.replicated_consumers_held
        single = self.consumers + self.listening + self.processes - replicated
        return self.cells * (single * CONSUMER_MEMORY + replicated * REPLICATED_MEMORY)

    def warnings(self) -> Iterator[str]:
        """Yield a line for each limit that is passed."""
        for stream, consumers in ((TASKS, self.consumers), (EVENTS, self.listening), (STATE, self.processes)):
            if consumers > MAX_CONSUMERS:
                yield f"{stream} may have {MAX_CONSUMERS:,} consumers, for {consumers:,}"
        if self.replicated_assets > MANY_ASSETS:
            yield (
                f"{self.replicated_assets:,} replicated assets on a server: "
                f"with over {MANY_ASSETS:,} elections take long, and under load may not end"
            )


def bytes_held(load: ExpectedLoad, *, days: float) -> Mapping[str, int]:
    """Return the bytes by stream: those of AUDIT after `days`, of the other streams in the 24 h 5 min that they keep.

    A backlog takes no extra room, because TASKS keeps acknowledged messages too. Raises `ConfigurationError` unless `days` is
    over 0.
    """
    if not days > 0:
        raise ConfigurationError("the days are over 0")
    allowed = load.tasks * (1 - load.denied)
    per_second = {
        TASKS: load.tasks * (TASK + load.body),
        RESULTS: allowed * (RESULT + load.result) + load.tasks * load.denied * REFUSAL,
        STATE: allowed * load.once * CLAIM,
    }
    return {
        **{name: round(rate * KEPT_SECONDS) for name, rate in per_second.items()},
        AUDIT: round(load.audit_bytes_per_second * days * DAY),
    }


def room_for(stream: str, held: int) -> int:
    """Return the `max_bytes` with room for `held` bytes and `HEADROOM`, in steps of 64 MiB and never under the default."""
    return max(-(-int(held * HEADROOM) // _STEP) * _STEP, DEFAULT_MAX_BYTES.get(stream, _STEP))


def seconds_until_full(load: ExpectedLoad, max_bytes: int) -> float | None:
    """Return after how many seconds an empty AUDIT of `max_bytes` is full; `None` if it never is."""
    rate = load.audit_bytes_per_second
    return max_bytes / rate if rate else None
