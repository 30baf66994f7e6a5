"""One attempt of one handler, under its deadline: its result or its failure."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sealbus.bus.routing.retry import Reject, Retry, leaves
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.routing.timers import Deadline, Deadlines, Stuck, being_cancelled
from sealbus.bus.sending.answer import AnswerDenied, RemoteError, takes_one_answer
from sealbus.bus.sending.message import Content
from sealbus.bus.work.executor.ending import LASTING
from sealbus.bus.work.executor.told_detail import TellDetail, tell_nothing
from sealbus.bus.work.executor.work import Work
from sealbus.envelopes.denial import NOTHING_TOLD
from sealbus.envelopes.errors import Code, Denied, HandlingError, SealbusError

_logger = logging.getLogger(__name__)

SendChunk = Callable[[Permitted, Content, int, bool], Awaitable[None]]
"""Sends one numbered chunk of the answer to a call; the last argument marks the final chunk."""

REJECTED = "rejected"
"""The metric label of all rejections by handlers: their codes may be many."""

GIVEN_UP_AFTER = 10.0
"""Seconds that a handler may clean up after it was cancelled at its deadline."""

_UNTRACED = nullcontext()

FRAMES = 8
"""Innermost frames of a failed handler that are logged."""

END = Content(body=b"", typ="application/octet-stream")
"""The chunk that ends an answer in chunks."""


class GivenUp(Exception):
    """A handler that did not stop in time has ended; its requester was told before that it failed."""

    def __init__(self, done: bool, result: Content | None = None) -> None:
        super().__init__(done)
        self.done = done
        """Whether it returned, so that its effect has happened, with `result`."""
        self.result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Runs the attempts of one executor.

    `give_up` is called for work whose handler does not stop. `ending` returns whether the executor ends. `tell` returns the
    text of a failure for the log.
    """

    deadlines: Deadlines
    give_up: Callable[[Work], None]
    ending: Callable[[], bool] = being_cancelled
    tell: TellDetail = tell_nothing

    async def run(self, work: Work, send: SendChunk, left: float = math.inf) -> Content | None:
        """Run the handler of `work` once, at most `left` seconds.

        Raises nothing but `HandlingError`, the handler's own `Reject` or `Retry`, and cancellation. An answer in chunks is
        sent by `send` as it comes; `None` is returned for it. Once the work was canceled, each exception of the handler
        becomes `canceled`; a result still counts.

        If a handler goes on for `GIVEN_UP_AFTER` seconds after it was cancelled at its deadline, `give_up` is called.
        `GivenUp` is raised when that handler ends.

        The log has the place where a handler failed, and the text that `tell` returns. Unless the executor ends, requests to
        cancel the current task that a handler left behind are taken back.
        """
        permitted = work.permitted
        seconds = min(permitted.route.options.timeout, left)
        deadline = self.deadlines.within(seconds, stuck=Stuck(GIVEN_UP_AFTER, partial(self.give_up, work)))
        try:
            try:
                with permitted.span.handling() if permitted.span is not None else _UNTRACED:
                    content = await self._attempt(permitted, send, deadline, seconds)
            finally:
                if deadline.left_behind and not self.ending():
                    await deadline.take_back()
        except (HandlingError, Reject, Retry) as error:
            if deadline.is_stuck:
                raise GivenUp(False) from error
            raise
        if deadline.is_stuck:
            raise GivenUp(True, content)
        return content

    async def _attempt(
        self, permitted: Permitted, send: SendChunk, deadline: Deadline, seconds: float
    ) -> Content | None:
        route, cancellation = permitted.route, permitted.cancellation
        cancellation.begin(deadline)
        try:
            with deadline:
                chunks = route.handler.stream(permitted)
                if chunks is None:
                    return await route.handler.handle(permitted)
                # None of the handler's code has run yet: a generator starts at its first step.
                _check_chunks_are_taken(permitted)
                number = 0
                # Close the generator under the deadline: its cleanup ends before the final chunk is sent.
                async with aclosing(chunks):
                    async for chunk in chunks:
                        await send(permitted, chunk, number, False)
                        number += 1
                await send(permitted, END, number, True)
                return None
        except TimeoutError as error:
            if cancellation.canceled is not None:
                raise _canceled() from error
            if deadline.expired:
                raise HandlingError(Code.HANDLER_TIMEOUT, f"over {seconds:g} s") from error
            raise HandlingError(Code.HANDLER_FAILED, "TimeoutError") from error
        except asyncio.CancelledError as error:
            if self.ending():
                raise
            if cancellation.canceled is not None:
                raise _canceled() from error
            if deadline.expired:
                raise HandlingError(Code.HANDLER_TIMEOUT, f"over {seconds:g} s") from error
            raise HandlingError(Code.HANDLER_FAILED, "CancelledError") from error
        except (HandlingError, Reject, Retry) as error:
            if cancellation.canceled is not None:
                raise _canceled() from error
            raise
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # `sys.exit` in a handler fails the attempt; it does not stop the worker.
            failure = _failure(error, route.action, self.tell)
            raise (failure if cancellation.canceled is None else _canceled()) from error
        finally:
            cancellation.end()


def _canceled() -> HandlingError:
    return HandlingError(Code.CANCELED, "this work was canceled")


def _failure(error: BaseException, action: str, tell: TellDetail) -> HandlingError | Reject | Retry:
    """Return the failure of the attempt for a handler's error; all errors of an exception group must be clear."""
    clear = [_clear(leaf) for leaf in leaves(error)]
    if clear[0] is not None and None not in clear:
        return clear[0]
    name = type(error).__name__
    failure = HandlingError(Code.HANDLER_FAILED, f"{name}: {error.code}" if isinstance(error, SealbusError) else name)
    failure.__cause__ = error
    if (text := tell(failure)) or not isinstance(error, SealbusError):
        _logger.error("handler of %s failed: %s%s", action, _where(error), f": {text}" if text else "")
    return failure


def _clear(error: BaseException) -> HandlingError | Reject | Retry | None:
    """Return the failure for an error that determines it; `None` for every other error."""
    if isinstance(error, Reject | Retry):
        return error
    if isinstance(error, Denied):
        # The requester is not told why our own policy denied an answer.
        explanation = NOTHING_TOLD if isinstance(error, AnswerDenied) else error.explanation
        return HandlingError(Code.DENIED, "a request of the handler was denied", explanation)
    if isinstance(error, RemoteError) and error.code in LASTING:
        return HandlingError(Code(error.code), "a request of the handler failed for good")
    return None


def _check_chunks_are_taken(permitted: Permitted) -> None:
    if takes_one_answer(permitted.message.header):
        raise HandlingError(Code.NOT_ACCEPTABLE, "the handler answers in chunks, and one answer was asked for")


def _where(error: BaseException) -> str:
    """Return the error's type and its lines, innermost first; never its text, which may hold the message's contents."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return " < ".join([type(error).__name__, *reversed(places)])
