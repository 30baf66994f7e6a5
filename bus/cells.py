"""Cells: parts of the agents, each with accounts at NATS and streams of its own (docs/cells.md).

All cells declare the same streams. Each subject of the scheme is stored in one cell: that of its second token, whose cell the
registry says. To a process in another cell the streams of `east` are there under a prefix, which its account imports::

    APP_AGENTS  --cell.east.task.>, cell.east.$JS.API...-->  EAST   as task.>, $JS.API...

So what is stored, signed and permitted is as in a deployment without cells; only senders and readers across cells add it.

What is said to an agent that was moved is in the cell that the agent has at the time in the message's id, so that a copy in
another cell is none. What it keeps in STATE and HELD it reads in both cells, and writes in the present one.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sealbus.bus.background import all_ended
from sealbus.bus.ports import AckFloors, Delivery, Outgoing, PubAck, Pull, StoredValue, Transport
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.policies.bundle.cells import DEFAULT
from sealbus.policies.decision.placement import Placement

__all__ = ["DEFAULT", "EVERY_CELL", "CellTransport", "Cells", "cell_prefix", "follow_cells", "is_of_any", "placed_by"]

EVERY_CELL: Final = "*.*"
"""A pattern of subjects that every cell may have."""

LOOK: Final = 5.0
"""Seconds between two looks for a change of the cells."""
SPREAD: Final = 5.0
"""Seconds in which all processes connect anew after such a change: a crowd that the auth callout admits at its ease."""
AGAIN_AFTER: Final = 60.0
"""Seconds until they do so again; a callout takes 17 s to compile a policy with 100,000 users."""


def cell_prefix(cell: str) -> str:
    """Return what stands before the subjects of `cell` in the other cells."""
    return f"cell.{cell}."


_OF_NO_CELL: Final = ("_R_.", "$")
"""Beginnings of subjects without the token of an owner."""


_DATED: Final = frozenset({"task", "control", "event"})
"""First tokens of the subjects under which a message is in the cell of its own time. A status is in that of its task."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells as one process sees them: `own`, and the placement of each token that is not just in `DEFAULT`.

    Without such a token there is no cell but `DEFAULT`.
    """

    own: str = DEFAULT
    of: Mapping[str, Placement] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def all(self) -> frozenset[str]:
        """All cells."""
        return frozenset({self.own, DEFAULT}.union(*[placement.cells for placement in self.of.values()]))

    def cell_of(self, subject: str, owners: Mapping[str, str], identifier: str = "") -> str:
        """Return the cell that stores the message with `identifier` (32 hex digits) under `subject`, or what has no id.

        `owners` has the tokens of the owners of a deployment's own subjects.
        """
        if subject.startswith(_OF_NO_CELL):
            return self.own
        if is_of_any(subject):
            return self.own
        placement = self._placement(subject, owners)
        first = subject.partition(".")[0]
        if first == "status":
            return placement.cell_at(subject.rpartition(".")[2])
        return placement.cell_at(identifier if first in _DATED or subject in owners else "")

    def cells_of(self, pattern: str, owners: Mapping[str, str]) -> Sequence[str]:
        """Return the cells that may store subjects of `pattern`: the one that stores what is stored now, then the others."""
        first = self.cell_of(pattern, owners)
        if is_of_any(pattern):
            return [first, *sorted(self.all - {first})]
        return [first, *(cell for cell in self._placement(pattern, owners).cells if cell != first)]

    def _placement(self, subject: str, owners: Mapping[str, str]) -> Placement:
        token = owners.get(subject) or subject.partition(".")[2].partition(".")[0]
        return self.of.get(token, _IN_DEFAULT)


_IN_DEFAULT: Final = Placement(DEFAULT)


def placed_by(cells: Callable[[], Mapping[str, Placement]], token: str) -> Callable[[], Cells]:
    """Return what tells the present cells to the process of `token`, which stays in the cell that `cells` has for it now.

    What is returned raises `ConfigurationError` once the registry puts the process into another cell, because after the next
    connection its own streams would be others.
    """
    own = cells().get(token, _IN_DEFAULT).cell
    known = Cells(own=own, of=cells())

    def present() -> Cells:
        nonlocal known
        if known.of is not (of := cells()):
            if (now := of.get(token, _IN_DEFAULT).cell) != own:
                raise ConfigurationError(f"{token} is in the cell {now} now: start this process again")
            known = Cells(own=own, of=of)
        return known

    return present


async def follow_cells(
    cells: Callable[[], Mapping[str, Placement]],
    changed: Callable[[], None],
    *,
    every: float = LOOK,
    spread: float = SPREAD,
    again: float = AGAIN_AFTER,
    random: Callable[[], float] = random_module.random,
) -> None:
    """Call `changed` within `every` and `spread` seconds after each change of the cells, until cancelled.

    What a connection may do in each cell was decided when it was made. It is called once more after `again` seconds, because
    the callout that decides may have learned of the change later than this process.
    """
    known, time = cells(), asyncio.get_running_loop().time
    # The callout may also have been behind when this process connected.
    due = [time() + again + spread * random()] if known else []
    while True:
        await asyncio.sleep(every)
        present = cells()
        if present is not known and present != known:
            due = [time() + later + spread * random() for later in (0.0, again)]
        known = present
        if due and due[0] <= time():
            del due[0]
            changed()


class CellTransport:
    """A `Transport` that finds the cell of each subject. What it pulls and listens to is the own cell's.

    `own` is the own cell's transport, and `reach` returns that of another cell. A subject with a wildcard for its second
    token is read in the own cell: who needs all of them reads `cells_of` one by one.
    """

    def __init__(
        self,
        own: Transport,
        cells: Callable[[], Cells],
        *,
        reach: Callable[[str], Transport],
        owners: Mapping[str, str],
    ) -> None:
        self._own = own
        self._cells = cells
        self._reach = reach
        self._owners = owners
        self._others: dict[str, Transport] = {}

    def cells_of(self, pattern: str) -> Mapping[str, Transport]:
        """Return the transport of each cell that may store subjects of `pattern`, the one that stores what comes first."""
        cells = self._cells()
        return {name: self._at(name, cells) for name in cells.cells_of(pattern, self._owners)}

    def is_at_home(self, delivery: Delivery, identifier: str) -> bool:
        """Return whether a message with `identifier` was delivered from the cell that has it."""
        cells = self._cells()
        if delivery.arrival is None or not cells.of:
            return True
        return cells.cell_of(delivery.subject, self._owners, identifier) == (delivery.arrival.cell or cells.own)

    def _at(self, cell: str, cells: Cells) -> Transport:
        if cell == cells.own:
            return self._own
        if cell not in self._others:
            self._others[cell] = self._reach(cell)
        return self._others[cell]

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish each message to its cell; the failure of a cell is the answer to its messages.

        Raises `ConfigurationError` as the transports of the cells do; the messages of other cells are published then.
        """
        cells = self._cells()
        if not cells.of:
            return await self._own.publish(messages, deadline=deadline)
        parts = self._split(messages, cells)
        published = await all_ended(
            self._at(cell, cells).publish([messages[place] for place in places], deadline=deadline)
            for cell, places in parts.items()
        )
        answers: dict[int, PubAck | Exception] = {}
        for places, found in zip(parts.values(), published, strict=True):
            if isinstance(found, Exception) and not isinstance(found, BusUnavailable):
                raise found
            answers |= zip(places, [found] * len(places) if isinstance(found, Exception) else found, strict=True)
        return [answers[place] for place in range(len(messages))]

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Send each message to its cell: calls to the callee's, and answers, which go to an inbox, to the caller's.

        All or nothing of each cell. The error of a cell is raised; the messages of the cells before it are sent then.
        """
        cells = self._cells()
        if not cells.of:
            self._own.send(messages)
            return
        for cell, places in self._split(messages, cells).items():
            self._at(cell, cells).send([messages[place] for place in places])

    def listen(
        self, subject: str, *, queue: str = "", pending: int = 4096, live: asyncio.Event | None = None
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Subscribe in the own cell, where calls and answers arrive."""
        return self._own.listen(subject, queue=queue, pending=pending, live=live)

    def pull(
        self,
        stream: str,
        consumer: str,
        subjects: Sequence[str],
        *,
        batch: int,
        ack_wait: float,
        max_ack_pending: int,
        floors: AckFloors | None = None,
        one_replica: bool = False,
    ) -> Pull:
        """Bind a durable consumer of the own cell's stream."""
        return self._own.pull(
            stream,
            consumer,
            subjects,
            batch=batch,
            ack_wait=ack_wait,
            max_ack_pending=max_ack_pending,
            floors=floors,
            one_replica=one_replica,
        )

    def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        """Read the stream of the cell of `subjects`, which must be of one cell."""
        return self._of(subjects[0]).read(
            stream, subjects, start=start, since=since, follow=follow, current=current, headers_only=headers_only
        )

    def values(
        self, stream: str, pattern: str, *, since: int = 0
    ) -> AsyncGenerator[Sequence[tuple[str, StoredValue]], None]:
        """Read the stream of the cell of `pattern` once."""
        return self._of(pattern).values(stream, pattern, since=since)

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject` in its cell, or in that before its owner was moved, with the sequence 0."""
        cell, *before = self.cells_of(subject).values()
        found = await cell.last(stream, subject, within=within)
        for other in before if found is None else ():
            if (older := await other.last(stream, subject, within=within)) is not None:
                return older._replace(sequence=0)
        return found

    async def audit_stream(self) -> tuple[str, int]:
        """Return the own cell's stream of records."""
        return await self._own.audit_stream()

    async def created(self, stream: str) -> int:
        """Return when the own cell's stream was created."""
        return await self._own.created(stream)

    async def broker_time(self, stream: str) -> int:
        """Return the time of the own cell's broker."""
        return await self._own.broker_time(stream)

    def _of(self, subject: str) -> Transport:
        cells = self._cells()
        return self._at(cells.cell_of(subject, self._owners), cells)

    def _split(self, messages: Sequence[Outgoing], cells: Cells) -> dict[str, list[int]]:
        """Return the places of the messages of each cell."""
        parts: dict[str, list[int]] = {}
        for place, message in enumerate(messages):
            parts.setdefault(cells.cell_of(message.subject, self._owners, message.message_id), []).append(place)
        return parts


def own_cell(transport: Transport) -> Transport:
    """Return the transport of the own cell alone, for a reader that may read no other."""
    return next(iter(transport.cells_of(EVERY_CELL).values()))


def is_of_any(pattern: str) -> bool:
    """Return whether the second token of `pattern`, the owner's, is a wildcard."""
    return pattern.split(".", 2)[1:2] in (["*"], [">"])
