"""Wakes readings of statuses when a status was stored for them: one consumer for all readings, in place of one for each.

A reading that follows a task holds a consumer at the server for as long as the task is open. An edge follows thousands of
tasks, so it holds one consumer for all of them, which delivers headers alone. Each reading reads what is stored, ends its own
consumer, and waits here. The feed only gives hints: a reading that it wakes verifies everything as always.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from sealbus.bus.background import Background
from sealbus.bus.ports import Delivery
from sealbus.bus.site import Site
from sealbus.bus.stream_names import RESULTS
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.trust.caches import BoundedMap

_logger: Final = logging.getLogger(__name__)

READINGS: Final = 256
"""Readings that read at a time, with a consumer each. Others wait for their turn."""
HELD_SECONDS: Final = 1.0
"""Seconds that a turn lasts while its consumer handles a status: a slow consumer does not hold up other readings."""
_RECENT: Final = 16_384
"""Tasks whose newest status is remembered: those of some seconds, which is longer than a replica is behind."""
_AGAIN: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


@dataclass(slots=True, eq=False)
class Watch:
    """A reading that waits. `sequence` is the highest stream sequence of its task that the feed knows.

    It belongs to the stream that was created at `created` (microseconds); a stream that is created again counts from 1.
    """

    news: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0
    created: int = 0


class ReadingTurn:
    """A turn to read `source`, one of `slots` at a time. Use with `async with`, which closes `source`."""

    def __init__(self, source: AsyncGenerator[Sequence[Delivery], None], slots: asyncio.Semaphore | None) -> None:
        self.batches: Final = source
        self.held: Final = deque[Delivery]()
        """Deliveries that were read and not looked at yet. They are dropped with the turn, and read again later."""
        self._slots = slots
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._slots is not None:
            await self._slots.acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closing is not None:
            await self._closing
            return
        if self._slots is not None:
            self._slots.release()
        await self.batches.aclose()

    @property
    def over(self) -> bool:
        """Whether the turn ended because a status was not handled in time."""
        return self._closing is not None

    @contextmanager
    def giving(self) -> Iterator[None]:
        """Enter while the consumer handles a status. After `HELD_SECONDS` the turn ends, and another reading has it."""
        if self._slots is None:
            yield
            return
        timer = asyncio.get_running_loop().call_later(HELD_SECONDS, self._end, self._slots)
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, slots: asyncio.Semaphore) -> None:
        self.held.clear()
        slots.release()
        self._closing = asyncio.ensure_future(self.batches.aclose())


class StatusFeed:
    """Tells readings that a status of one of the tasks of the process's identity was stored. Enter with `async with`."""

    def __init__(self, site: Site) -> None:
        self._transport = site.transport
        self._subjects = f"status.{site.token}.*"
        self._clock = site.bus_clock
        self._watches: dict[str, set[Watch]] = {}
        self._recent: BoundedMap[str, int] = BoundedMap(_RECENT)
        self._created = 0
        self._since = 0
        self.slots: Final = asyncio.Semaphore(READINGS)
        self._group = Background()

    async def __aenter__(self) -> Self:
        # Statuses from now on; the clock of the broker may be behind ours.
        self._since = self._clock() - DEFAULT_LIMITS.clock_skew
        await self._group.__aenter__()
        self._task = self._group.create_task(self._follow(), name="status-feed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await self._group.__aexit__(kind, error, trace)

    @contextmanager
    def watching(self, subject: str) -> Iterator[Watch]:
        """Watch the statuses of one task. Each that is stored from now on sets `news`, once the server is reached.

        `sequence` also counts statuses of just before: the replica that is read may not have them yet.
        """
        watch = Watch(sequence=self._recent.get(subject) or 0, created=self._created)
        self._watches.setdefault(subject, set()).add(watch)
        try:
            yield watch
        finally:
            others = self._watches[subject]
            others.remove(watch)
            if not others:
                del self._watches[subject]

    async def _follow(self) -> None:
        failures = 0
        while True:
            source = self._transport.read(RESULTS, [self._subjects], since=self._since, follow=True, headers_only=True)
            try:
                async with aclosing(source) as batches:
                    async for batch in batches:
                        failures = 0
                        for delivery in batch:
                            if delivery.arrival is not None:
                                self._since = max(self._since, delivery.arrival.stored)
                                self._wake(delivery.subject, delivery.arrival)
            except (BusUnavailable, ConfigurationError) as error:
                _logger.warning("news of statuses: %s", error.detail)
            failures += 1
            await asyncio.sleep(_AGAIN.interval(failures))

    def _wake(self, subject: str, arrival: StreamArrival) -> None:
        if arrival.created != self._created:
            self._created = arrival.created
            self._recent.clear()
        self._recent.put(subject, arrival.sequence)
        for watch in self._watches.get(subject, ()):
            known = watch.sequence if watch.created == arrival.created else 0
            watch.sequence, watch.created = max(known, arrival.sequence), arrival.created
            watch.news.set()
