"""Answering requests on core NATS: a bounded number at a time, each on the link that it came on, each within its time.

For requests that are made by the broker itself, the auth callout first of all. Nothing of sealbus' envelopes is here:
who may ask is for the account's permissions and for the handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self

from sealbus.bus.background import Background
from sealbus.bus.connection import Connection
from sealbus.bus.frames import check_pattern, publish_frame
from sealbus.bus.link import Link
from sealbus.bus.ports import Outgoing
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

__all__ = ["Answering", "Asked"]

_log: Final = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 5.0

DRAIN_SECONDS: Final = 2.0
"""For what has arrived when this is left: others of the group answer all that comes later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived, nothing verified. `arrived` is the event loop's time."""

    payload: bytes = field(repr=False)
    header_block: bytes = field(repr=False)
    arrived: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    asked: Asked
    reply: str
    link: Link


class Answering:
    """Serves `subject` in the queue group `queue` while it is entered; `answer` returns the answer's payload.

    `answer` may return `None` for no answer; what it raises is logged, and nothing is answered: whoever asked counts on
    its own time running out. At most `concurrency` requests are answered at a time and `pending` wait; on top of that
    `overloaded` is called with each. Left, it takes no more and answers what it has, for two seconds at most. `refused`
    is not empty once the server has refused the subscription.
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
            raise ConfigurationError("concurrency and pending of who answers are 1 or more")
        self._connection = connection
        self._subject = subject
        self._queue = queue
        self._answer = answer
        self._concurrency = concurrency
        self._pending = pending
        self._overloaded = overloaded
        self._links: dict[Link, int] = {}
        self._waiting: deque[_Waiting] = deque()
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
            self._subject, partial(self._take, link), queue=self._queue, refused=self._no
        )

    async def leave(self, link: Link) -> None:
        """Unsubscribe from `link`; what came before is answered on it, or not at all if it ends first."""
        sid = self._links.pop(link, None)
        if sid is not None:
            link.unsubscribe(sid)
            await link.flush(FLUSH_SECONDS)
            link.forget(sid)

    def lost(self, link: Link) -> None:
        """Forget `link`."""
        self._links.pop(link, None)

    async def _drain(self) -> None:
        """Unsubscribe everywhere, and return once all that came before is answered, or its time is over."""
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

    def _no(self, text: str) -> None:
        self.refused = text

    def _take(self, link: Link, _: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        if not reply:
            return
        if len(self._waiting) >= self._pending:
            self._overloaded()
            return
        asked = Asked(payload=payload, header_block=block, arrived=asyncio.get_running_loop().time())
        self._waiting.append(_Waiting(asked, reply.decode("ascii", "backslashreplace"), link))
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
                # The link is gone and its requests with it, or the reply subject is none.
                _log.info("%s: not answered: %s", self._subject, error.detail)
            except Exception:  # noqa: BLE001 - one request's failure must not end who answers the others
                _log.exception("%s: not answered", self._subject)
            finally:
                self._busy -= 1
                self._idle.set()
