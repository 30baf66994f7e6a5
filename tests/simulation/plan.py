"""What happens in one simulation: its seed, the tasks that are sent, and the faults."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Fault", "FaultKind", "Plan", "PlannedTask", "plan_of"]

BUSY_SECONDS: Final = 40.0
"""Virtual seconds within which tasks are sent and faults begin."""
TASKS: Final = 8
TOLD_WITHIN: Final = 4.0
"""Seconds for which a host may be cut off, once or more often, and still store a status that it tries to store for 10 s."""
FAULTS: Final = (3, 9)
"""Fewest and most faults."""


class FaultKind(StrEnum):
    """The kinds of faults. Those of `LOSING` lose what was acknowledged, as disks do that were not synced."""

    KILL = "kill"
    """A process ends without cleaning up; another takes its place after a while."""
    EXCHANGE = "exchange"
    """A worker is killed, and starts again in the other version: the newer one has a further verb."""
    PAUSE = "pause"
    """A process stands still for a while."""
    CUT = "cut"
    """A host is cut off for a while; its packets are lost."""
    LOSSY = "lossy"
    """A part of a host's packets is lost for a while."""
    CLOCK = "clock"
    """A host's clock is set wrong, for a while."""
    DRIFT = "drift"
    """A host's clock runs too fast or too slow, for a while."""
    SILENCE = "silence"
    """The broker stores, and answers nobody, for a while: between two leaders."""
    REDELIVER = "redeliver"
    """Everything that is not acknowledged is delivered again at once."""
    FORGET = "forget"
    """Consumers lose their state, and deliver everything again."""
    FULL = "full"
    """A stream is full, for a while."""
    LOSE = "lose"
    """The last messages of a stream are lost, though they were acknowledged (nats-server#7564)."""


LOSING: Final = frozenset({FaultKind.LOSE})
_KEEPING_APART: Final = frozenset({FaultKind.CUT, FaultKind.LOSSY, FaultKind.SILENCE, FaultKind.PAUSE})
_STREAMS: Final = ("TASKS", "RESULTS", "STATE", "AUDIT", "HELD")
_WORKERS: Final = ("bank-1", "bank-2")
_HOSTS: Final = (*_WORKERS, "shop", "notary-1", "notary-2")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, what it harms, for how long, and how much."""

    at: float
    kind: FaultKind
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0

    def __str__(self) -> str:
        amount = f"{self.amount:.3g}" if self.amount else ""
        length = f"for {self.seconds:.1f} s" if self.seconds else ""
        return " ".join(filter(None, (self.kind, self.target, amount, length)))


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task: when it is sent, which, when it is canceled, and until when its handler puts it off."""

    number: int
    at: float
    verb: str
    takes: float
    """Seconds that its handler takes."""
    cancel_after: float | None = None
    due: float = 0.0
    keyed: bool = True
    """Whether it has an idempotency key, and is sent again until it is stored."""
    again_after: float | None = None
    """When it is sent once more, as by a sender that does not know of the first time; it has a key then."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulation."""

    seed: int
    tasks: tuple[PlannedTask, ...]
    faults: tuple[Fault, ...]

    @property
    def may_leave_untold(self) -> bool:
        """Whether a denial, or a result without `once`, may not be told: it is tried for 10 s (`bus/work/status_writer`)."""
        return any(
            (fault.kind is FaultKind.FULL and fault.target == "RESULTS")
            or (fault.kind in _KEEPING_APART and fault.seconds > TOLD_WITHIN)
            for fault in self.faults
        )

    @property
    def replicas(self) -> int:
        """How many replicas each stream has: only a single one loses what it has acknowledged."""
        return 1 if any(fault.kind in LOSING for fault in self.faults) else 3


def plan_of(seed: int, *, losing: bool = False) -> Plan:
    """Return the plan of `seed`; with `losing` its faults may lose what the broker acknowledged."""
    chance = random.Random(f"plan {seed}")  # noqa: S311  a plan, no secret
    tasks = tuple(_task(number, chance) for number in range(1, TASKS + 1))
    faults = sorted((_fault(chance, losing=losing) for _ in range(chance.randint(*FAULTS))), key=lambda one: one.at)
    return Plan(seed, tasks, tuple(faults))


def _task(number: int, chance: random.Random) -> PlannedTask:
    at = chance.uniform(0.0, BUSY_SECONDS / 2)
    canceled = chance.random() < 0.25
    put_off = chance.random() < 0.25
    again = chance.random() < 0.15
    return PlannedTask(
        number,
        at,
        verb=chance.choice(("pay", "pay", "note", "refund")),
        takes=chance.choice((0.0, chance.uniform(0.0, 2.0), chance.uniform(0.0, 4.5))),
        cancel_after=chance.choice((0.0, chance.uniform(0.0, 3.0), chance.uniform(0.0, 20.0))) if canceled else None,
        due=at + chance.uniform(0.0, 20.0) if put_off else 0.0,
        keyed=again or chance.random() < 0.7,
        again_after=chance.uniform(0.0, 20.0) if again else None,
    )


def _fault(chance: random.Random, *, losing: bool) -> Fault:
    kind = chance.choice([one for one in FaultKind if losing or one not in LOSING])
    at, target, seconds, amount = chance.uniform(0.0, BUSY_SECONDS), "", 0.0, 0.0
    match kind:
        case FaultKind.KILL | FaultKind.PAUSE | FaultKind.CUT:
            target, seconds = chance.choice(_HOSTS), chance.choice((2.0, 10.0, 40.0)) * chance.random()
        case FaultKind.EXCHANGE:
            target, seconds = chance.choice(_WORKERS), 5.0 * chance.random()
        case FaultKind.LOSSY:
            target, seconds, amount = chance.choice(_HOSTS), 20.0 * chance.random(), 0.3 * chance.random()
        case FaultKind.CLOCK:
            target, seconds = chance.choice(_HOSTS), 40.0 * chance.random()
            amount = chance.choice((-1.0, 1.0)) * chance.choice((2.0, 30.0, 400.0)) * chance.random()
        case FaultKind.DRIFT:
            target, seconds, amount = chance.choice(_HOSTS), 40.0 * chance.random(), chance.uniform(0.5, 2.0)
        case FaultKind.SILENCE:
            seconds = 10.0 * chance.random()
        case FaultKind.FULL:
            target, seconds = chance.choice(_STREAMS), 20.0 * chance.random()
        case FaultKind.LOSE:
            target, amount = chance.choice(_STREAMS), float(chance.randint(1, 5))
        case FaultKind.REDELIVER | FaultKind.FORGET:
            pass
    return Fault(at, kind, target, seconds, amount)
