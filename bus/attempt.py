"""One attempt of one handler, under its deadline: what it returned, or how it failed."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from sealbus.bus.cancelling import being_cancelled
from sealbus.bus.deadlines import Deadlines
from sealbus.bus.marks import takes_one_answer
from sealbus.bus.routes import Answer, Permitted
from sealbus.envelopes.errors import Code, HandlingError, SealbusError

__all__ = ["SendChunk", "attempt"]

_log = logging.getLogger(__name__)

SendChunk = Callable[[Permitted, Answer, int, bool], Awaitable[None]]
"""Sends chunk number so many of the answer to a call; the last argument says that it ends the answer."""

FRAMES = 8
"""Innermost frames of a failed handler that are logged."""

END = Answer(body=b"", typ="application/octet-stream")
"""The chunk that ends an answer in chunks."""


async def attempt(permitted: Permitted, send: SendChunk, deadlines: Deadlines) -> Answer | None:
    """Run the handler once; raise `HandlingError` and nothing else but cancellation.

    An answer in chunks is sent by `send` as it comes, and nothing is returned for it.
    """
    route = permitted.route
    deadline = deadlines.within(route.timeout)
    try:
        with deadline:
            chunks = route.endpoint.stream(permitted)
            if chunks is None:
                return await route.endpoint.handle(permitted)
            # Nothing of the handler has run yet: a generator begins with its first step.
            _check_chunks_are_taken(permitted)
            number = 0
            async for chunk in chunks:
                await send(permitted, chunk, number, False)
                number += 1
            await send(permitted, END, number, True)
            return None
    except TimeoutError as error:
        if deadline.expired:
            raise HandlingError(Code.HANDLER_TIMEOUT, f"over {route.timeout:g} s") from error
        raise HandlingError(Code.HANDLER_FAILED, "TimeoutError") from error
    except asyncio.CancelledError as error:
        if being_cancelled():
            raise
        raise HandlingError(Code.HANDLER_FAILED, "CancelledError") from error
    except HandlingError:
        raise
    except SealbusError as error:
        raise HandlingError(Code.HANDLER_FAILED, f"{type(error).__name__}: {error.code}") from error
    except Exception as error:
        _log.error("handler of %s failed: %s", route.action, _where(error))
        raise HandlingError(Code.HANDLER_FAILED, type(error).__name__) from error


def _check_chunks_are_taken(permitted: Permitted) -> None:
    if takes_one_answer(permitted.message.header):
        raise HandlingError(Code.NOT_ACCEPTABLE, "answers in chunks, and one answer was asked for")


def _where(error: Exception) -> str:
    """Return what was raised and by which lines, the innermost first; its text may hold what the message held."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}" for frame in frames]
    return " < ".join([type(error).__name__, *reversed(places)])
