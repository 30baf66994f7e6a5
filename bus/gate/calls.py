"""The caller's side: send a call, and verify, decide on and return the answers that arrive on our inbox.

The policy is asked about `<action>.reply` (SPEC.md section 7); records of these decisions are not awaited. An answer that
fails verification changes nothing: the call stays open until its end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from sealbus.bus.background import Background
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.gate.reply_policy import Received, ReplyPolicy
from sealbus.bus.ports import Delivery
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.answer import ONE_ANSWER, CallExpired, ChunkedAnswer, NoListener, answer_of
from sealbus.bus.sending.cancel import CancelRequest, cancel_message
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.site import Site
from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_reply
from sealbus.envelopes.errors import EnvelopeError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed
from sealbus.envelopes.message.subjects import REPLY_TOKEN, UNHEARD_TOKEN
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.records.decision import CorePlace

_logger = logging.getLogger(__name__)

CHUNKS_WAITING: Final = 256
"""Chunks of one answer that may wait for their reader; a reader that lags further behind loses the call."""
BYTES_WAITING: Final = 16_777_216
"""Bytes of these chunks: the recipient chooses their size."""
WORTH_CANCELLING: Final = 2
"""Seconds that a call must have left for its cancel to be worth a message, a decision and a record."""
TELL_WITHIN: Final = 5.0
"""Seconds within which the cancel must be stored."""

_NO_RESPONDERS: Final = b"NATS/1.0 503"
"""The start of the header block with which a NATS server answers a message to a subject without subscribers."""


class _OpenCall:
    """An open call: the facts by which its answers are decided, and the answers that wait for their reader."""

    __slots__ = ("_answers", "_arrived", "_bytes", "action", "context", "digest", "sent", "unheard")

    def __init__(self, action: str, context: UserContext | None, sent: list[bytes] | None, unheard: str) -> None:
        self.action = action
        self.context = context
        self.sent = sent
        """The list to which the hash of the call is added once the call is sealed."""
        self.unheard = unheard
        """The subject on which the server reports that the call has no recipient."""
        self.digest = b""
        self._answers: deque[VerifiedResult | SealbusError] = deque()
        self._bytes = 0
        self._arrived: asyncio.Future[None] | None = None

    def put(self, answer: VerifiedResult | SealbusError) -> bool:
        """Queue `answer`. Return `False` if `CHUNKS_WAITING` answers wait, or if it would exceed `BYTES_WAITING`.

        An empty queue takes any answer.
        """
        size = len(answer.body) if isinstance(answer, VerifiedResult) else 0
        if self._answers and (len(self._answers) >= CHUNKS_WAITING or self._bytes + size > BYTES_WAITING):
            return False
        self._answers.append(answer)
        self._bytes += size
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
        return True

    async def take(self) -> VerifiedResult:
        """Wait for the next answer and return it, or raise the error in its place. Call it from one task at a time."""
        while not self._answers:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        answer = self._answers.popleft()
        if isinstance(answer, SealbusError):
            raise answer
        self._bytes -= len(answer.body)
        return answer


class Requests:
    """The calls of one identity. Enter with `async with`; the first call subscribes to the inbox of the identity.

    In development, `served` returns the known verbs, for the error of a call without a recipient.
    """

    def __init__(
        self,
        site: Site,
        *,
        outbox: Outbox,
        policy: ReplyPolicy,
        refusals: Refusals,
        served: Callable[[], str] = str,
    ) -> None:
        self._site = site
        self._profile = ResultProfile(own=site.own, names=site.names)
        self._outbox = outbox
        self._policy = policy
        self._refusals = refusals
        self._served = served
        inbox = site.names.inbox_prefix(site.own)
        self._prefix = f"{inbox}{REPLY_TOKEN}.{secrets.token_hex(8)}"
        self._unheard = f"{inbox}{UNHEARD_TOKEN}.{secrets.token_hex(8)}"
        self._number = 0
        self._open: dict[bytes, _OpenCall] = {}
        self._requests: dict[bytes, OpenRequest] = {}
        self._by_unheard: dict[str, _OpenCall] = {}
        """Open calls by the subject on which the server reports that they have no recipient."""
        self._deadlines = Deadlines()
        self._group = Background()
        self._closing = False
        self._listening: tuple[asyncio.Task[None], ...] = ()
        self._live = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        for task in self._listening:
            task.cancel()
        self._deadlines.close()
        await self._group.__aexit__(kind, error, trace)

    def address(self) -> str:
        """Return a new subject of our inbox, for the answers to one call."""
        self._number += 1
        return f"{self._prefix}.{self._number}"

    async def call(
        self,
        message: OutgoingMessage,
        *,
        action: str,
        within: float,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Content:
        """Send a call and return its one answer, within `within` seconds.

        If the caller is cancelled earlier, the recipient is told to cancel the call. It is not told if `stopped` returns
        true: the work that the call follows from was canceled, and the call with it.

        Raises `Denied`, `RemoteError`, `CallExpired`, `BusUnavailable`, `SealError`, or the error by which our own policy
        refuses the answer. A handler that answers in chunks does not run: `RemoteError` (`not_acceptable`) is raised. A
        recipient that does not know the mark may answer in chunks: `ChunkedAnswer` is raised, because the first chunk would
        look like the whole answer.
        """
        waiting = self._waiting(message, action, sent)
        message = message.with_entries(ext={**(message.draft.ext or {}), **ONE_ANSWER})
        try:
            with self._deadlines.within(within):
                await self._ask(message, waiting)
                result = await waiting.take()
        except TimeoutError as error:
            raise _expired(action, within) from error
        except asyncio.CancelledError:
            self._leave(waiting, stopped)
            raise
        finally:
            self._forget(waiting)
        if result.header.kind is Kind.CHUNK:
            raise ChunkedAnswer(action)
        return answer_of(result)

    async def stream(
        self,
        message: OutgoingMessage,
        *,
        action: str,
        within: float,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> AsyncGenerator[Content, None]:
        """Send a call and yield the chunks of its answer. Raises as `call` does; closing it early cancels the call."""
        waiting = self._waiting(message, action, sent)
        final = False
        try:
            with self._deadlines.within(within):
                await self._ask(message, waiting)
                while not final:
                    result = await waiting.take()
                    final = result.final
                    answer = answer_of(result)
                    if not (result.header.fin and not answer.body):
                        yield answer
        except TimeoutError as error:
            raise _expired(action, within) from error
        except (asyncio.CancelledError, GeneratorExit):
            if not final:
                self._leave(waiting, stopped)
            raise
        finally:
            self._forget(waiting)

    def _waiting(self, message: OutgoingMessage, action: str, sent: list[bytes] | None) -> _OpenCall:
        context = parse_payload(message.draft.context.payload) if message.draft.context is not None else None
        # Peers may not publish there and cannot guess the last token, so only the server can answer, about this call alone.
        return _OpenCall(action, context, sent, f"{self._unheard}.{secrets.token_hex(12)}")

    async def _ask(self, message: OutgoingMessage, waiting: _OpenCall) -> None:
        """Send the call. It is open from its sealing until `_forget`."""

        def leaving(sealed: Sealed) -> None:
            waiting.digest = digest = sealed.header.digest
            self._open[digest] = waiting
            self._by_unheard[waiting.unheard] = waiting
            self._requests[digest] = OpenRequest(PendingRequest.of(sealed.header))
            if waiting.sent is not None:
                waiting.sent.append(digest)

        await self._listen()
        await self._outbox.send(message, leaving=leaving, reply=waiting.unheard)

    def _leave(self, waiting: _OpenCall, stopped: Callable[[], bool]) -> None:
        """Have the recipient cancel a call that its caller has left, if the call may still go on for some time."""
        request = self._requests.get(waiting.digest)
        if (
            request is None
            or self._closing
            or stopped()
            or request.pending.end - self._site.bus_clock() < WORTH_CANCELLING * SECOND
        ):
            return
        cancel = CancelRequest(
            digest=waiting.digest,
            action=waiting.action,
            end=request.pending.end,
            reason="its caller has left",
        )
        message = cancel_message(cancel, request.pending, names=self._profile.names, now=self._site.bus_clock())
        self._group.create_task(self._tell(message), name="call-left")

    async def _tell(self, message: OutgoingMessage) -> None:
        try:
            await self._outbox.publish(message, within=TELL_WITHIN)
        except SealbusError as error:
            _logger.warning("a call that its caller left is not canceled: %s", error)

    def _forget(self, waiting: _OpenCall) -> None:
        self._open.pop(waiting.digest, None)
        self._requests.pop(waiting.digest, None)
        self._by_unheard.pop(waiting.unheard, None)

    async def _listen(self) -> None:
        """Subscribe to our inbox at the first call: a process that never calls needs no inbox."""
        if not self._listening:
            self._listening = (
                self._group.create_task(self._receive(self._live[0]), name="replies"),
                self._group.create_task(self._take_unheard(self._live[1]), name="unheard"),
            )
        for live in self._live:
            await live.wait()

    async def _receive(self, live: asyncio.Event) -> None:
        async with aclosing(self._site.transport.listen(f"{self._prefix}.*", live=live)) as batches:
            async for batch in batches:
                await self._take_answers(batch)

    async def _take_unheard(self, live: asyncio.Event) -> None:
        async with aclosing(self._site.transport.listen(f"{self._unheard}.*", live=live)) as batches:
            async for batch in batches:
                for delivery in batch:
                    waiting = self._by_unheard.get(delivery.subject)
                    if waiting is not None and delivery.header_block.startswith(_NO_RESPONDERS):
                        served = f"; {self._served()}" if self._served() else ""
                        waiting.put(NoListener(f"{waiting.action}: no agent takes this call now{served}"))

    async def _take_answers(self, deliveries: Sequence[Delivery]) -> None:
        """Verify a batch of answers, decide on them together, and hand answers or denials to the callers."""
        results: list[tuple[_OpenCall, VerifiedResult]] = []
        trust, now = self._site.trust(), self._site.bus_clock()
        for delivery in deliveries:
            try:
                result = accept_reply(
                    delivery.payload,
                    delivery.subject,
                    self._profile,
                    self._requests,
                    trust=trust,
                    caches=self._site.caches,
                    now=now,
                )
            except EnvelopeError as error:
                self._refusals.count(error, delivery)
            else:
                results.append((self._open[result.request.digest], result))
        # A stream of chunks is decided once, at its first chunk.
        received = [
            Received(action=waiting.action, context=waiting.context, result=result, place=CorePlace(opened=now))
            for waiting, result in results
            if not result.header.seq
        ]
        refusals = await self._policy.decide(received, now=now)
        denied = {
            answer.result.request.digest: error
            for answer, error in zip(received, refusals, strict=True)
            if error is not None
        }
        for waiting, result in results:
            if not waiting.put(denied.get(result.request.digest, result)):
                self._leave(waiting, lambda: False)
                self._forget(waiting)
                _logger.warning("the reader of the answer to %s lags behind; the call is given up", waiting.action)


def _expired(action: str, within: float) -> CallExpired:
    return CallExpired(f"{action}: no answer in {within:g} s")
