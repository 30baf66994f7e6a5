"""What happens in one simulation: its seed, the tasks that are sent, and the faults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sealbus.bus.cells import DEFAULT
from sealbus.bus.streams.declared import DUPLICATE_WINDOW
from simulation.cells import CELLS, LOGS, agent_on
from simulation.parts import NO_PARTS, USERS, Parts, PlannedUser, parts_of

__all__ = ["APPROVED_WITHIN", "LATE", "LIFE", "Fault", "FaultKind", "Plan", "PlannedTask", "plan_of"]

BUSY_SECONDS: Final = 40.0
"""Virtual seconds within which tasks are sent and faults begin."""
TASKS: Final = 8
LATE: Final = "late"
"""An approval that is given at the last moment."""
APPROVED_WITHIN: Final = 60
"""Seconds for which a task waits for an approval."""
LIFE: Final = 600
"""Seconds for which a task may wait."""
GRANTS: Final = (None, None, None, ("vault.keep",), ("bank.*", "vault.*"), ("bank.*",))
"""What senders grant to what follows from their tasks, where something does."""
TOLD_WITHIN: Final = 4.0
"""Seconds for which a host may be cut off, once or more often, and still store a status that it tries to store for 10 s."""
COUNTED_WITHIN: Final = 15.0
"""Seconds from the beginning of an attempt until its failure is counted: its timeout, and two round trips to STATE."""
WITH_EDGE: Final = 0.4
"""The share of seeds that have an edge."""
BY_USER: Final = 0.5
"""The share of their tasks that users send."""
WITH_CELLS: Final = 0.2
"""The share of seeds in which some agents are in a cell of their own."""
MOVED: Final = 0.5
"""The share of these in which `bank` is moved to the other cell."""
HEARD_SECONDS: Final = 15.0
"""Within this time every process knows where `bank` is."""
MOVE_SECONDS: Final = 20.0
"""How long `bank` stands still when it is moved. What is said to it after that is in the other cell."""
WITH_REGION: Final = 1 / 3
"""The share of seeds in which some hosts are in another region than the streams."""
_LATE: Final = 0.05
"""The share of tasks sent twice that are sent again only after the duplicate window."""
FAULTS: Final = (3, 9)
"""Fewest and most faults."""
FAULTS_OF_PARTS: Final = (0, 3)
"""Fewest and most faults of the hosts that only some seeds have (`parts`)."""


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
    SLOW = "slow"
    """The packets of a host take up to seconds, for a while."""
    LEADER = "leader"
    """A stream and its consumers have no leader for a while. The last acknowledgements of deliveries are lost."""
    AWAY = "away"
    """The only server of a consumer is away for a while. If the consumer was not moved by then, it has its state or not."""
    REPEAT = "repeat"
    """What a host has published of late is published again once the duplicate window is over, by somebody who captured it."""
    RESTORED = "restored"
    """The site is backed up, and its streams are lost. They are created again from the backup, and the notary is told."""
    REDELIVER = "redeliver"
    """Everything that is not acknowledged is delivered again at once."""
    FORGET = "forget"
    """Consumers lose their state, and deliver everything again."""
    FULL = "full"
    """A stream is full, for a while."""
    LITTER = "litter"
    """Another agent has the server store bytes of its own where an agent's stops, schedules and claims are read."""
    LOSE = "lose"
    """The last messages of a stream are lost, though they were acknowledged (nats-server#7564)."""
    FLIP = "flip"
    """A bit of a stored message is flipped: the message is gone, another, or gone with all after it (nats-server#7549)."""
    APART = "apart"
    """The hosts of other cells do not reach a cell for a while, and its own do."""
    DOWN = "down"
    """All servers of a cell are killed, and come back after a while with what they have stored."""
    ELSEWHERE = "elsewhere"
    """What a host has published of late is published again in the cell that is not its owner's, by who captured it."""
    MEMBERSHIP = "membership"
    """A cluster changes during a partition: what was acknowledged since its beginning is lost (nats-server#7545)."""


