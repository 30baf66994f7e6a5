"""The connection of one workload to NATS: one live link, replaced before its certificate expires and after it is lost.

Both cases are the same: a new link is made, all attachments enter it, publishers move to it, and the old link, if it is
alive, is left once no more messages or answers are expected from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random as random_module
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from weakref import WeakSet

from sealbus.bus.clocks import HOST_CLOCK, HostClock
from sealbus.bus.nats.connection.dialer import Dialer
from sealbus.bus.nats.connection.frames import check_pattern, header_value, status_of
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.connection.rotation import Attachment, enter_all, leave_all, rotate_after, seconds_left
from sealbus.bus.ports import Identity, NotLetIn
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, SealbusError
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger = logging.getLogger(__name__)

API_SECONDS = 5.0
"""Seconds for one answer of the JetStream API."""

NO_RESPONDER_PAUSE = 0.25
"""Seconds until a message that no subscriber took is sent again: while nats-server reloads, it knows of none."""

NO_RESPONDER_RETRIES = 2
"""How often it is sent again. Both values are those of nats.go's own publisher."""

ENTER_SECONDS = 5.0
"""Seconds until a link's server has seen the subscriptions of those that enter it."""

FOLLOW = 1.0
"""Most seconds that a new link waits for the writes of the old one; beyond that order is given up."""

LOOK_AGAIN = 5.0
"""Seconds between checks of the identity after a certificate's half-life, when its callback should have come."""


