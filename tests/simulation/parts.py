"""The parts of a site that only some seeds have: schedules, follow-up tasks, revocations and a console, and their faults."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = [
    "CLERKS",
    "CONSOLE",
    "NO_PARTS",
    "REVOKER",
    "TILL",
    "USERS",
    "VAULT",
    "Parts",
    "PlannedRevocation",
    "PlannedSchedule",
    "PlannedUser",
    "parts_of",
]

CLERKS: Final = ("clerk-1", "clerk-2")
"""The processes of the owner of schedules."""
CONSOLE: Final = "console"
VAULT: Final = "vault"
REVOKER: Final = "revoker"
TILL: Final = "till"
"""A client that sends tasks, and whose credentials are revoked. No fault harms it: it keeps its first credential."""
RevokedKind: TypeAlias = Literal["user", "session", "client", "workload"]
KINDS: Final[tuple[RevokedKind, ...]] = ("user", "session", "client", "workload")
SCHEDULE_NUMBERS: Final = (101, 102, 103)
"""The numbers in the tasks of schedules; the policy denies none of them."""
SHARE: Final = 1 / 3
"""The share of seeds that have each part."""


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """One schedule: when it is asked for, what it sends and when, and when it is halted."""

    number: int
    at: float
    verb: str
    every: int = 0
    """Seconds between two ticks; 0 for a single tick, at `due`."""
    due: float = 0.0
    queue: bool = False
    """Whether a tick waits for the task before it, and is not left out."""
    halt_after: float | None = None
    """How long after it was confirmed it is removed, or paused if it is resumed."""
    resume_after: float | None = None
    """How long after that it is resumed. A single tick is not: one that was due in a pause is sent after it."""


@dataclass(frozen=True, slots=True)
class PlannedUser:
    """A user for whom tasks are sent: name, session and client."""

    name: str
    session: str
    client: str


@dataclass(frozen=True, slots=True)
class PlannedRevocation:
    """One revocation: when it is published, and the user, session, client or workload that it denies."""

    at: float
    kind: RevokedKind
    id: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What a site has beside workers, client and notaries."""

    schedules: tuple[PlannedSchedule, ...] = ()
    follow_ups: bool = False
    """Whether what `bank` handles has a follow-up task for `vault`."""
    revocations: tuple[PlannedRevocation, ...] = ()
    console: bool = False

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts that there are only for these parts."""
        return (
            *(CLERKS if self.schedules else ()),
            *((VAULT,) if self.follow_ups else ()),
            *((REVOKER,) if self.revocations else ()),
            *((TILL,) if any(one.kind == "workload" for one in self.revocations) else ()),
            *((CONSOLE,) if self.console else ()),
        )

    @property
    def harmed(self) -> tuple[str, ...]:
        """Those that faults harm."""
        return tuple(host for host in self.hosts if host != TILL)


USERS: Final = (
    PlannedUser("ann", "ann-1", "web"),
    PlannedUser("ann", "ann-2", "phone"),
    PlannedUser("bob", "bob-1", "web"),
)
"""Those for whom tasks are sent, where there are revocations."""
NO_PARTS: Final = Parts()


def parts_of(seed: int) -> Parts:
    """Return the parts of the site of `seed`."""
    chance = random.Random(f"parts {seed}")  # noqa: S311  a plan, no secret
    scheduled, follow_ups = chance.random() < SHARE, chance.random() < SHARE
    numbers = SCHEDULE_NUMBERS[: chance.randint(1, 3)] if scheduled else ()
    schedules = tuple(_schedule(number, chance) for number in numbers)
    revoked = chance.randint(1, 2) if chance.random() < SHARE else 0
    revocations = tuple(_revocation(chance) for _ in range(revoked))
    return Parts(schedules, follow_ups, revocations, console=chance.random() < SHARE)


def _revocation(chance: random.Random) -> PlannedRevocation:
    at, user = chance.uniform(0.0, 30.0), chance.choice(USERS)
    kind = chance.choice(KINDS)
    ids: dict[RevokedKind, str] = {
        "user": user.name,
        "session": user.session,
        "client": user.client,
        "workload": TILL,
    }
    return PlannedRevocation(at, kind, ids[kind])


def _schedule(number: int, chance: random.Random) -> PlannedSchedule:
    at = chance.uniform(0.0, 15.0)
    halted, resumed, repeats = chance.random() < 0.4, chance.random() < 0.5, chance.random() < 0.5
    return PlannedSchedule(
        number,
        at,
        verb=chance.choice(("pay", "note")),
        every=chance.randint(10, 14) if repeats else 0,
        due=at + chance.uniform(-2.0, 25.0),
        queue=chance.random() < 0.5,
        halt_after=chance.uniform(0.0, 25.0) if halted else None,
        resume_after=chance.uniform(0.0, 20.0) if halted and resumed and repeats else None,
    )
