"""Cancels of parked tasks: one that is canceled while it waits ends at once, one whose ancestor was when it is to go on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sealbus.bus.clocks import BusClock
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.sending.status import State
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.parked_tasks import Parked, ParkedState
from sealbus.bus.work.approvals.progress import ParkedStores
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.cancel.stop import Stop
from sealbus.envelopes.errors import Code, EnvelopeError, StateUnavailable
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.message.wire import parse_envelope

_logger: Final = logging.getLogger(__name__)

_TRIES: Final = 4
"""Tries to end a task that others change at the same moment."""


class ParkedCancels:
    """Ends the parked tasks of one agent that were canceled."""

    def __init__(self, stores: ParkedStores, *, stops: KeptStops, own_subjects: OwnSubjects, clock: BusClock) -> None:
        self._stores = stores
        self._stops = stops
        self._own_subjects = own_subjects
        self._clock = clock
        self._operator_log = OperatorLog(_logger)

    async def stop(self, stop: Stop) -> None:
        """Keep a stop for what is parked, and end the task that it is about, if that waits here.

        Raises `BusUnavailable` and `StateUnavailable`: the cancel is then tried again.
        """
        await self._stops.keep(stop)
        for _ in range(_TRIES):
            parked = await self._stores.tasks.find(stop.digest)
            if parked is None or parked.state is ParkedState.RUNNING:
                return
            if not stop.concerns(parked.header, self._own_subjects):
                return
            if await self._end(parked, Canceled(stop.by, stop.reason)):
                return

    async def under(self, digest: bytes) -> Sequence[Stop]:
        """Return what is kept here of the message with H(header) `digest`. Raises as `Held.newest` does."""
        return await self._stops.under(digest)

    async def met(self, parked: Parked, known: Sequence[Stop] | None = None) -> bool:
        """Return whether a task that is to go on was canceled, or what it follows from; one that waits then ends.

        `known` is what `under` returned of it. Raises as `Held.newest` does.
        """
        canceled = await self._stops.find(_chain(parked), last=known)
        if canceled is None:
            return False
        if parked.state is not ParkedState.RUNNING:
            await self._end(parked, canceled)
        return True

    async def _end(self, parked: Parked, canceled: Canceled) -> bool:
        """End a task, tell its requester and end its marker; return `False` if it has changed meanwhile.

        Where its time is over nothing is told: its requester concludes that it has expired, or has done so.
        One that has ended, and whose marker has not, was canceled by somebody who did not come further than that.
        """
        header = parked.header
        if parked.state is ParkedState.ENDED:
            if await self._stores.markers.has_ended(header):
                return True
        elif await self._stores.tasks.change(parked, replace(parked, state=ParkedState.ENDED)) is None:
            return False
        self._operator_log.message("canceled", header, action=parked.decision.action, code=Code.CANCELED)
        if self._clock() < parked.until:
            # A number above those of all deliveries before, so that it is the last one.
            reporter = self._stores.statuses.of(header, parked.arrival.delivery + 1)
            if not await reporter.tell(State.CANCELED, code=Code.CANCELED, note=canceled.reason, by=canceled.by):
                raise StateUnavailable("that a parked task is canceled is not told")
        await self._stores.markers.put(header, until=parked.until, ended=True)
        return True


def _chain(parked: Parked) -> Sequence[Header]:
    """Return the headers of a parked task and its ancestors, the root first; what does not parse is left out.

    They are compared by their hashes, which the next one names: nothing here says that they are genuine.
    """
    try:
        envelope = parse_envelope(parked.envelope)
        ancestors = [parse_header(ancestor.header) for ancestor in envelope.ancestors]
    except EnvelopeError:
        return [parked.header]
    return [*reversed(ancestors), parked.header]