class Connection:
    """The connection. Entering it (`async with`) raises if no server can be reached; later it reconnects until it is left.

    `servers` are `tls://host:port`. `server_ids` are the SPIFFE IDs that a server may have, all of one trust domain.
    `inbox_prefix` is the prefix that we may subscribe to for answers, with its final dot (`Names.inbox_prefix`).
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        identity: Identity,
        server_ids: frozenset[SpiffeId],
        inbox_prefix: str,
        options: ConnectionOptions | None = None,
        counters: Counters | None = None,
        clock: HostClock = HOST_CLOCK,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.options = options or ConnectionOptions()
        self.counters = counters or Counters()
        self.inbox_prefix = inbox_prefix
        self._dialer = Dialer(
            servers,
            identity=identity,
            server_ids=server_ids,
            inbox_prefix=inbox_prefix,
            options=self.options,
            counters=self.counters,
            clock=clock,
            random=random,
        )
        self._identity = identity
        self._clock = clock
        self._random = random
        self._link: Link | None = None
        self._links: WeakSet[Link] = WeakSet()
        """All links that may still be open."""
        self._attachments: list[Attachment] = []
        self._moving = asyncio.Lock()
        self._up = asyncio.Event()
        self._wake = asyncio.Event()
        self._asked = False
        self._rotate_at = 0.0
        self._attempts = 0
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        """The supervisor, and one task for each link that is being left."""
        self._unsubscribe: Callable[[], None] = lambda: None
        self.closed = False
        self.refused = False
        """Whether the server that was tried last does not let this workload in."""
        self._unshown: Callable[[], None] = lambda: None
        for reason in ("permissions", "slow"):
            self.counters.add("sealbus_bus_dropped_total", 0, reason=reason)

    async def __aenter__(self) -> Self:
        link = await self._dialer.dial_any(self._lost, self._lame_duck)
        self._links.add(link)
        await self._group.__aenter__()
        self._adopt(link)
        self._unshown = self.counters.gauges(
            "sealbus_bus_connected", ("connection",), lambda: {(self.options.name,): float(self.connected)}
        )
        self._unsubscribe = self._identity.on_rotation(self._wake.set)
        self._tasks.append(self._group.create_task(self._supervise(), name="connection"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        self._up.set()
        self._unsubscribe()
        self._unshown()
        for task in self._tasks if kind is not None else self._tasks[:1]:
            task.cancel()
        link = self._link
        if link is not None:
            for attachment in self._attachments:
                attachment.lost(link)
            # Not in the group, which would cancel it before it began if we leave because of an error.
            await leave_all((), link, overlap=0.0, seconds=self.options.settle if kind is None else 0.0)
        # The group would wrap the caller's error in an ExceptionGroup; it must know only of a cancellation.
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._group.__aexit__(kind, error, trace)
        else:
            await self._group.__aexit__(None, None, None)
        for left in tuple(self._links):
            await left.close()

    @property
    def link(self) -> Link:
        """The link to write to. Raises `BusUnavailable` while there is none."""
        link = self._link
        if link is None or not link.alive or self.closed:
            raise BusUnavailable(self.state)
        return link

    @property
    def connected(self) -> bool:
        """Whether there is a live link now."""
        return not self.closed and self._link is not None and self._link.alive

    @property
    def state(self) -> str:
        """One line for operators: where it is connected, or why it is not."""
        link = self._link
        if self.closed or link is None:
            return "the connection is closed"
        return f"connected to {link.url}" if link.alive else link.reason

    async def ready(self, seconds: float) -> Link:
        """Return the link to write to, waiting at most `seconds` for one. Raises `BusUnavailable`."""
        # Usually there is a link, and a timer would take longer than the rest.
        if self.connected:
            return self.link
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.closed and (self._link is None or not self._link.alive):
                    self._up.clear()
                    await self._up.wait()
        return self.link

    async def attach(self, attachment: Attachment) -> None:
        """Put `attachment` on the current link and every later link; return once the server has seen it."""
        async with self._moving:
            self._attachments.append(attachment)
            link = self._link
            if link is None or not link.alive:
                return  # it enters the next link
            try:
                await enter_all([attachment], link, ENTER_SECONDS)
            except BusUnavailable as error:
                link.cut(error.detail)

    def detach(self, attachment: Attachment) -> None:
        """Remove `attachment`, which ends its subscriptions itself."""
        with contextlib.suppress(ValueError):
            self._attachments.remove(attachment)

    def rotate(self) -> None:
        """Replace the current link soon, even if the identity has not changed."""
        self._asked = True
        self._wake.set()

    async def request(self, subject: str, payload: bytes, *, deadline: float) -> Answer:
        """Ask a service of the broker (the JetStream API) and return its answer within `deadline` seconds.

        Raises `BusUnavailable` for silence, no responder, a refused subject or a lost connection.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline
        link = await self.ready(deadline)
        return await ask(link, subject, payload, deadline=max(0.0, until - loop.time()))

    async def jetstream(self, subject: str, payload: bytes) -> bytes:
        """Ask the JetStream API (the port of `sealbus.bus.nats.api`), again if nobody heard it. Raises `BusUnavailable`."""
        for _ in range(NO_RESPONDER_RETRIES):
            try:
                return (await self.request(subject, payload, deadline=API_SECONDS)).payload
            except NoResponder:
                await asyncio.sleep(NO_RESPONDER_PAUSE)
        return (await self.request(subject, payload, deadline=API_SECONDS)).payload

    def _adopt(self, link: Link) -> None:
        """Make `link` the one to write to."""
        self._link = link
        self._asked = False
        self.refused = False
        self._rotate_at = 0.0
        self._attempts = 0
        self._up.set()

    def _lost(self, link: Link) -> None:
        for attachment in self._attachments:
            attachment.lost(link)
        self._wake.set()

    def _lame_duck(self, link: Link) -> None:
        if link is self._link:
            self.rotate()

    async def _supervise(self) -> None:
        """Keep one live link with a certificate that has not expired, until cancelled."""
        while True:
            self._wake.clear()
            link = self._link
            if link is None or not link.alive:
                await self._replace(None)
                continue
            left = seconds_left(link, self.options, self._clock())
            if left <= 0:
                self.counters.add("sealbus_bus_expired_total")
                link.cut("its client certificate expires and there is no newer one")
                continue
            pause = self._until_due(link)
            if pause <= 0:
                await self._replace(link)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, left)):
                    await self._wake.wait()

    def _until_due(self, link: Link) -> float:
        """Return the seconds until `link` is to be replaced, or checked again; 0 for now."""
        now = self._clock()
        monotonic = asyncio.get_running_loop().time()
        if not self._asked and not self._dialer.newer_than(link):
            self._rotate_at = 0.0
            half = (link.not_after - link.not_before) // 2
            return max(LOOK_AGAIN, (link.not_before + half - now) / 1e6)
        if not self._rotate_at:
            wait = 0.0 if self._asked else rotate_after(link, self.options, now, self._random)
            self._rotate_at = monotonic + wait
        return max(0.0, self._rotate_at - monotonic)

    async def _replace(self, old: Link | None) -> None:
        """Make one attempt to replace `old` while it may be used, or to reconnect if it is absent; pause after a failure."""
        left = None if old is None else max(0.0, seconds_left(old, self.options, self._clock()))
        try:
            link = await self._entered(old, left)
        except SealbusError as error:
            self.refused = isinstance(error, NotLetIn)
            self._attempts += 1
            pause = self.options.backoff.interval(self._attempts, self._random())
            self.counters.add("sealbus_bus_connect_failures_total")
            _logger.warning("%s: %s (attempt %d)", "rotation" if old else "reconnect", error.detail, self._attempts)
            if old is not None:
                self._rotate_at = asyncio.get_running_loop().time() + pause
            else:
                await asyncio.sleep(pause)
            return
        self.counters.add("sealbus_bus_rotations_total" if old else "sealbus_bus_reconnects_total")
        _logger.info("connected to %s", link.url)
        if old is not None:
            task = self._group.create_task(self._leave(old, link), name="leave-link")
            self._tasks.append(task)
            task.add_done_callback(self._tasks.remove)

    async def _entered(self, old: Link | None, within: float | None) -> Link:
        """Return a new link that everything has entered. Raises `BusUnavailable`, also after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                link = await self._dialer.dial(self._lost, self._lame_duck)
                self._links.add(link)
                try:
                    async with self._moving:
                        await enter_all(self._attachments, link, ENTER_SECONDS)
                        if old is not None:
                            link.hold()
                        self._adopt(link)
                except BaseException:
                    await link.close()
                    raise
        except TimeoutError as error:
            raise BusUnavailable("no other connection before the client certificate expires") from error
        return link

    async def _leave(self, old: Link, link: Link) -> None:
        seconds = min(self.options.settle, seconds_left(old, self.options, self._clock()))
        await link.follow(old, min(seconds, FOLLOW))
        await leave_all(tuple(self._attachments), old, overlap=self.options.overlap, seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of the broker: the raw header block, empty if there was none, and the payload."""

    header_block: bytes
    payload: bytes = field(repr=False)