OF_A_HOST: Final = (FaultKind.KILL, FaultKind.PAUSE, FaultKind.CUT, FaultKind.LOSSY, FaultKind.CLOCK, FaultKind.DRIFT)
"""The kinds that harm one host, whichever it is."""
LOSING: Final = frozenset({FaultKind.LOSE, FaultKind.FLIP, FaultKind.MEMBERSHIP})
OF_CELLS: Final = frozenset({FaultKind.APART, FaultKind.DOWN, FaultKind.ELSEWHERE})
"""The kinds that are drawn only where there are cells."""
OF_A_BROKER: Final = (
    FaultKind.APART,
    FaultKind.DOWN,
    FaultKind.SILENCE,
    FaultKind.LEADER,
    FaultKind.FULL,
    FaultKind.REDELIVER,
    FaultKind.FORGET,
    FaultKind.RESTORED,
)
"""The kinds that harm the broker of one cell; those of `LOSING` do, too."""
_KEEPING_APART: Final = frozenset(
    {
        FaultKind.CUT,
        FaultKind.LOSSY,
        FaultKind.SLOW,
        FaultKind.SILENCE,
        FaultKind.LEADER,
        FaultKind.PAUSE,
        FaultKind.APART,
        FaultKind.DOWN,
    }
)
_WEIGHTS: Final = MappingProxyType(
    {FaultKind.REPEAT: 0.03, FaultKind.RESTORED: 0.3, FaultKind.FULL: 2.0, FaultKind.AWAY: 3.0}
)
"""How often kinds are drawn, beside 1 for the others: rarely what takes much virtual time, often what has several targets."""
_STREAMS: Final = ("TASKS", "RESULTS", "STATE", "AUDIT", "HELD")
CONSUMERS: Final = ("bank", "id-ctl-bank", "id-apr-bank", "id-sch-bank")
"""The consumers of TASKS that a fault may concern."""
_WORKERS: Final = ("bank-1", "bank-2")
_MOVED: Final = frozenset({"vault", "clerk", "till"})
"""The agents of only some seeds that may be in another cell."""
_HOSTS: Final = (*_WORKERS, "shop", "notary-1", "notary-2")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, what it harms, for how long, and how much."""

    at: float
    kind: FaultKind
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0
    cell: str = DEFAULT
    """The cell whose broker it harms, if it harms one."""

    def __str__(self) -> str:
        amount = f"{self.amount:.3g}" if self.amount else ""
        length = f"for {self.seconds:.1f} s" if self.seconds else ""
        cell = f"in {self.cell}" if self.cell != DEFAULT else ""
        return " ".join(filter(None, (self.kind, self.target, cell, amount, length)))


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
    fails: int = 0
    """How many attempts of its handler fail."""
    by_user: bool = False
    """Whether a user sends it, at the edge."""
    verdict: str | None = None
    """What a person says when it waits for an approval: a verdict, nothing, or `LATE`; None if it needs no approval."""
    grants: tuple[str, ...] | None = None
    """The only actions that may follow from it."""
    user: PlannedUser | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One simulation."""

    seed: int
    tasks: tuple[PlannedTask, ...]
    faults: tuple[Fault, ...]
    parts: Parts = NO_PARTS
    east: tuple[str, ...] = ()
    """The agents that are in a cell of their own."""
    moved_at: float | None = None
    """When `bank` is moved to the other cell, if it is."""

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells that there are."""
        return CELLS if self.east else (DEFAULT,)

    @property
    def has_edge(self) -> bool:
        """Whether there is an edge, for users."""
        return any(task.by_user for task in self.tasks) or any(fault.target == "edge" for fault in self.faults)

    def waits_for_approval(self, number: int) -> bool:
        """Return whether the policy allows the task with this number only with an approval."""
        return any(task.number == number and task.verdict is not None for task in self.tasks)

    @property
    def may_leave_untold(self) -> bool:
        """Whether a denial, or a result without `once`, may not be told: it is tried for 10 s (`bus/work/status_writer`)."""
        return any(
            (fault.kind is FaultKind.FULL and fault.target == "RESULTS")
            or (fault.kind in _KEEPING_APART and fault.seconds > TOLD_WITHIN)
            for fault in self.faults
        )

    @property
    def may_have_two_logs(self) -> bool:
        """Whether two notaries may sign two histories: both the lease and what they have published may be lost."""
        losing = {fault.target for fault in self.faults if fault.kind in LOSING}
        return losing >= {"STATE", "AUDIT"}

    @property
    def lasts(self) -> float:
        """When all faults have ended and all tasks were sent, in virtual seconds."""
        faults = [fault.at + fault.seconds for fault in self.faults]
        moved = self.moved_at + MOVE_SECONDS if self.moved_at is not None else 0.0
        return max([BUSY_SECONDS, moved, *faults, *(task.at + (task.again_after or 0.0) for task in self.tasks)])

    def counts_attempt(self, host: str, began: float) -> bool:
        """Return whether the failure of an attempt that `host` began at a time is counted, as far as faults let it.

        While STATE does not answer, deliveries are counted instead (docs/guide.md).
        """
        return not any(
            fault.at <= began + COUNTED_WITHIN
            and began <= fault.at + fault.seconds
            and (
                (fault.kind in _KEEPING_APART and fault.target in {host, "STATE", ""})
                or fault.kind is FaultKind.RESTORED
                or (fault.kind is FaultKind.FULL and fault.target == "STATE")
            )
            for fault in self.faults
        )

    @property
    def replicas(self) -> int:
        """How many replicas each stream has. The model loses what was acknowledged of a single one only."""
        return 1 if any(fault.kind in LOSING for fault in self.faults) else 3


def plan_of(seed: int, *, losing: bool = False, cells: bool = False) -> Plan:
    """Return the plan of `seed`; with `losing` its faults may lose what the broker acknowledged.

    With `cells` some agents are in a cell of their own, also if this is not one of the seeds where they are.
    """
    chance = random.Random(f"plan {seed}")  # noqa: S311  a plan, no secret
    tasks = tuple(_task(number, chance) for number in range(1, TASKS + 1))
    faults = [_fault(chance, losing=losing) for _ in range(chance.randint(*FAULTS))]
    parts = parts_of(seed)
    if parts.follow_ups:
        tasks = tuple(replace(task, grants=chance.choice(GRANTS)) for task in tasks)
    if parts.revocations:
        tasks = tuple(replace(task, user=chance.choice((None, *USERS, *USERS))) for task in tasks)
    if parts.harmed:
        faults += [_fault_of(parts.harmed, chance) for _ in range(chance.randint(*FAULTS_OF_PARTS))]
    plan = _with_failures(_with_region(_with_edge(Plan(seed, tasks, _in_order(faults), parts))))
    return _with_cells(plan, always=cells)


def _in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _with_failures(plan: Plan) -> Plan:
    """Return the plan with handlers that fail once or twice."""
    chance = random.Random(f"failures {plan.seed}")  # noqa: S311  a plan, no secret
    tasks = [replace(task, fails=chance.choice((0, 0, 0, 0, 1, 2))) for task in plan.tasks]
    return replace(plan, tasks=tuple(tasks))


def _with_edge(plan: Plan) -> Plan:
    """Return the plan with tasks that a user sends at an edge, and faults of that, for some seeds."""
    chance = random.Random(f"edge {plan.seed}")  # noqa: S311  a plan, no secret
    if chance.random() >= WITH_EDGE:
        return plan
    tasks = [_by_user(task, chance) if chance.random() < BY_USER else task for task in plan.tasks]
    faults = [*plan.faults, *(_fault_of(("edge",), chance) for _ in range(chance.randint(0, 2)))]
    return replace(plan, tasks=tuple(tasks), faults=_in_order(faults))


def _with_region(plan: Plan) -> Plan:
    """Return the plan, for some seeds with a region without streams that is cut off, or lost, once or twice."""
    chance = random.Random(f"region {plan.seed}")  # noqa: S311  a plan, no secret
    if chance.random() >= WITH_REGION:
        return plan
    hosts = (*_HOSTS, *plan.parts.harmed, *(("edge",) if plan.has_edge else ()))
    there = [host for host in hosts if chance.random() < 0.5] or [_WORKERS[0]]
    faults = list(plan.faults)
    for _ in range(chance.randint(1, 2)):
        kind = chance.choice((FaultKind.CUT, FaultKind.CUT, FaultKind.KILL))
        at, seconds = chance.uniform(0.0, BUSY_SECONDS), chance.choice((5.0, 20.0, 60.0)) * chance.random()
        faults += [Fault(at, kind, host, seconds) for host in there]
    return replace(plan, faults=_in_order(faults))


def _with_cells(plan: Plan, *, always: bool) -> Plan:
    """Return the plan, for some seeds or `always` with agents in a cell of their own, and faults of either cell's broker."""
    chance = random.Random(f"cells {plan.seed}")  # noqa: S311  a plan, no secret
    if chance.random() >= WITH_CELLS and not always:
        return plan
    agents = sorted({"bank", "shop", *({agent_on(host) for host in plan.parts.hosts} & _MOVED)})
    agents += ["edge"] if plan.has_edge else []
    east = [agent for agent in agents if chance.random() < 0.5]
    if len(east) in (0, len(agents)):
        east = [chance.choice(agents)]
    faults = [
        replace(fault, cell=chance.choice(CELLS)) if fault.kind in {*OF_A_BROKER, *LOSING} else fault
        for fault in plan.faults
    ]
    # A restoration takes much virtual time: there is none beside those that the plan has.
    drawn = [FaultKind.ELSEWHERE, *(kind for kind in OF_A_BROKER if kind is not FaultKind.RESTORED)]
    kinds = chance.sample(drawn, chance.randint(1, 3))
    faults += [replace(_fault_of_kind(kind, chance), cell=chance.choice(CELLS)) for kind in kinds]
    hosts = tuple(log.hosts[0] for cell, log in LOGS.items() if cell != DEFAULT)
    faults += [_fault_of(hosts, chance) for _ in range(chance.randint(0, 1))]
    moved_at = chance.uniform(0.0, BUSY_SECONDS) if chance.random() < MOVED else None
    return replace(plan, faults=_in_order(faults), east=tuple(east), moved_at=moved_at)


