"""Runs the handlers of permitted messages: bounded, in order of arrival, each under its deadline, each with an outcome.

Every lane is one task that takes the next piece of work from one bounded queue; a full queue holds the gate up, which
holds the pull up. What a handler raises ends its attempt, never its lane.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sealbus.bus.audit import AuditWriter
from sealbus.bus.clock import Clock, wall_clock
from sealbus.bus.counters import Counters
from sealbus.bus.dead import DeadLetters
from sealbus.bus.letter import Letter
from sealbus.bus.outbox import Outbox
from sealbus.bus.requests import ERROR_TYPE
from sealbus.bus.routes import Answer, Permitted
from sealbus.bus.work import Judged, Work
from sealbus.envelopes.accept import VerifiedMessage
from sealbus.envelopes.caches import BoundedMap
from sealbus.envelopes.errors import Code, Denied, HandlingError, SealbusError
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.limits import SECOND

__all__ = ["Lanes"]

_log = logging.getLogger(__name__)

REPLY_LIFE = 60 * SECOND
DONE = 65_536
"""Tasks and events that this process remembers to have handled; one that is delivered again is not handled again."""

BURY_AGAIN = 5.0
"""Seconds until a delivery comes again whose dead letter could not be stored."""

WORKING_EVERY = 10.0
"""Seconds between two signs of life for deliveries that wait or are handled: a third of the consumers' `ack_wait`."""


