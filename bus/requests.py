"""Calls of ours: sent, answered on our own inbox, verified as results, decided by our own policy, then given back.

A reply is decided too, action `<action>.reply` (SPEC.md section 7); its record is not awaited. An answer that fails
verification changes no state: the call stays open until its own end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

from sealbus.bus.audit import AuditWriter, obligations_json
from sealbus.bus.clock import Clock, wall_clock
from sealbus.bus.judge import NO_RESOURCE, Judge, user_input
from sealbus.bus.letter import Letter
from sealbus.bus.outbox import Outbox
from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.refusals import Refusals
from sealbus.bus.routes import Answer
from sealbus.envelopes.answers import OpenRequest
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.context_payload import UserContext, parse_payload
from sealbus.envelopes.decision_record import CorePlace, DecisionRecord
from sealbus.envelopes.errors import BusUnavailable, Code, Denied, EnvelopeError, SealbusError
from sealbus.envelopes.names import Names
from sealbus.envelopes.pending import PendingRequest
from sealbus.envelopes.results import ResultProfile, VerifiedResult, accept_reply
from sealbus.envelopes.seal import Sealed
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.trust import Trust
from sealbus.policies.decision import Decision
from sealbus.policies.request import Request, input_document

__all__ = ["ERROR_TYPE", "CallExpired", "RemoteError", "Requests"]

_log = logging.getLogger(__name__)

ERROR_TYPE = "application/vnd.sealbus.error.v1+json"
"""Media type of a reply that says why a call was not handled (SPEC.md section 7)."""

CHUNKS_WAITING = 256
"""Chunks of one answer that wait for their reader; one that lags further behind loses the call."""


class RemoteError(SealbusError):
    """The other side verified the call and did not handle it; `code` is what it says."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(detail)
        self.code = code


class CallExpired(BusUnavailable):
    """No answer came in time. Whether the call was handled is not known."""

    code = Code.EXPIRED


class _Open:
    """One call of ours that is open, with what its answers are decided by."""

    __slots__ = ("action", "answers", "context", "request")

    def __init__(self, action: str, context: UserContext | None) -> None:
        self.action = action
        self.context = context
        self.request: OpenRequest | None = None
        self.answers: asyncio.Queue[VerifiedResult | SealbusError] = asyncio.Queue(CHUNKS_WAITING)


