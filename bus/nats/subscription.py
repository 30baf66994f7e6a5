"""Subscriptions on core NATS that survive rotations: listening, and answering a bounded number of requests at a time.

While a link is replaced, both links are subscribed; nothing is lost or duplicated, and each sender's order is kept. In a
queue group the server gives each message to one link. Without a queue group both links get it: deliveries of the older link
are yielded, and those of the newer link held back. Once the older link has ended, the held deliveries that it lacked are
yielded.

`Responder` answers requests of the broker itself, above all the auth callout, on the link that each came on. No envelopes are
involved: the account's permissions and the handler decide who may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

from sealbus.bus.background import Background
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.frames import check_pattern, publish_frame
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.ports import Delivery, Outgoing
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

FLUSH_SECONDS = 5.0

PENDING_BYTES = 67_108_864
"""Most payload bytes that wait for one listener, beside its bound on messages."""

_logger: Final = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 2.0
"""Seconds to answer earlier requests when a responder is left. Others of its group answer later requests."""


@dataclass(slots=True)
class _Stage:
    """One link's part of a listener, with counts by message content.

    `seen` counts messages that this link delivered while a newer link was subscribed too. `late` counts messages that an
    older link has delivered and this link may still deliver.
    """

    link: Link
    sid: int
    held: deque[Delivery] = field(default_factory=deque)
    seen: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)


class _Listener:
    """Collects the deliveries of one subscription, over as many links as there are at the moment."""

    def __init__(self, subject: str, queue: str, *, pending: int, overlap: float, dropped: Callable[[], None]) -> None:
        self._subject = subject
        self._queue = queue
        self._pending = pending
        self._overlap = overlap
        self._dropped = dropped
        self._stages: list[_Stage] = []
        self._waiting: deque[Delivery] = deque()
        self._bytes = 0
        self.arrived = asyncio.Event()
        self.refused = ""

    def take_batch(self) -> list[Delivery]:
        """Return the waiting deliveries, and clear them."""
        self.arrived.clear()
        batch = list(self._waiting)
        self._waiting.clear()
        self._bytes = sum(len(delivery.payload) for stage in self._stages for delivery in stage.held)
        return batch

    def enter(self, link: Link) -> None:
        stage = _Stage(link, 0)
        stage.sid = link.subscribe(
            self._subject, partial(self._deliver, stage), queue=self._queue, refused=self._refuse
        )
        self._stages.append(stage)

    async def leave(self, link: Link) -> None:
        stage = self._stage(link)
        if stage is None:
            return
        link.unsubscribe(stage.sid)
        # Messages that the server sent before it saw the end of the subscription arrive before the answer to the PING.
        await link.flush(FLUSH_SECONDS)
        if self._stage(link) is not stage:
            return  # it was lost or closed meanwhile
        self._end(stage)
        if self._stages and self._stages[0].late:
            # The copies of the newer link may come later, perhaps over another server.
            following = self._stages[0]
            await asyncio.sleep(self._overlap)
            await following.link.flush(FLUSH_SECONDS)
            following.late.clear()

    def lost(self, link: Link) -> None:
        stage = self._stage(link)
        if stage is not None:
            self._end(stage)
        self.arrived.set()

    def close(self) -> None:
        """End the subscription on every link."""
        for stage in self._stages:
            stage.link.unsubscribe(stage.sid)
            stage.link.forget(stage.sid)
        self._stages.clear()

    def _stage(self, link: Link) -> _Stage | None:
        return next((stage for stage in self._stages if stage.link is link), None)

    def _refuse(self, text: str) -> None:
        self.refused = text
        self.arrived.set()

    def _deliver(self, stage: _Stage, subject: bytes, _: bytes, block: bytes, payload: bytes) -> None:
        delivery = Delivery(subject=subject.decode("ascii", "backslashreplace"), payload=payload, header_block=block)
        if not self._queue and stage is not self._stages[-1]:
            stage.seen[_key(delivery)] += 1
        if stage.late and _once(stage.late, _key(delivery)):
            return
        into = self._waiting if self._queue or stage is self._stages[0] else stage.held
        if len(into) >= self._pending or self._bytes + len(payload) > PENDING_BYTES:
            self._dropped()
            return
        into.append(delivery)
        self._bytes += len(payload)
        self.arrived.set()

    def _end(self, stage: _Stage) -> None:
        """Remove `stage`. If it was the oldest, pass on the held deliveries of the next that this one lacked."""
        stage.link.forget(stage.sid)
        oldest = self._stages[0] is stage
        self._stages.remove(stage)
        if self._queue or not oldest or not self._stages:
            return
        following = self._stages[0]
        following.late = stage.seen
        for delivery in following.held:
            if _once(following.late, _key(delivery)):
                continue
            if len(self._waiting) < self._pending:
                self._waiting.append(delivery)
            else:
                self._dropped()
        following.held.clear()
        self.arrived.set()


def _once(counts: Counter[int], key: int) -> bool:
    """Return whether `key` is still counted, and decrement it."""
    left = counts.get(key, 0)
    if left > 1:
        counts[key] = left - 1
    elif left:
        del counts[key]
    return left > 0


def _key(delivery: Delivery) -> int:
    return hash((delivery.subject, delivery.header_block, delivery.payload))


async def listen(
    connection: Connection, subject: str, *, queue: str, pending: int, live: asyncio.Event | None = None
) -> AsyncGenerator[Sequence[Delivery], None]:
    """Yield the messages that arrive on `subject`, at least one at a time, until the connection is closed.

    `live` is set once the server has seen the subscription. If more than `pending` messages or `PENDING_BYTES` wait, the
    newest are dropped and counted. Raises `BusUnavailable` if the server does not permit the subscription,
    `ConfigurationError` for an invalid subject.
    """
    check_pattern(subject)
    if queue:
        check_pattern(queue)
    listener = _Listener(
        subject,
        queue,
        pending=pending,
        overlap=connection.options.overlap,
        dropped=lambda: connection.counters.add("sealbus_bus_dropped_total", 1, reason="slow"),
    )
    try:
        await connection.attach(listener)
        if live is not None:
            live.set()
        while True:
            await listener.arrived.wait()
            if batch := listener.take_batch():
                yield batch
            elif listener.refused:
                raise BusUnavailable(listener.refused)
            elif connection.closed:
                return
    finally:
        connection.detach(listener)
        listener.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived, unverified. `arrived` is the event loop's time."""

    payload: bytes = field(repr=False)
    header_block: bytes = field(repr=False)
    arrived: float


