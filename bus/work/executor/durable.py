"""Handles tasks and events: stop, claim, attempt; what happened is an outcome, which `settlement` brings to its end."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Final, TypeVar

from sealbus.bus.background import BoundedTasks
from sealbus.bus.routing.retry import Reject, Retry
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State, Status
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

_Begun = TypeVar("_Begun")


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
        await self._settlement.settle(work, await self._outcome_of(work))

    async def handle_counted(self, work: Work, poison: PoisonGuard) -> None:
        """Handle a delivery as `handle` does, once its attempt is counted; bury it if it has ended too many processes."""
        refused = await _begin(poison.begin(work), Code.OVERLOADED)
        if refused is not None:
            await self._settlement.settle(work, refused)
            return
        await self.handle(work)
        await poison.close(work)

    async def _outcome_of(self, work: Work) -> Outcome | Late:
        """Run the handler unless the message has expired, is canceled, or has had its effect; return what happened."""
        if work.started >= work.exp:
            return Expired()
        canceled = await _begin(self._stores.stops.met(work.permitted), Code.REPLAYED)
        if isinstance(canceled, NotBegun | NotRunnable):
            return canceled
        if canceled is not None:
            return Stopped(canceled)
        claim = await _begin(self._stores.effects.begin(work.permitted), Code.REPLAYED)
        if isinstance(claim, AlreadyDone | NotBegun | NotRunnable):
            return claim
        work.claim = claim
        return await self._attempt(work)

    async def _attempt(self, work: Work) -> Outcome | Late:
        """Run the handler once and count how that went."""
        left = (deadline_of(work) - self._site.host_clock()) / SECOND
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
            self._background.start_at_once(_store(progress, progress.numbered(State.WORKING)))

    def _count(self, work: Work, outcome: str) -> None:
        action = work.permitted.route.action
        self._site.counters.add("sealbus_handled_total", 1, action=action, outcome=outcome)
        self._seconds.observe((self._site.host_clock() - work.started) / SECOND, action)


async def _begin(beginning: Awaitable[_Begun], busy: Code) -> _Begun | NotBegun | NotRunnable:
    """Await one step before the handler; return its result, or why no handler runs: `busy` if another copy is handled."""
    try:
        return await beginning
    except BusyEffect as error:
        return NotBegun(busy, error.seconds)
    except StateUnavailable as error:
        return NotBegun(error.code)
    except HandlingError as failure:
        return NotRunnable(failure)


async def _store(reporter: TaskReporter, status: Status | None) -> None:
    await reporter.store(status)


async def _no_chunks(permitted: Permitted, chunk: Content, number: int, fin: bool) -> None:
    """Refuse to send: only a call is answered in chunks, and only its handler can be declared so."""
    raise HandlingError(Code.HANDLER_FAILED, "chunks without a caller")