class Requests:
    """The requester side of one identity; enter with `async with`, which subscribes to its own inbox."""

    def __init__(
        self,
        *,
        names: Names,
        own: SpiffeId,
        transport: Transport,
        outbox: Outbox,
        audit: AuditWriter,
        judge: Judge,
        refusals: Refusals,
        trust: Callable[[], Trust],
        caches: Caches,
        clock: Clock = wall_clock,
    ) -> None:
        self._profile = ResultProfile(own=own, names=names)
        self._transport = transport
        self._outbox = outbox
        self._audit = audit
        self._judge = judge
        self._refusals = refusals
        self._trust = trust
        self._caches = caches
        self._clock = clock
        self._prefix = f"{names.inbox_prefix(own)}{secrets.token_hex(8)}"
        self._number = 0
        self._open: dict[bytes, _Open] = {}
        self._group = asyncio.TaskGroup()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listening is not None:
            self._listening.cancel()
        await self._group.__aexit__(kind, error, trace)

    def address(self) -> str:
        """Return a fresh subject of our own inbox for one call's answers."""
        self._number += 1
        return f"{self._prefix}.{self._number}"

    async def call(self, letter: Letter, *, action: str, within: float, sent: list[bytes] | None = None) -> Answer:
        """Send a call and return its one answer.

        Raises `Denied`, `RemoteError`, `CallExpired`, `BusUnavailable`, `SealError`, or what our own policy says.
        """
        async with aclosing(self._answers(letter, action, within, sent)) as answers:
            async for result in answers:
                return _answer(result)
        raise CallExpired("the answer ended without a reply")

    async def stream(
        self, letter: Letter, *, action: str, within: float, sent: list[bytes] | None = None
    ) -> AsyncGenerator[Answer, None]:
        """Send a call and yield the chunks of its answer; raises as `call` does."""
        async with aclosing(self._answers(letter, action, within, sent)) as answers:
            async for result in answers:
                answer = _answer(result)
                if not (result.header.fin and not answer.body):
                    yield answer

    async def _answers(
        self, letter: Letter, action: str, within: float, sent: list[bytes] | None
    ) -> AsyncGenerator[VerifiedResult, None]:
        context = parse_payload(letter.statement.payload) if letter.statement is not None else None
        waiting = _Open(action, context)
        digest = b""

        def leaving(sealed: Sealed) -> None:
            nonlocal digest
            digest = sealed.header.digest
            waiting.request = OpenRequest(PendingRequest.of(sealed.header))
            self._open[digest] = waiting
            if sent is not None:
                sent.append(digest)

        try:
            try:
                async with asyncio.timeout(within):
                    await self._listen()
                    await self._outbox.send(letter, leaving=leaving)
                    while True:
                        result = await waiting.answers.get()
                        if isinstance(result, SealbusError):
                            raise result
                        yield result
                        if result.final:
                            return
            except TimeoutError as error:
                raise CallExpired(f"{action}: no answer in {within:g} s") from error
        finally:
            self._open.pop(digest, None)

    async def _listen(self) -> None:
        """Subscribe to our inbox with the first call: a process that never calls needs none."""
        if self._listening is None:
            live = asyncio.Event()
            self._listening = self._group.create_task(self._receive(live), name="replies")
            await live.wait()

    async def _receive(self, live: asyncio.Event) -> None:
        source = self._transport.listen(f"{self._prefix}.*")
        async with aclosing(source) as batches:
            following = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            live.set()
            while True:
                await self._take(await following)
                following = asyncio.ensure_future(anext(batches))

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Verify a batch of answers, decide about them together, and hand on what is allowed."""
        requests = {digest: one.request for digest, one in self._open.items() if one.request is not None}
        results: list[tuple[_Open, VerifiedResult]] = []
        trust, now = self._trust(), self._clock()
        for delivery in deliveries:
            try:
                result = accept_reply(
                    delivery.payload,
                    delivery.subject,
                    self._profile,
                    requests,
                    trust=trust,
                    caches=self._caches,
                    now=now,
                )
            except EnvelopeError as error:
                self._refusals.count(error, delivery)
            else:
                results.append((self._open[result.request.digest], result))
        # A stream of chunks is one decision: its first chunk's.
        asked = [(one, result) for one, result in results if not result.header.seq]
        denied: dict[bytes, SealbusError] = {}
        documents: list[bytes] = []
        for one, result in tuple(asked):
            try:
                documents.append(input_document(_question(one, result, now)))
            except SealbusError as error:
                asked.remove((one, result))
                denied[result.request.digest] = error
        answers = await self._judge.decide(documents) if asked else ()
        for (one, result), document, answer in zip(asked, documents, answers, strict=True):
            if not isinstance(answer, Decision):
                denied[result.request.digest] = answer
            elif answer.allow is not True:
                denied[result.request.digest] = Denied(f"our policy refuses the answer to {one.action}", answer.reasons)
            await self._audit.note(_record(one, result, document, answer, now), about=result)
        for one, result in results:
            try:
                one.answers.put_nowait(denied.get(result.request.digest, result))
            except asyncio.QueueFull:
                self._open.pop(result.request.digest, None)
                _log.warning("the reader of the answer to %s lags behind; the call is given up", one.action)


def _question(one: _Open, result: VerifiedResult, now: int) -> Request:
    header = result.header
    return Request(
        subject=header.iss.value,
        trust_domain=header.iss.trust_domain.name,
        action=f"{one.action}.reply",
        resource=NO_RESOURCE,
        time=now,
        nats_subject=header.to,
        kind=header.kind.value,
        message_id=header.id.hex(),
        tenant=(one.context.ten or "") if one.context is not None else "",
        user=user_input(one.context),
        chain=(header.iss.value,),
    )


def _record(
    one: _Open, result: VerifiedResult, document: bytes, answer: Decision | SealbusError, now: int
) -> DecisionRecord:
    decision = answer if isinstance(answer, Decision) else None
    code = answer.code if isinstance(answer, SealbusError) else None
    if decision is not None and decision.allow is not True:
        code = Code.DENIED
    return DecisionRecord(
        header=result.header.raw,
        proof=result.proof,
        action=f"{one.action}.reply",
        place=CorePlace(opened=now),
        delivery=1,
        allow=code is None,
        code=code,
        input=document,
        reasons=decision.reasons if decision is not None else (),
        obligations=obligations_json(decision),
        revision=decision.revision if decision is not None else None,
        policy=decision.policy if decision is not None else None,
        engine=decision.engine if decision is not None else None,
        micros=decision.micros if decision is not None else None,
    )


def _answer(result: VerifiedResult) -> Answer:
    """Return the answer's body; raise what an error reply says."""
    if result.header.typ != ERROR_TYPE:
        return Answer(body=result.body, typ=result.header.typ)
    try:
        said = json.loads(result.body)
        code = Code(said["code"])
        reasons = tuple(str(reason)[:256] for reason in said.get("reasons", ()))[:32]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RemoteError(Code.BAD_RESULT, "an error reply that is none") from error
    if code is Code.DENIED:
        raise Denied("the other side's policy says no", reasons)
    raise RemoteError(code, "the other side did not handle the call")