class Lanes:
    """`concurrency` handlers at a time; enter with `async with`, then `drain` before leaving to finish what was taken."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        audit: AuditWriter,
        dead: DeadLetters,
        counters: Counters,
        random: Callable[[], float],
        concurrency: int = 64,
        waiting: int = 1_024,
        clock: Clock = wall_clock,
    ) -> None:
        self._outbox = outbox
        self._audit = audit
        self._dead = dead
        self._counters = counters
        self._random = random
        self._concurrency = concurrency
        self._clock = clock
        self._queue: asyncio.Queue[Work] = asyncio.Queue(waiting)
        self._open: dict[int, Work] = {}
        # A killed server may deliver again what was acknowledged: it writes its consumers' state lazily.
        self._done: BoundedMap[bytes, bool] = BoundedMap(DONE)
        self._answering: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._lanes: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._lanes = [
            self._group.create_task(self._lane(), name=f"lane-{number}") for number in range(self._concurrency)
        ]
        self._lanes.append(self._group.create_task(self._stay_alive(), name="lanes-working"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def put(self, work: Work) -> None:
        """Queue one permitted message; waits while the queue is full."""
        self._open[id(work)] = work
        await self._queue.put(work)

    async def drain(self, within: float) -> bool:
        """Wait until everything queued was handled, at most `within` seconds; tell whether that was so."""
        try:
            async with asyncio.timeout(within):
                await self._queue.join()
                while self._answering:
                    await asyncio.wait(set(self._answering))
        except TimeoutError:
            return False
        return True

    def answer_error(self, judged: Judged, error: SealbusError | None) -> None:
        """Answer a call that ends at steps 14 to 17; does nothing for every other kind."""
        message = judged.opened.message
        if message.header.kind is not Kind.CALL:
            return
        code = error.code if error is not None else Code.DENIED
        reasons: tuple[str, ...] = ()
        if judged.decision is not None and any(o.get("type") == "show_reasons" for o in judged.decision.obligations):
            reasons = judged.decision.reasons
        task = self._group.create_task(self._quiet_reply(message, error_answer(code, reasons)), name="lane-reply")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _lane(self) -> None:
        while True:
            work = await self._queue.get()
            try:
                await self._handle(work)
            finally:
                self._open.pop(id(work), None)
                self._queue.task_done()

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(WORKING_EVERY)
            for work in list(self._open.values()):
                if work.pull is not None:
                    work.pull.working(work.delivery)

    async def _handle(self, work: Work) -> None:
        permitted = work.permitted
        started = self._clock()
        failure: HandlingError | None = None
        answer: Answer | None = None
        if started >= permitted.message.header.exp:
            await self._settle(work, Code.EXPIRED, started)
            return
        digest = permitted.message.header.digest
        if self._done.get(digest) is not None:
            await self._settle(work, Code.REPLAYED, started)
            return
        try:
            answer = await self._attempt(permitted)
        except HandlingError as error:
            failure = error
        except SealbusError as error:
            failure = HandlingError(Code.HANDLER_FAILED, f"{type(error).__name__}: {error.code}")
        self._counters.add(
            "sealbus_handled_total",
            1,
            action=permitted.route.action,
            outcome=str(failure.code) if failure else "done",
        )
        if permitted.message.header.kind is Kind.CALL:
            if failure is not None or answer is not None:
                reply = answer if failure is None and answer is not None else error_answer(_code(failure), ())
                await self._quiet_reply(permitted.message, reply)
            await self._settle(work, failure.code if failure else None, started)
        elif failure is None:
            self._done.put(digest, True)
            await self._settle(work, None, started)
        else:
            await self._failed(work, failure, started)

    async def _attempt(self, permitted: Permitted) -> Answer | None:
        """Run the handler once under its deadline; raises `HandlingError` and nothing else but cancellation."""
        route = permitted.route
        scope = asyncio.timeout(route.timeout)
        try:
            async with scope:
                chunks = route.endpoint.stream(permitted)
                if chunks is None:
                    return await route.endpoint.handle(permitted)
                number = 0
                async for chunk in chunks:
                    await self._chunk(permitted, chunk, number, fin=False)
                    number += 1
                await self._chunk(permitted, Answer(body=b"", typ="application/octet-stream"), number, fin=True)
                return None
        except TimeoutError as error:
            if scope.expired():
                raise HandlingError(Code.HANDLER_TIMEOUT, f"over {route.timeout:g} s") from error
            raise HandlingError(Code.HANDLER_FAILED, "TimeoutError") from error
        except HandlingError:
            raise
        except Exception as error:
            if not isinstance(error, SealbusError):
                _log.exception("handler of %s failed", route.action)
            raise HandlingError(Code.HANDLER_FAILED, type(error).__name__) from error

    async def _failed(self, work: Work, failure: HandlingError, started: int) -> None:
        """Try a task or event again by its route's schedule, or bury it with its reason."""
        position, pull = work.delivery.position, work.pull
        if position is None or pull is None:
            await self._settle(work, failure.code, started)
            return
        delay = work.permitted.route.retry.delay(
            position.delivery, random=self._random(), now=self._clock(), until=work.permitted.message.header.exp
        )
        if delay is not None:
            await self._note(work, failure.code, started, lambda: None)
            pull.retry(work.delivery, delay)
            return
        try:
            await self._dead.bury(work, failure)
        except SealbusError as error:
            _log.warning("dead letter not stored, trying again later: %s", error)
            pull.retry(work.delivery, BURY_AGAIN)
            return
        await self._settle(work, failure.code, started)

    async def _settle(self, work: Work, code: Code | None, started: int) -> None:
        """Record the outcome; the delivery is acknowledged once that was tried, so that both go out together."""
        pull = work.pull
        await self._note(work, code, started, (lambda: pull.ack([work.delivery])) if pull is not None else lambda: None)

    async def _note(self, work: Work, code: Code | None, started: int, then: Callable[[], None]) -> None:
        permitted = work.permitted
        await self._audit.outcome(
            decision=permitted.leaf,
            code=code,
            micros=max(0, self._clock() - started),
            delivery=work.delivery.position.delivery if work.delivery.position else 1,
            sent=permitted.sent,
            then=then,
        )

    async def _quiet_reply(self, message: VerifiedMessage, answer: Answer) -> None:
        """Send a reply; one that cannot leave is logged, and its caller concludes `expired`."""
        try:
            await self._outbox.send(reply_letter(message, answer))
        except SealbusError as error:
            _log.warning("reply not sent: %s", error)

    async def _chunk(self, permitted: Permitted, chunk: Answer, number: int, *, fin: bool) -> None:
        await self._outbox.send(reply_letter(permitted.message, chunk, seq=number, fin=fin))


def _code(failure: HandlingError | None) -> Code:
    return failure.code if failure is not None else Code.HANDLER_FAILED


def error_answer(code: Code, reasons: tuple[str, ...]) -> Answer:
    """Return the body of an error reply: a code, and reasons only where the policy lets them be shown."""
    body = json.dumps({"code": str(code), "reasons": list(reasons)}, separators=(",", ":")).encode()
    return Answer(body=body, typ=ERROR_TYPE)


def reply_letter(message: VerifiedMessage, answer: Answer, *, seq: int | None = None, fin: bool = False) -> Letter:
    """Return the reply, or the chunk numbered `seq`, to a call."""
    header = message.header
    if header.rpl is None:
        raise Denied("the message has no reply subject")
    return Letter(
        kind=Kind.REPLY if seq is None else Kind.CHUNK,
        to=header.rpl,
        aud=header.iss,
        life=REPLY_LIFE,
        body=answer.body,
        typ=answer.typ,
        re=header.digest,
        seq=seq,
        fin=fin,
        tid=header.tid,
    )