@dataclass(frozen=True, slots=True)
class _Pending:
    asked: Asked
    reply: str
    link: Link


class Responder:
    """Serves `subject` in the queue group `queue` while entered; `answer` returns the answer's payload.

    If `answer` returns `None` there is no answer. An exception of `answer` is logged, and the requester times out. At most
    `concurrency` requests are answered at a time and `pending` wait; `overloaded` is called for each further request. Leaving
    takes no new requests, and answers the earlier ones for at most two seconds. `refused` is not empty once the server has
    refused the subscription.
    """

    def __init__(
        self,
        connection: Connection,
        subject: str,
        *,
        queue: str,
        answer: Callable[[Asked], Awaitable[bytes | None]],
        concurrency: int,
        pending: int,
        overloaded: Callable[[], None],
    ) -> None:
        check_pattern(subject)
        check_pattern(queue)
        if concurrency < 1 or pending < 1:
            raise ConfigurationError("concurrency and pending of a responder must be at least 1")
        self._connection = connection
        self._subject = subject
        self._queue = queue
        self._answer = answer
        self._concurrency = concurrency
        self._pending = pending
        self._overloaded = overloaded
        self._links: dict[Link, int] = {}
        self._waiting: deque[_Pending] = deque()
        self._arrived = asyncio.Event()
        self._busy = 0
        self._idle = asyncio.Event()
        self._group = Background()
        self._workers: list[asyncio.Task[None]] = []
        self.refused = ""

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._workers = [self._group.create_task(self._work(), name="answering") for _ in range(self._concurrency)]
        try:
            await self._connection.attach(self)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.detach(self)
        try:
            await self._drain()
        finally:
            for link, sid in self._links.items():
                link.forget(sid)
            self._links.clear()
            for worker in self._workers:
                worker.cancel()
            await self._group.__aexit__(None, None, None)

    def enter(self, link: Link) -> None:
        """Subscribe on `link`; the server gives each request to one link of the group."""
        self._links[link] = link.subscribe(
            self._subject, partial(self._take, link), queue=self._queue, refused=self._refuse
        )

    async def leave(self, link: Link) -> None:
        """Unsubscribe from `link`; earlier requests are answered on it, unless it ends first."""
        sid = self._links.pop(link, None)
        if sid is not None:
            link.unsubscribe(sid)
            await link.flush(FLUSH_SECONDS)
            link.forget(sid)

    def lost(self, link: Link) -> None:
        """Forget `link`."""
        self._links.pop(link, None)

    async def _drain(self) -> None:
        """Unsubscribe everywhere, and wait until all earlier requests are answered or their time is over."""
        for link, sid in self._links.items():
            link.unsubscribe(sid)
        with contextlib.suppress(TimeoutError, BusUnavailable):
            async with asyncio.timeout(DRAIN_SECONDS):
                for link in tuple(self._links):
                    await link.flush(DRAIN_SECONDS)
                while self._waiting or self._busy:
                    self._idle.clear()
                    await self._idle.wait()
                for link in tuple(self._links):
                    await link.flush(DRAIN_SECONDS)

    def _refuse(self, text: str) -> None:
        self.refused = text

    def _take(self, link: Link, _: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        if not reply:
            return
        if len(self._waiting) >= self._pending:
            self._overloaded()
            return
        request = Asked(payload=payload, header_block=block, arrived=asyncio.get_running_loop().time())
        self._waiting.append(_Pending(request, reply.decode("ascii", "backslashreplace"), link))
        self._arrived.set()

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            waiting = self._waiting.popleft()
            self._busy += 1
            try:
                answer = await self._answer(waiting.asked)
                if answer is not None:
                    waiting.link.write(publish_frame(Outgoing(subject=waiting.reply, payload=answer)))
            except (BusUnavailable, ConfigurationError) as error:
                # The link is gone and its requests with it, or the reply subject is invalid.
                _logger.info("%s: not answered: %s", self._subject, error.detail)
            except Exception:
                # One request's failure must not end the responder.
                _logger.exception("%s: not answered", self._subject)
            finally:
                self._busy -= 1
                self._idle.set()
