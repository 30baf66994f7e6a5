"""The decisions of the whole deployment as they are recorded, for every page that is open: read and verified once.

What comes within a moment is one message, made once for all readers. Each reader has a bounded queue: who does not keep up,
because a browser sleeps, is told how many were left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Final, NamedTuple

from sealbus.agents.console.decision_document import approval_queue
from sealbus.agents.console.documents import MapDocument
from sealbus.agents.console.rows import DecisionRow, OutcomeRow, row_of
from sealbus.agents.console.traffic import Traffic
from sealbus.agents.edge.event_streams import event
from sealbus.bus.audit.trail import AuditEntry, AuditTrail, Finding
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.names import Names

__all__ = ["DecisionFeed", "FeedReader"]

_log: Final = logging.getLogger(__name__)

KEPT: Final = 20_000
"""Decisions that are kept in memory: some 20 MB, and a page that was away for 20 s at 1,000 a second misses nothing."""
TOGETHER: Final = 0.05
"""Seconds for which what comes is collected into one message: a browser paints no faster."""
ROWS: Final = 500
"""Most decisions in one message."""
WAITING: Final = 64
"""Messages that wait for one reader: some three seconds."""
MAP_EVERY: Final = 0.5
QUEUES: Final = 32
"""Queues of approvals that are remembered."""
AGAIN: Final = Backoff(initial_interval=0.5, maximum_interval=10.0)

REPLY: Final = ".reply"


class _Message(NamedTuple):
    """What all readers get at a time; `last` is the sequence of the newest decision in it."""

    data: bytes
    rows: int


class FeedReader:
    """One reader's end of the feed."""

    def __init__(self, backlog: Sequence[_Message]) -> None:
        self._queue: deque[_Message] = deque(backlog)
        self._map = b""
        self._left_out = 0
        self._ended = False
        self._come = asyncio.Event()

    def offer(self, message: _Message) -> None:
        """Add a message, or count what is in it as left out."""
        if self._left_out or len(self._queue) >= WAITING:
            self._left_out += message.rows
        else:
            self._queue.append(message)
        self._come.set()

    def show(self, map_: bytes) -> None:
        """Replace the map."""
        self._map = map_
        self._come.set()

    def end(self) -> None:
        """End the reading after what waits."""
        self._ended = True
        self._come.set()

    async def next(self) -> bytes | None:
        """Return what has come, once there is something; None at the end."""
        while not (self._queue or self._map or self._left_out or self._ended):
            self._come.clear()
            await self._come.wait()
        parts = [one.data for one in self._queue]
        self._queue.clear()
        if self._left_out:
            parts.append(event("gap", {"left_out": self._left_out}))
            self._left_out = 0
        if self._map:
            parts.append(self._map)
            self._map = b""
        return b"".join(parts) or None