def _by_user(task: PlannedTask, chance: random.Random) -> PlannedTask:
    verdict = chance.choice((None, None, "approve", "approve", "deny", "", "", LATE))
    late = verdict == "" and chance.random() < 0.5
    cancel_after = APPROVED_WITHIN + chance.uniform(-5.0, 20.0) if late else task.cancel_after
    return replace(task, by_user=True, verdict=verdict, cancel_after=cancel_after, grants=None, user=None)


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
        again_after=_again_after(chance) if again else None,
    )


def _again_after(chance: random.Random) -> float:
    """Return when a task is sent once more: soon, or rarely when no stream remembers the first time."""
    late = DUPLICATE_WINDOW if chance.random() < _LATE else 0.0
    return late + chance.uniform(0.0, 20.0)


def _fault_of(hosts: Sequence[str], chance: random.Random) -> Fault:
    """Return a fault of one of `hosts`."""
    fault = _fault_of_kind(chance.choice(OF_A_HOST), chance)
    return replace(fault, target=chance.choice(hosts))


def _fault(chance: random.Random, *, losing: bool) -> Fault:
    kinds = [kind for kind in FaultKind if kind not in OF_CELLS and (losing or kind not in LOSING)]
    [kind] = chance.choices(kinds, [_WEIGHTS.get(kind, 1.0) for kind in kinds])
    return _fault_of_kind(kind, chance)


