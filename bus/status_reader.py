"""The requester's side of a task: its statuses read from their stream, verified, and its result decided on.

Each reading reads `status.<requester>.<id>` by itself and keeps what has counted for itself alone, so that any process of
the same identity may read, at any time, as often as it likes (SPEC.md section 7). What fails verification is counted as
a refusal and changes nothing. Nothing of a reading stays anywhere once it has ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from sealbus.bus.answer_policy import AnswerPolicy
from sealbus.bus.clock import Clock, wall_clock
from sealbus.bus.ports import Transport
from sealbus.bus.publish_errors import Overloaded
from sealbus.bus.refusals import Refusals
from sealbus.bus.status_body import Status
from sealbus.bus.status_reading import AskedTask, Reading, StatusLimits
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.names import Names
from sealbus.envelopes.results import ResultProfile
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.trust import Trust

__all__ = ["AskedTask", "StatusLimits", "StatusReader"]


class StatusReader:
    """Reads the statuses of tasks that one identity has asked for; once left, no reading waits for a connection any more.

    `trust` gives the bundles as they are now. A status is read soon after it was stored or, later, with bundles that may
    have lost its key since: it is then not believed, which errs on the safe side.
    """

    def __init__(
        self,
        *,
        names: Names,
        own: SpiffeId,
        transport: Transport,
        policy: AnswerPolicy,
        refusals: Refusals,
        trust: Callable[[], Trust],
        caches: Caches,
        clock: Clock = wall_clock,
        limits: StatusLimits | None = None,
    ) -> None:
        self.profile: Final = ResultProfile(own=own, names=names)
        self.transport: Final = transport
        self.policy: Final = policy
        self.refusals: Final = refusals
        self.trust: Final = trust
        self.caches: Final = caches
        self.clock: Final = clock
        self.limits: Final = limits or StatusLimits()
        self.closed = False
        self._open = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    @property
    def reading(self) -> int:
        """How many readings there are now."""
        return self._open

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task` numbered over `after` as they come, up to the final one.

        The last one is `expired` where `end` has passed and nothing final was stored before it. Without `follow` only
        what is stored now is read. Lost connections and restarts of the server are waited out until then.
        Raises `Denied`, `PolicyUnavailable` or `PolicyFailed` if our own policy does not allow the result; `Overloaded`
        for too many readings; `BusUnavailable` if without `follow`, or after `end`, the stream cannot be read.
        """
        if self._open >= self.limits.readers:
            raise Overloaded(f"{self._open} readings of statuses are open already")
        self._open += 1
        try:
            async with aclosing(Reading(self, task, after).run(follow=follow)) as statuses:
                async for status in statuses:
                    yield status
        finally:
            self._open -= 1