class _Question:
    """Waits for one answer."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def subject_of(self, index: int) -> str:
        del index
        return self._subject

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        del index
        if not self.answer.done():
            self.answer.set_result(Answer(header_block=block, payload=payload))

    def failed(self, index: int, error: BusUnavailable) -> None:
        del index
        if not self.answer.done():
            self.answer.set_exception(error)


class NoResponder(BusUnavailable):
    """As far as the server knows, the subject has no subscriber: the message was not delivered."""


async def ask(link: Link, subject: str, payload: bytes, *, deadline: float) -> Answer:
    """Publish `payload` and return the answer.

    Raises `BusUnavailable` if no answer comes in `deadline` seconds, and `NoResponder` at once if there is no subscriber.
    """
    check_pattern(subject)  # API subjects may hold wildcards if they name a filter
    question = _Question(subject)
    token = link.replies.expect(question, 0)
    try:
        link.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), link.replies.inbox + token, len(payload), payload))
        async with asyncio.timeout(deadline):
            answer = await question.answer
    except TimeoutError as error:
        raise BusUnavailable(f"{subject}: no answer within {deadline:g} s") from error
    finally:
        link.replies.forget(token)
        if not question.answer.cancel() and not question.answer.cancelled():
            question.answer.exception()
    status, _ = status_of(answer.header_block)
    # A stored message, which has a sequence, may have any status: its sender chose its first line.
    if status == 503 and not header_value(answer.header_block, "Nats-Sequence"):
        raise NoResponder(f"{subject}: no responder; is JetStream enabled, and does the stream exist?")
    return answer