def _fault_of_kind(kind: FaultKind, chance: random.Random) -> Fault:
    at, target, seconds, amount = chance.uniform(0.0, BUSY_SECONDS), "", 0.0, 0.0
    match kind:
        case FaultKind.KILL | FaultKind.PAUSE | FaultKind.CUT:
            target, seconds = chance.choice(_HOSTS), chance.choice((2.0, 10.0, 40.0)) * chance.random()
        case FaultKind.EXCHANGE:
            target, seconds = chance.choice(_WORKERS), 5.0 * chance.random()
        case FaultKind.LOSSY:
            target, seconds, amount = chance.choice(_HOSTS), 20.0 * chance.random(), 0.3 * chance.random()
        case FaultKind.SLOW:
            target, seconds, amount = chance.choice(_HOSTS), 20.0 * chance.random(), chance.uniform(0.2, 3.0)
        case FaultKind.CLOCK:
            target, seconds = chance.choice(_HOSTS), 40.0 * chance.random()
            amount = chance.choice((-1.0, 1.0)) * chance.choice((2.0, 30.0, 400.0)) * chance.random()
        case FaultKind.DRIFT:
            target, seconds, amount = chance.choice(_HOSTS), 40.0 * chance.random(), chance.uniform(0.5, 2.0)
        case FaultKind.SILENCE:
            seconds = 10.0 * chance.random()
        case FaultKind.APART | FaultKind.DOWN:
            seconds = chance.choice((2.0, 10.0, 40.0)) * chance.random()
        case FaultKind.ELSEWHERE:
            target, amount = chance.choice(_HOSTS), chance.uniform(1.0, 20.0)
        case FaultKind.LEADER:
            target, seconds, amount = chance.choice(_STREAMS), 10.0 * chance.random(), 2.0 * chance.random()
        case FaultKind.AWAY:
            target, seconds = chance.choice(CONSUMERS), 60.0 * chance.random()
            amount = float(chance.random() < 0.5)
        case FaultKind.REPEAT:
            target, seconds = chance.choice(_HOSTS), DUPLICATE_WINDOW + chance.uniform(1.0, 20.0)
            amount = chance.uniform(1.0, 20.0)
        case FaultKind.RESTORED:
            seconds, amount = 10.0 * chance.random(), float(chance.random() < 0.5)
        case FaultKind.FULL:
            target, seconds = chance.choice(_STREAMS), 20.0 * chance.random()
        case FaultKind.LOSE:
            target, amount = chance.choice(_STREAMS), float(chance.randint(1, 5))
        case FaultKind.LITTER:
            amount = float(chance.randint(1, 30))
        case FaultKind.FLIP:
            target, amount = chance.choice(_STREAMS), float(chance.randrange(3))
        case FaultKind.MEMBERSHIP:
            target, seconds = chance.choice(_STREAMS), 5.0 * chance.random()
        case FaultKind.REDELIVER | FaultKind.FORGET:
            pass
    return Fault(at, kind, target, seconds, amount)