class DecisionFeed:
    """Reads the audit stream; `trail` opens it behind a sequence. `edges` are the names of the edges."""

    def __init__(
        self,
        trail: Callable[[int], AuditTrail],
        *,
        names: Names,
        edges: Sequence[str],
        after: int,
        kept: int = KEPT,
        again: Backoff = AGAIN,
        clock: Clock = wall_clock,
    ) -> None:
        self._again = again
        self._trail = trail
        self._names = names
        self._edges = tuple(edges)
        self._after = after
        self._clock = clock
        self._rows: deque[DecisionRow] = deque(maxlen=kept)
        self._outcomes: OrderedDict[bytes, OutcomeRow] = OrderedDict()
        self._kept = kept
        self._fresh: list[DecisionRow | OutcomeRow] = []
        self._come = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._failures = 0
        self._readers: set[FeedReader] = set()
        self.traffic = Traffic()
        self.states: Mapping[str, str] = {}
        """The agents that the broker knows, and how they are."""
        self.queues: OrderedDict[str, None] = OrderedDict()
        """Queues of approvals that decisions have named."""
        self.unverified: Counter[str] = Counter()
        """Records that do not verify, by code."""
        self.problem = ""
        """Why the stream is not read now; empty if it is."""

    @property
    def last(self) -> int:
        """The sequence of the last message that was read."""
        return self._after

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._readers)

    def rows(self) -> Iterator[DecisionRow]:
        """Yield the decisions in memory, the newest first."""
        return reversed(self._rows)

    def outcome(self, record: bytes) -> OutcomeRow | None:
        """Return what came of the decision with this record, as far as that is in memory."""
        return self._outcomes.get(record)

    async def run(self) -> None:
        """Read until cancelled; a stream that cannot be read is tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(), name="console-read")
            group.create_task(self._tell(), name="console-tell")
            group.create_task(self._draw(), name="console-map")

    @contextmanager
    def reading(self, after: int | None = None) -> Iterator[FeedReader]:
        """Give a reader of what comes from now on; with `after`, of what is in memory behind that sequence, too."""
        # What has come belongs to those who were here; the new one gets it with the rest.
        self._give()
        backlog: list[_Message] = [_Message(event("hello", {"sequence": self._after, "window": 60}), 0)]
        known = [row for row in self._rows if after is not None and row.sequence > after]
        if after is not None and self._rows and self._rows[0].sequence > after + 1 and len(self._rows) == self._kept:
            backlog.append(_Message(event("gap", {"left_out": self._rows[0].sequence - after - 1}), 0))
        known = known[-ROWS:] if after is not None else list(self._rows)[-ROWS:]
        backlog += _messages(known)
        backlog += _messages([self._outcomes[row.record] for row in known if row.record in self._outcomes])
        reader = FeedReader(backlog)
        reader.show(self._map())
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def recovered(self) -> None:
        """Take note that the broker answers: nothing is wrong where nothing comes."""
        if self._reading is not None and not self._reading.done():
            self.problem = ""

    def begin_again(self) -> None:
        """Read from the beginning of the stream that takes records now: a new period has begun, with sequences of its own."""
        self._rows.clear()
        self._outcomes.clear()
        self._after = 0
        if self._reading is not None:
            self._reading.cancel()

    def end(self) -> None:
        """End all readers."""
        for reader in self._readers:
            reader.end()

    def take(self, entry: AuditEntry | Finding) -> None:
        """Take one entry of the stream."""
        self._after = max(self._after, entry.sequence)
        if isinstance(entry, Finding):
            self.unverified[entry.code] += 1
            return
        if isinstance(entry.record, DecisionRecord) and (queue := approval_queue(entry.record)):
            self.queues[queue] = None
            self.queues.move_to_end(queue)
            if len(self.queues) > QUEUES:
                self.queues.popitem(last=False)
        row = row_of(entry, self._names)
        if row is not None:
            self.add(row)

    def add(self, row: DecisionRow | OutcomeRow) -> None:
        """Show a row to who reads, and keep it for who comes."""
        if isinstance(row, DecisionRow):
            self._rows.append(row)
            # An answer is decided by who asked: it is no request of the agent that gives it.
            if not (row.allow and row.action.endswith(REPLY)):
                second = row.time // SECOND
                self.traffic.add(row.sender, row.decider, allow=row.allow, second=second, count=row.times)
        else:
            self._outcomes[row.record] = row
            if len(self._outcomes) > self._kept:
                self._outcomes.popitem(last=False)
        self._fresh.append(row)
        self._come.set()

    async def _read(self) -> None:
        while True:
            self._reading = asyncio.create_task(self._follow(), name="console-follow")
            try:
                await asyncio.wait([self._reading])
            finally:
                self._reading.cancel()
                [ended] = await asyncio.gather(self._reading, return_exceptions=True)
            if isinstance(ended, asyncio.CancelledError):
                # A new period has begun.
                continue
            if ended is not None and not isinstance(ended, BusUnavailable | ConfigurationError):
                raise ended
            self.problem = (ended.detail or str(ended.code)) if ended is not None else "the stream has ended"
            self._failures += 1
            pause = self._again.interval(self._failures)
            _log.warning("console: the audit stream cannot be read: %s; again in %.1f s", self.problem, pause)
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        async with aclosing(self._trail(self._after).entries(follow=True)) as entries:
            async for entry in entries:
                self.take(entry)
                self._failures, self.problem = 0, ""

    async def _tell(self) -> None:
        while True:
            await self._come.wait()
            await asyncio.sleep(TOGETHER)
            self._give()

    def _give(self) -> None:
        """Give what has come since the last time to all readers."""
        fresh, self._fresh = self._fresh, []
        self._come.clear()
        for message in _messages(fresh) if self._readers else ():
            for reader in self._readers:
                reader.offer(message)

    async def _draw(self) -> None:
        while True:
            await asyncio.sleep(MAP_EVERY)
            if self._readers:
                drawn = self._map()
                for reader in self._readers:
                    reader.show(drawn)

    def _map(self) -> bytes:
        document = self.traffic.document(self._clock() // SECOND, self.states, self._edges)
        drawn: MapDocument = {**document, "unverified": self.unverified.total(), "problem": self.problem}
        return event("map", {**drawn})


def _messages(rows: Sequence[DecisionRow | OutcomeRow]) -> list[_Message]:
    """Return `rows` as messages, decisions before outcomes."""
    decisions = [row for row in rows if isinstance(row, DecisionRow)]
    outcomes = [row for row in rows if isinstance(row, OutcomeRow)]
    found = []
    for start in range(0, len(decisions), ROWS):
        some = decisions[start : start + ROWS]
        found.append(_Message(_event("decisions", some, some[-1].sequence), len(some)))
    found += [
        _Message(_event("outcomes", outcomes[start : start + ROWS]), 0) for start in range(0, len(outcomes), ROWS)
    ]
    return found


def _event(name: str, rows: Sequence[DecisionRow | OutcomeRow], number: int | None = None) -> bytes:
    data = json.dumps({"rows": [row.document() for row in rows]}, separators=(",", ":"))
    head = f"event: {name}\n" if number is None else f"event: {name}\nid: {number}\n"
    return f"{head}data: {data}\n\n".encode()
