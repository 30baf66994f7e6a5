"""Wakes readings of statuses when something was stored for them: one consumer for all, in place of one for each.

A reading that follows a task holds a consumer at the server for as long as the task is open. Who follows thousands, as an
edge does, holds one for all of them instead, which delivers headers alone; a reading then reads what is there, ends its
consumer, and waits here. What the feed says is a hint: a reading that it wakes verifies everything as always.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from sealbus.bus.background import Background
from sealbus.bus.ports import Clock, Transport
from sealbus.bus.stream_names import RESULTS
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["StatusFeed", "Watch"]

_log: Final = logging.getLogger(__name__)

READINGS: Final = 256
"""Readings that read at a time: each has a consumer while it does. Others wait for their turn."""
_AGAIN: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


@dataclass(slots=True, eq=False)
class Watch:
    """One reading that waits. `sequence` is the highest stream sequence that was stored for it since it began to watch."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0


class StatusFeed:
    """The news of all tasks of one requester, whose statuses have subjects of the form `subjects`. Use with `async with`."""

    def __init__(self, transport: Transport, subjects: str, *, clock: Clock) -> None:
        self._transport = transport
        self._subjects = subjects
        self._clock = clock
        self._watches: dict[str, set[Watch]] = {}
        self._since = 0
        self.slots: Final = asyncio.Semaphore(READINGS)
        self._group = Background()

    async def __aenter__(self) -> Self:
        # What is stored from now on, by a broker whose clock may be behind ours.
        self._since = self._clock() - DEFAULT_LIMITS.clock_skew
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run(), name="status-feed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await self._group.__aexit__(kind, error, trace)

    @contextmanager
    def watching(self, subject: str) -> Iterator[Watch]:
        """Watch the statuses of one task. Whatever is stored after this began wakes the watch, once the server is reached."""
        watch = Watch()
        self._watches.setdefault(subject, set()).add(watch)
        try:
            yield watch
        finally:
            others = self._watches[subject]
            others.remove(watch)
            if not others:
                del self._watches[subject]

    async def _run(self) -> None:
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
                                self._wake(delivery.subject, delivery.arrival.sequence)
            except (BusUnavailable, ConfigurationError) as error:
                _log.warning("news of statuses: %s", error.detail)
            failures += 1
            await asyncio.sleep(_AGAIN.interval(failures))

    def _wake(self, subject: str, sequence: int) -> None:
        for watch in self._watches.get(subject, ()):
            watch.sequence = max(watch.sequence, sequence)
            watch.news.set()
