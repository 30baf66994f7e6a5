"""Handles tasks and events: stop, claim, attempt; what happened is an outcome, which `settlement` brings to its end."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from sealbus.bus.background import BoundedTasks
from sealbus.bus.routing.retry import Reject, Retry
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.bus.site import Site
from sealbus.bus.work.executor.attempt import REJECTED, Attempts, GivenUp
from sealbus.bus.work.executor.ending import (
    Completed,
    Expired,
    Failed,
    Late,
    NotBegun,
    NotRunnable,
    Outcome,
    Rejected,
    Stopped,
    deadline_of,
    over,
)
from sealbus.bus.work.executor.poison import PoisonGuard
from sealbus.bus.work.executor.settlement import Stores, WorkSettlement
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import AlreadyDone, BusyEffect
from sealbus.bus.work.status_writer import NOTHING, PartWriter
from sealbus.envelopes.errors import Code, HandlingError, StateUnavailable
from sealbus.envelopes.limits import SECOND

WORKING_AFTER: Final = 1.0
"""Seconds that a handler runs before its requester is told so: most handlers are done by then and need no such status."""


class DurableWork:
    """Handles the tasks and events of one executor."""

    def __init__(
        self,
        site: Site,
        stores: Stores,
        *,
        attempts: Attempts,
        settlement: WorkSettlement,
        background: BoundedTasks,
    ) -> None:
        self._site = site
        self._stores = stores
        self._attempts = attempts
        self._settlement = settlement
        self._background = background
        self._seconds = site.counters.histogram("sealbus_handler_seconds", ("action",))

    async def handle(self, work: Work) -> None:
        """Run the handler if it may run; return once what follows has been started or queued."""
        outcome: Outcome | Late | None = await self._prevention(work)
        if outcome is None:
            outcome = await self._attempt(work)
        await self._settlement.settle(work, outcome)

    async def handle_counted(self, work: Work, poison: PoisonGuard) -> None:
        """Handle a delivery as `handle` does, once its attempt is counted; bury it if it has ended too many processes."""
        try:
            await poison.begin(work)
        except (BusyEffect, StateUnavailable, HandlingError) as error:
            await self._settlement.settle(work, _not_begun(error, Code.OVERLOADED))
            return
        await self.handle(work)
        await poison.close(work)

    async def _prevention(self, work: Work) -> Outcome | None:
        """Claim the effect; return why the handler is not to run: the message has expired, is canceled, or was handled."""
        if work.started >= work.exp:
            return Expired()
        try:
            canceled = await self._stores.stops.met(work.permitted)
            if canceled is not None:
                return Stopped(canceled)
            claim = await self._stores.effects.begin(work.permitted)
        except (BusyEffect, StateUnavailable, HandlingError) as error:
            return _not_begun(error, Code.REPLAYED)
        if isinstance(claim, AlreadyDone):
            return claim
        work.claim = claim
        return None

    async def _attempt(self, work: Work) -> Outcome | Late:
        """Run the handler once and count how that went."""
        deadline = deadline_of(work)
        left = (deadline - self._site.bus_clock()) / SECOND if deadline != math.inf else math.inf
        try:
            if left <= 0:
                raise over(work)
            if (progress := work.progress) is None:
                content = await self._attempts.run(work, _no_chunks, left)
            else:
                parts = PartWriter(progress)
                with self._attempts.deadlines.after(WORKING_AFTER, partial(self._tell_working, progress)):
                    content = await self._attempts.run(work, parts.write, left)
                    content = content or parts.result
        except GivenUp as late:
            return Late(late.done, late.result)
        except Reject as rejection:
            self._count(work, REJECTED)
            return Rejected(rejection)
        except Retry as requested:
            self._count(work, Code.HANDLER_FAILED)
            return Failed(HandlingError(Code.HANDLER_FAILED, "Retry"), requested)
        except HandlingError as failure:
            self._count(work, failure.code)
            canceled = work.permitted.cancellation.canceled if failure.code is Code.CANCELED else None
            return Failed(failure, canceled=canceled)
        self._count(work, "done")
        return Completed(content or NOTHING)

    def _tell_working(self, progress: TaskReporter) -> None:
        """Report that the handler is working, unless it has reported a status itself: the newest status counts."""
        if not progress.begun:
            self._background.start_at_once(progress.store(progress.numbered(State.WORKING)))

    def _count(self, work: Work, outcome: str) -> None:
        action = work.permitted.route.action
        self._site.counters.add("sealbus_handled_total", 1, action=action, outcome=outcome)
        self._seconds.observe((self._site.bus_clock() - work.started) / SECOND, action)


def _not_begun(error: BusyEffect | StateUnavailable | HandlingError, busy: Code) -> NotBegun | NotRunnable:
    """Return why no handler runs: `busy` if another copy is being handled."""
    if isinstance(error, BusyEffect):
        return NotBegun(busy, error.seconds)
    if isinstance(error, StateUnavailable):
        return NotBegun(error.code)
    return NotRunnable(error)


async def _no_chunks(permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
    """Refuse to send: only a call is answered in chunks, and only its handler can be declared so."""
    raise HandlingError(Code.HANDLER_FAILED, "chunks without a caller")
