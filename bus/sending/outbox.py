"""The outbox, through which a process sends all its messages: sealed together, published in one write, retried until stored.

Messages to different subjects and audiences share one signature (SPEC.md section 4). Batching adds no latency: a batch holds
the messages that wait already. The bytes of a stream message are repeated until its PubAck, `iat + 30 s`, or 10 s before the
credential's `exp`. Then the message is sealed again under a new `id` and the same `idm` (SPEC.md section 7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from sealbus.bus.background import Background, batch_from
from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.ports import (
    DuplicateFirstAttempt,
    Identity,
    NewId,
    NotAcknowledged,
    NotPermitted,
    Outgoing,
    Overloaded,
    PubAck,
    StreamRefused,
    Transport,
    uuid7,
)
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.envelopes.errors import BusUnavailable, SealbusError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, Sealer, seal
from sealbus.envelopes.trust.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from sealbus.bus.telemetry.spans import Sending
    from sealbus.bus.telemetry.tracing import Tracer

_logger = logging.getLogger(__name__)

RECENT = 30.0
"""Seconds for which `Outbox.unstored` reports an unacknowledged message. An agent that is sent nothing because of that report
tries again afterwards."""

_KEYED = frozenset({Kind.TASK, Kind.EVENT})
"""Kinds whose reader recognises two sealings of one message by `idm`. A record itself says what it is about."""
_TRACED = frozenset({Kind.TASK, Kind.CALL, Kind.EVENT})
"""Kinds that have spans. Statuses, answers and records belong to the span of the message that they are about."""

_FULL = frozenset({10047, 10077})
"""JetStream: insufficient resources, and a stream at its `max_bytes` or `max_msgs` with `discard: new`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """Bounds and waits of an outbox."""

    waiting: int = 8_192
    """Messages that wait to be sealed; when full, a sender waits for room."""
    batch: int = 256
    """Messages under one signature: past 32 the signature's share is under a microsecond each."""
    in_flight: int = 8
    """Batches whose PubAcks are awaited at a time."""
    ack_wait: float = 2.0
    """Seconds until an attempt counts as lost and the same bytes are sent again."""
    pause: float = 0.1
    """Seconds between a failed attempt and the next."""
    repeat_for: int = 30 * SECOND
    """SPEC.md section 7: half of what `stored_within` allows, so that a repeat is never refused for its age."""
    credential_margin: int = 10 * SECOND
    """SPEC.md section 7: no repeat within this time of the credential's `exp`."""


class Posted(NamedTuple):
    """One sealed message that was sent; `ack` is absent for core NATS."""

    sealed: Sealed
    ack: PubAck | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    """One message in flight. Its sender awaits `future`; `sealed` and `outgoing` are set and cleared together."""

    message: OutgoingMessage
    future: asyncio.Future[Posted]
    until: float
    durable: bool = True
    reseal: bool = False
    repeat_is_ours: bool = True
    duplicate_is_ours: bool = False
    leaving: Callable[[Sealed], None] | None = None
    reply: str = ""
    sealed: Sealed | None = None
    outgoing: Outgoing | None = None
    repeat_until: int = 0
    attempts: int = 0


