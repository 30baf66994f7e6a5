"""One attempt of a handler: its answer, or a failure with a code and nothing of what it said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import pytest
from support.audit import opened

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import Reject, Retry, RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.answer import AnswerDenied, CallExpired, RemoteError
from sealbus.bus.sending.message import Content
from sealbus.bus.work.executor.attempt import Attempts
from sealbus.bus.work.executor.ending import passed_on
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.denial import NOTHING_TOLD, Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import BusUnavailable, Code, Denied, HandlingError, ObligationUnknown, ResourceNotFound
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.request import Resource

ANSWER = Content(body=b"1", typ="application/json")


class Scripted:
    """An endpoint that does what it is given."""

    def __init__(
        self, handle: Callable[[], Awaitable[Content | None]] | None = None, chunks: tuple[Content, ...] | None = None
    ) -> None:
        self._handle = handle
        self._chunks = chunks

    def decode(self, body: bytes, typ: str) -> object:
        raise NotImplementedError

    def properties(self, value: object) -> Mapping[str, object]:
        raise NotImplementedError

    async def resource(self, value: object) -> Resource:
        raise NotImplementedError

    async def handle(self, permitted: Permitted) -> Content | None:
        assert self._handle is not None
        return await self._handle()

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        return self._each(self._chunks) if self._chunks is not None else None

    async def _each(self, chunks: tuple[Content, ...]) -> AsyncGenerator[Content, None]:
        for chunk in chunks:
            yield chunk


def permitted(endpoint: Scripted, timeout: float = 5.0) -> Permitted:
    options = HandlerOptions(retry=RetryPolicy(), timeout=timeout)
    route = Route(kind=Kind.TASK, subject="task.a.run", action="a.run", endpoint=endpoint, options=options)
    return Permitted(message=opened(), value=None, route=route, leaf=bytes(32), sent=[], cancellation=Cancellation())


async def no_chunks(permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
    raise AssertionError


ATTEMPTS = Attempts(deadlines=Deadlines(), give_up=lambda _: None)


def work(one: Permitted) -> Work:
    return Work(one, Delivery("task.a.run", b"", b""), None, {})


async def tried(one: Permitted) -> Content | None:
    return await ATTEMPTS.run(work(one), no_chunks)


async def failure(error: BaseException | None, timeout: float = 5.0) -> HandlingError:
    async def handle() -> Content | None:
        if error is None:
            await asyncio.Event().wait()
            return None
        raise error

    with pytest.raises(HandlingError) as failed:
        await tried(permitted(Scripted(handle), timeout))
    return failed.value


async def test_what_the_handler_returns_is_the_answer() -> None:
    async def handle() -> Content | None:
        return ANSWER

    assert await tried(permitted(Scripted(handle))) == ANSWER


async def test_chunks_are_sent_in_order_and_ended() -> None:
    sent: list[tuple[bytes, int, bool]] = []

    async def send(_: Permitted, chunk: Content, number: int, fin: bool) -> None:
        sent.append((chunk.body, number, fin))

    assert await ATTEMPTS.run(work(permitted(Scripted(chunks=(ANSWER, ANSWER)))), send) is None
    assert sent == [(b"1", 0, False), (b"1", 1, False), (b"", 2, True)]


async def test_what_the_handler_raises_is_told_by_its_type_alone() -> None:
    failed = await failure(ValueError("a secret"))
    assert (failed.code, failed.detail) == (Code.HANDLER_FAILED, "ValueError")


class Strange(BaseException):
    """What no handler should raise, and what ends no worker."""


@pytest.mark.parametrize("error", [SystemExit(3), Strange("a secret"), BaseExceptionGroup("", [Strange()])])
async def test_what_would_end_a_program_ends_the_attempt(error: BaseException) -> None:
    failed = await failure(error)
    assert (failed.code, failed.detail) == (Code.HANDLER_FAILED, type(error).__name__)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit()])
async def test_what_is_the_interpreters_is_not_kept(error: BaseException) -> None:
    async def handle() -> Content | None:
        raise error

    trying = tried(permitted(Scripted(handle)))
    with pytest.raises(type(error)):
        trying.send(None)  # in no task: there an interrupt ends the loop


async def test_an_error_of_ours_is_told_with_its_code_alone() -> None:
    failed = await failure(BusUnavailable("a secret"))
    assert (failed.code, failed.detail) == (Code.HANDLER_FAILED, "BusUnavailable: bus_unavailable")


async def test_a_handlers_own_code_is_kept() -> None:
    assert (await failure(HandlingError(Code.BAD_RESULT, "x"))).code is Code.BAD_RESULT


@pytest.mark.parametrize("said", [Reject("sold_out"), Retry(after=1.0)])
async def test_what_a_handler_says_itself_is_passed_on_alone_or_in_a_group(said: Reject | Retry) -> None:
    for error in (said, ExceptionGroup("", [said, said])):

        async def handle(error: Exception = error) -> Content | None:
            raise error

        with pytest.raises(type(said)) as raised:
            await tried(permitted(Scripted(handle)))
        assert raised.value is said
        assert raised.value.__cause__ is not said


async def test_its_time_ends_it_and_another_timeout_is_a_failure() -> None:
    assert (await failure(None, timeout=0.01)).code is Code.HANDLER_TIMEOUT
    assert (await failure(TimeoutError("a secret"))).code is Code.HANDLER_FAILED


async def test_being_cancelled_is_not_swallowed() -> None:
    async def handle() -> Content | None:
        await asyncio.Event().wait()
        return None

    running = asyncio.create_task(tried(permitted(Scripted(handle))))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_log_says_where_a_handler_failed_and_nothing_of_what_it_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await failure(ValueError("a secret of the message"))
    assert "ValueError < test_attempt.py:" in caplog.text
    assert "in handle" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("error", "code", "reasons"),
    [
        (Denied("no", ["late"]), Code.DENIED, ("late",)),
        (ObligationUnknown("no", ["late"]), Code.DENIED, ("late",)),
        (AnswerDenied("ours", ["for us alone"]), Code.DENIED, ()),
        (RemoteError(Code.BAD_BODY), Code.BAD_BODY, ()),
        (RemoteError(Code.RESOURCE_NOT_FOUND), Code.RESOURCE_NOT_FOUND, ()),
        (RemoteError(Code.IDEMPOTENCY_CONFLICT), Code.IDEMPOTENCY_CONFLICT, ()),
        (RemoteError(Code.OUTCOME_UNKNOWN), Code.OUTCOME_UNKNOWN, ()),
        (RemoteError(Code.CANCELED), Code.CANCELED, ()),
        (RemoteError(Code.POLICY_UNAVAILABLE), Code.HANDLER_FAILED, ()),
        (RemoteError(Code.HANDLER_FAILED), Code.HANDLER_FAILED, ()),
        (CallExpired("no answer"), Code.HANDLER_FAILED, ()),
        (ResourceNotFound("of its own"), Code.HANDLER_FAILED, ()),
        (ValueError("of its own"), Code.HANDLER_FAILED, ()),
    ],
)
@pytest.mark.parametrize("wrapped", [0, 1, 2])
async def test_what_another_agent_said_lasting_ends_the_attempt_as_that(
    error: Exception, code: Code, reasons: tuple[str, ...], wrapped: int
) -> None:
    for _ in range(wrapped):
        error = ExceptionGroup("unhandled errors in a TaskGroup", [error])
    ended = await failure(error)
    assert (ended.code, ended.explanation.reasons) == (code, reasons)


async def test_of_several_errors_all_have_to_be_lasting() -> None:
    both = ExceptionGroup("two", [ExceptionGroup("one", [Denied("no", ["late"])]), RemoteError(Code.BAD_BODY)])
    ended = await failure(both)
    assert (ended.code, ended.explanation.reasons) == (Code.DENIED, ("late",))
    for other in (ValueError("x"), RemoteError(Code.POLICY_UNAVAILABLE)):
        assert (await failure(ExceptionGroup("two", [Denied("no"), other]))).code is Code.HANDLER_FAILED
        assert (await failure(ExceptionGroup("two", [other, Denied("no")]))).code is Code.HANDLER_FAILED


STOCK = Denier("spiffe://example.org/agent/stock", "stock.update", "obligation_unknown")
TOLD = Explanation(("late",), (Remedy(kind=RemedyKind.LOGIN, max_age=300),), (STOCK,))
SHOWS: tuple[Mapping[str, object], ...] = ({"type": "show_reasons"},)


@pytest.mark.parametrize("error", [Denied("no", *TOLD), ObligationUnknown("no", *TOLD)])
async def test_what_a_handler_was_told_of_a_denial_is_passed_on_with_itself_in_front(error: Denied) -> None:
    ended = await failure(error)
    assert ended.explanation == TOLD
    asked = permitted(Scripted())
    aud = asked.message.header.aud
    assert aud is not None
    assert passed_on(asked, ended) == NOTHING_TOLD
    told = passed_on(asked._replace(obligations=SHOWS), ended)
    assert told == TOLD._replace(via=(Denier(aud.value, "a.run", "denied"), STOCK))


async def test_what_our_own_policy_says_of_an_answer_is_passed_on_to_nobody() -> None:
    ended = await failure(AnswerDenied("ours", ["for us alone"]))
    assert ended.explanation == NOTHING_TOLD


async def test_what_is_no_denial_passes_nothing_on() -> None:
    ended = await failure(RemoteError(Code.BAD_BODY))
    assert passed_on(permitted(Scripted())._replace(obligations=SHOWS), ended) == NOTHING_TOLD
