"""The pull consumer: yields batches from one durable consumer, straight from the read loop, and settles them in one write.

::

    server --deliveries--> pull requests (two, overlapping) --> buffer (bounded) --> batches()
    ack, retry, term, working --> one write on the current link

Nothing runs in the background: the read loop fills and renews pull requests, and everything else happens while a caller
waits in `batches()`. A link that is being replaced keeps its pull requests until they have ended, while the new link already
makes its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from sealbus.bus.nats.acks import Acks, AckSubjects
from sealbus.bus.nats.api import existing_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.consumer_binding import ConsumerBinding
from sealbus.bus.nats.durable_consumer import DurableSpec, consumer_load
from sealbus.bus.nats.pull_requests import PullRequest, PullRequests
from sealbus.bus.nats.reach import NatsCell
from sealbus.bus.ports import AckFloors, ConsumerLoad, Delivery
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.message.freshness import StreamArrival

_logger = logging.getLogger(__name__)

FRESH = 0.9
"""Share of `ack_wait` after which a delivery that waits here is dropped, because the server is about to redeliver it."""

FLUSH_SECONDS = 5.0


class NatsPull:
    """The `Pull` port on NATS. Use one iteration of `batches()` at a time; deliveries may be settled at any time."""

    def __init__(
        self, connection: Connection, spec: DurableSpec, *, batch: int, floors: AckFloors | None = None
    ) -> None:
        if batch < 1:
            raise ConfigurationError(f"consumer {spec.name}: batch must be at least 1")
        self._connection = connection
        self._spec = spec
        cell = NatsCell(connection, spec.cell)
        self._request = cell.request
        self._binding = ConsumerBinding(self._request, spec, floors)
        self._batch = batch
        self._pulls = PullRequests(
            f"{spec.prefix}$JS.API.CONSUMER.MSG.NEXT.{spec.stream}.{spec.name}",
            PullRequest(batch=batch),
            connection.inbox_prefix,
            deliver=self._deliver,
            ended=self._ended,
            refused=self._refuse,
            waiting=lambda: len(self._buffer),
        )
        self._ack_subjects = AckSubjects(spec.stream, spec.name)
        self._open = False
        self._links: list[Link] = []
        self._verified: Link | None = None
        self._buffer: deque[tuple[float, Delivery]] = deque()
        self._acks = Acks(connection)
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._created = 0
        self._prefix = spec.prefix
        self._settled = 0
        """How many times something was settled."""
        self._kept: tuple[int, int] = (-1, -1)
        """The same at the last two times when the floor was stored; negative if the consumer was bound since."""
        self._floor = 0
        self._most = 0
        self._failures = 0
        self._pause_until = 0.0
        self._refused = ""

    @property
    def unsettled(self) -> int:
        """How many deliveries are not settled, whether yielded or waiting."""
        return len(self._acks)

    async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Yield the deliveries that have arrived (`Pull.batches`) until the connection is closed.

        Raises `ConfigurationError` if the stream or consumer is not as required at the start, and `BusUnavailable` if the
        server does not permit our inbox. After all other failures it waits and tries again.
        """
        self._open = True
        try:
            await self._connection.attach(self)
            while not self._connection.closed:
                self._arrived.clear()
                if batch := self._take():
                    yield batch
                    continue
                if self._refused:
                    raise BusUnavailable(self._refused)
                await self._verify()
                self._ask()
                # No timeout, whose exception costs an idle agent more than all else here.
                alarm = self._loop.call_at(self._look_again(), self._arrived.set)
                try:
                    await self._arrived.wait()
                finally:
                    alarm.cancel()
        finally:
            self._connection.detach(self)
            self._close()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge finally, once, in one write with all deliveries settled in this turn; without a connection, later."""
        self._settled += 1
        self._acks.settle([delivery.token for delivery in deliveries], "+ACK")

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Ask for redelivery after `delay` seconds."""
        self._acks.again([delivery.token], f'-NAK {{"delay": {max(0, int(delay * 1e9))}}}', delay=delay)

    def term(self, delivery: Delivery) -> None:
        """Terminate the delivery without handling it, or not again."""
        self._settled += 1
        self._acks.give_up(delivery.token, delivery.sequence, "+TERM")

    def working(self, delivery: Delivery) -> None:
        """Make the broker wait another `ack_wait` from now."""
        self._acks.touch(delivery.token)

    async def load(self) -> ConsumerLoad:
        """Return what the consumer holds, without the deliveries that are open here.

        If another version has lowered the consumer's bound, it is about to be raised again, and counts as before. Raises
        `BusUnavailable`.
        """
        load = await consumer_load(self._request, self._spec.stream, self._spec.name)
        if load.most < self._most:
            self._verified = None
            self._arrived.set()
        return ConsumerLoad(unsettled=max(0, load.unsettled - len(self._acks)), most=max(load.most, self._most))

    async def keep_floor(self) -> None:
        """Store how far the consumer was acknowledged, if something was settled here (`ConsumerBinding.keep_floor`)."""
        settled = self._settled
        # Twice, because the server counts an acknowledgement a little after it has come.
        if self._kept != (settled, settled):
            await self._binding.keep_floor()
            self._kept = self._kept[1], settled

    def enter(self, link: Link) -> None:
        """Open pull requests on `link`; they are sent once the consumer was checked."""
        self._pulls.open(link)
        self._links.append(link)
        self._pulls.asking = False
        self._failures = 0
        self._pause_until = 0.0
        self._acks.pay(link)
        self._arrived.set()

    async def leave(self, link: Link) -> None:
        """Wait until the requests on `link` have ended, then withdraw."""
        await self._pulls.finish(link, FLUSH_SECONDS)
        self.lost(link)

    def lost(self, link: Link) -> None:
        """Forget the pull requests on `link`."""
        self._pulls.close(link)
        if link in self._links:
            self._links.remove(link)
        self._arrived.set()

    def _take(self) -> list[Delivery]:
        oldest = self._loop.time() - FRESH * self._spec.ack_wait
        batch: list[Delivery] = []
        while self._buffer and len(batch) < self._batch:
            arrived, delivery = self._buffer.popleft()
            if arrived < oldest:
                self._acks.drop(delivery.token)
                self._count("stale")
            else:
                batch.append(delivery)
        if batch:
            self._ask()
        return batch

    def _ask(self) -> None:
        newest = self._links[-1] if self._links else None
        verified = newest is not None and newest is self._verified
        self._pulls.asking = verified and self._loop.time() >= self._pause_until
        self._pulls.ask()

    def _deliver(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        ack = self._ack_subjects.parse(reply)
        if ack is None:
            self._count("stray")
            return
        token = self._prefix + reply.decode()
        text = subject.decode("ascii", "backslashreplace")
        delivered, sequence, _, stored, _ = ack
        # Positional arguments: keywords would cost as much as the rest.
        arrival = StreamArrival(
            text, block, self._spec.stream, sequence, stored, self._created, delivered, self._spec.cell
        )
        delivery = Delivery(text, payload, block, arrival, token)
        self._acks.add(token, sequence)
        if not self._open:
            self._acks.again([token], "-NAK")
            return
        self._floor = max(self._floor, sequence)
        self._buffer.append((self._loop.time(), delivery))
        self._failures = 0
        self._arrived.set()

    def _ended(self, status: int, text: str) -> None:
        """Continue after a request: at once if it was filled or ran out, after a pause if something is wrong."""
        if status in (0, 404, 408) or "MaxBytes" in text or "Batch Completed" in text:
            # The caller has nothing to do: what has arrived was announced by itself.
            self._ask()
            return
        self._arrived.set()
        self._count("pull")
        if status == 503 or "Deleted" in text:
            self._verified = None
        self._pause(f"pull request ended: {status} {text}" if status != 503 else "no such consumer, or no JetStream")

    def _pause(self, reason: str) -> None:
        self._failures += 1
        pause = self._connection.options.backoff.interval(self._failures, random.random())  # noqa: S311  # no secret
        self._pause_until = self._loop.time() + pause
        _logger.warning("consumer %s of %s: %s", self._spec.name, self._spec.stream, reason)

    def _refuse(self, text: str) -> None:
        self._refused = text
        self._arrived.set()

    def _count(self, reason: str) -> None:
        self._connection.counters.add("sealbus_bus_dropped_total", 1, reason=reason)

    def _look_again(self) -> float:
        """Return when to look again if nothing arrives: by then a request may be forgotten, or a pause over."""
        now = self._loop.time()
        if self._pulls.replace_silent(now):
            self._count("silent")
            return now
        silent = self._pulls.silent_at()
        times = [silent] if silent is not None else []
        if self._pause_until > now:
            times.append(self._pause_until)
        return min(times, default=now + 60.0)

    async def _verify(self) -> None:
        """Check at the start and on every new link that stream and consumer are as required."""
        link = self._links[-1] if self._links else None
        if link is None or self._verified is link or self._loop.time() < self._pause_until:
            return
        try:
            state = await existing_stream(self._request, self._spec.stream)
            if state.created != self._created:
                self._floor = 0
            bound = await self._binding.bind(state, self._start())
        except SealbusError as error:
            if not self._created and isinstance(error, ConfigurationError):
                raise
            self._pause(error.detail)
            return
        self._created = state.created
        self._floor = max(self._floor, bound.ack_floor)
        self._most = bound.load.most
        self._verified = link
        self._kept = (-1, -1)
        self._failures = 0

    def _start(self) -> int:
        """Return the lowest sequence that is not settled, as far as this process knows; 0 if it knows of none."""
        return self._acks.lowest(self._floor + 1) if self._floor else 0

    def _close(self) -> None:
        """Return the waiting deliveries, and those that still arrive, so that another replica gets them at once."""
        self._open = False
        unread = [delivery.token for _, delivery in self._buffer]
        self._buffer.clear()
        for link in list(self._links):
            self.lost(link)
        self._acks.again(unread, "-NAK")
        self._acks.flush()
        self._verified = None