class Outbox:
    """Seals and sends for one identity; enter with `async with`. Leaving sends the waiting messages first."""

    def __init__(
        self,
        *,
        identity: Identity,
        transport: Transport,
        clock: BusClock = UNMEASURED_CLOCK,
        new_id: NewId = uuid7,
        limits: OutboxLimits | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._identity = identity
        self._transport = transport
        self._clock = clock
        self._new_id = new_id
        self._limits = limits or OutboxLimits()
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(self._limits.waiting)
        self._room = asyncio.Semaphore(self._limits.in_flight)
        self._group = Background()
        self._closed = True
        self._declaration = NOTHING_DECLARED
        self._unstored: dict[str, float] = {}
        """When a message was last left unacknowledged, by the first token of its subject; our declarations bound these."""

    @property
    def own(self) -> SpiffeId:
        """The SPIFFE ID that it seals for."""
        return self._identity.spiffe_id

    def declare(self, declaration: Declaration) -> None:
        """Mark all messages that are sealed from now on with `declaration`, except records (SPEC.md section 3)."""
        self._declaration = declaration

    @property
    def waiting(self) -> int:
        """How many messages wait to be sealed."""
        return self._queue.qsize()

    @property
    def unstored(self) -> tuple[str, ...]:
        """First tokens of subjects with a message that was lately left unacknowledged, and none acknowledged since."""
        since = asyncio.get_running_loop().time() - RECENT
        return tuple(sorted(token for token, last in self._unstored.items() if last >= since))

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._group.create_task(self._run(), name="outbox")
        self._closed = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if kind is None:
            await self._queue.put(None)
        await self._group.__aexit__(kind, error, trace)

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        within: float = 30.0,
        reseal: bool = True,
        repeat_is_ours: bool = True,
        duplicate_is_ours: bool = False,
    ) -> Posted:
        """Seal `message`, store it in the stream of its subject within `within` seconds, and return it with its PubAck.

        `reseal` allows a new id once the same bytes may no longer be repeated; the message then carries an `idm` from its
        first sealing. A `duplicate` that answers a repeat counts as our own message, unless `repeat_is_ours` is false. A
        `duplicate` that answers the first attempt counts as another sender's, unless `duplicate_is_ours`: then another
        process of ours sealed a message with this id. Raises `Overloaded` if the stream is full, `NotPermitted`,
        `DuplicateFirstAttempt`, `StreamRefused`, `BusUnavailable`, `SealError`, `IdentityUnavailable`.
        """
        message, span = self._traced(message)
        waiting = _Waiting(message, *_future(within), reseal=reseal and not message.draft.id)
        waiting.repeat_is_ours, waiting.duplicate_is_ours = repeat_is_ours, duplicate_is_ours
        return await self._posted(waiting, span)

    async def publish_each(
        self,
        messages: Sequence[OutgoingMessage],
        *,
        within: float = 30.0,
        reseal: bool = True,
        repeat_is_ours: bool = True,
    ) -> Sequence[Posted | SealbusError]:
        """Store messages together; return for each what `publish` would return or raise."""
        batch = [
            _Waiting(message, *_future(within), reseal=reseal and not message.draft.id, repeat_is_ours=repeat_is_ours)
            for message in messages
        ]
        try:
            for waiting in batch:
                await self._put(waiting)
            # Most are done together with the first; these need neither a wait nor a callback.
            for waiting in batch:
                if not waiting.future.done():
                    await asyncio.wait((waiting.future,))
        finally:
            for waiting in batch:
                waiting.future.cancel()
        return [_outcome(waiting.future) for waiting in batch]

    async def send(
        self, message: OutgoingMessage, *, leaving: Callable[[Sealed], None] | None = None, reply: str = ""
    ) -> Posted:
        """Seal `message` and send it on core NATS; `leaving` is called with the sealed message before it is sent.

        The server reports to the subject `reply` that nobody listens (`Outgoing.reply`).

        Raises `BusUnavailable` if not connected, `SealError`, `IdentityUnavailable`.
        """
        message, span = self._traced(message)
        waiting = _Waiting(message, *_future(30.0), durable=False, leaving=leaving, reply=reply)
        return await self._posted(waiting, span)

    def _traced(self, message: OutgoingMessage) -> tuple[OutgoingMessage, Sending | None]:
        """Return the message as it carries its span, if it has one."""
        tracer = self._tracer
        if tracer is None or message.draft.kind not in _TRACED:
            return message, None
        span = tracer.sending(message.draft)
        tid, ext = span.carried(message.draft)
        return message.with_entries(tid=tid, ext=ext), span

    async def _posted(self, waiting: _Waiting, span: Sending | None) -> Posted:
        if span is None:
            await self._put(waiting)
            return await waiting.future
        try:
            await self._put(waiting)
            posted = await waiting.future
        except BaseException as error:
            span.failed(error)
            raise
        ack = posted.ack
        span.sent(posted.sealed, ack.stream if ack is not None else "", ack.sequence if ack is not None else 0)
        return posted

    async def _put(self, waiting: _Waiting) -> None:
        if self._closed:
            raise BusUnavailable("the outbox is closed")
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            await self._queue.put(waiting)

    async def _run(self) -> None:
        last = False
        while not last:
            batch, last = batch_from(await self._queue.get(), self._queue, self._limits.batch)
            await self._dispatch([w for w in batch if not w.future.done()])

    async def _dispatch(self, batch: Sequence[_Waiting]) -> None:
        """Seal messages that are not sealed yet, send core messages at once and stream messages in a new task."""
        self._seal([w for w in batch if w.sealed is None])
        core = [w for w in batch if not w.durable and w.outgoing is not None]
        if core:
            self._send(core)
        durable = [w for w in batch if w.durable and w.outgoing is not None]
        if durable:
            await self._room.acquire()
            self._group.create_task(self._publish(durable), name="outbox-publish")

    def _seal(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        try:
            sealer = self._identity.sealer()
        except SealbusError as error:
            for waiting in batch:
                _fail(waiting, error)
            return
        now = self._clock()
        try:
            self._seal_together(batch, sealer, now)
        except SealError:
            # One message is at fault: find it by sealing each alone.
            for waiting in batch:
                try:
                    self._seal_together([waiting], sealer, now)
                except SealError as error:
                    _fail(waiting, error)

    def _seal_together(self, batch: Sequence[_Waiting], sealer: Sealer, now: int) -> None:
        drafts = []
        marks = self._declaration.marks
        for waiting in batch:
            draft = waiting.message.draft
            new_id = draft.id or self._new_id(now)
            if waiting.reseal and draft.idm is None and draft.kind in _KEYED:
                waiting.message = waiting.message.with_entries(idm=new_id.hex())
            draft = waiting.message.at(now, new_id=new_id)
            # The process of a record has declared it in a record of its own.
            drafts.append(
                draft._replace(ext={**(draft.ext or {}), **marks}) if marks and draft.kind is not Kind.RECORD else draft
            )
        for waiting, sealed in zip(batch, seal(drafts, sealer), strict=True):
            header = sealed.header
            waiting.sealed = sealed
            if waiting.leaving is not None:
                waiting.leaving(sealed)
            waiting.attempts = 0
            waiting.repeat_until = min(
                header.iat + self._limits.repeat_for, sealer.expires - self._limits.credential_margin
            )
            message_id = header.id.hex() if waiting.durable else ""
            waiting.outgoing = Outgoing(header.to, sealed.wire, message_id, reply=waiting.reply)

    def _send(self, batch: Sequence[_Waiting]) -> None:
        try:
            self._transport.send([w.outgoing for w in batch if w.outgoing is not None])
        except SealbusError as error:
            for waiting in batch:
                _fail(waiting, error)
            return
        for waiting in batch:
            if waiting.sealed is not None and not waiting.future.done():
                waiting.future.set_result(Posted(sealed=waiting.sealed))

    async def _publish(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._until_settled(batch)
        finally:
            self._room.release()
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.cancel()

    async def _until_settled(self, batch: Sequence[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        while batch:
            outgoing = [w.outgoing for w in batch if w.outgoing is not None]
            answers: Sequence[PubAck | Exception]
            try:
                answers = await self._transport.publish(outgoing, deadline=self._limits.ack_wait)
            except SealbusError as error:
                answers = [error] * len(outgoing)
            unsettled = []
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.attempts += 1
                if not self._settle(waiting, answer, loop.time()):
                    unsettled.append(waiting)
            batch = unsettled
            if batch:
                await asyncio.sleep(self._limits.pause)
                self._seal([w for w in batch if w.sealed is None])
                batch = [w for w in batch if not w.future.done()]

    def _settle(self, waiting: _Waiting, answer: PubAck | Exception, loop_time: float) -> bool:
        """Resolve the sender's future if `answer` settles it; otherwise return whether the bytes may be repeated."""
        token = waiting.message.draft.to.partition(".")[0]
        if isinstance(answer, NotAcknowledged):
            self._unstored[token] = loop_time
        elif isinstance(answer, PubAck | StreamRefused):
            self._unstored.pop(token, None)
        if waiting.future.done():
            return True
        if isinstance(answer, PubAck) and waiting.sealed is not None:
            if (
                answer.duplicate
                and not waiting.duplicate_is_ours
                and (waiting.attempts == 1 or not waiting.repeat_is_ours)
            ):
                _fail(waiting, DuplicateFirstAttempt(f"{waiting.message.draft.to}: the stream has this id already"))
            else:
                waiting.future.set_result(Posted(sealed=waiting.sealed, ack=answer))
            return True
        if isinstance(answer, NotPermitted):
            _fail(waiting, answer)
            return True
        if isinstance(answer, StreamRefused):
            _fail(waiting, Overloaded(answer.detail) if answer.err_code in _FULL else answer)
            return True
        if loop_time >= waiting.until:
            _fail(waiting, BusUnavailable(f"{waiting.message.draft.to}: not acknowledged in time"))
            return True
        if self._clock() >= waiting.repeat_until:
            if not waiting.reseal:
                _fail(
                    waiting, BusUnavailable(f"{waiting.message.draft.to}: not acknowledged while it could be repeated")
                )
                return True
            waiting.sealed = None
        return False


def _future(within: float) -> tuple[asyncio.Future[Posted], float]:
    """Return a new future, and the loop's time in `within` seconds."""
    loop = asyncio.get_running_loop()
    return loop.create_future(), loop.time() + within


def _outcome(future: asyncio.Future[Posted]) -> Posted | SealbusError:
    error = future.exception()
    if isinstance(error, SealbusError):
        return error
    return future.result()


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
