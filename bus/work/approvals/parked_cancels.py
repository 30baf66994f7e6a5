"""Cancels of parked tasks: a canceled task ends at once; a task with a canceled ancestor ends when it should go on."""

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
"""Tries to end a task that other processes change at the same moment."""


class ParkedCancels:
    """Ends the parked tasks of one agent that were canceled."""

    def __init__(self, stores: ParkedStores, *, stops: KeptStops, own_subjects: OwnSubjects, clock: BusClock) -> None:
        self._stores = stores
        self._stops = stops
        self._own_subjects = own_subjects
        self._clock = clock
        self._operator_log = OperatorLog(_logger)

    async def stop(self, stop: Stop) -> None:
        """Keep a stop for parked tasks, and end the task that it names, if that waits here.

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
        """Return the stops that this agent has kept of the message with H(header) `digest`. Raises as `Held.newest` does."""
        return await self._stops.under(digest)

    async def met(self, parked: Parked, known: Sequence[Stop] | None = None) -> bool:
        """Return whether a task that should go on, or one of its ancestors, was canceled; if the task waits, it then ends.

        `known` is what `under` returned for it. Raises as `Held.newest` does.
        """
        canceled = await self._stops.find(_chain(parked), last=known)
        if canceled is None:
            return False
        if parked.state is not ParkedState.RUNNING:
            await self._end(parked, canceled)
        return True

    async def _end(self, parked: Parked, canceled: Canceled) -> bool:
        """End a task, tell its requester and end its marker; return `False` if the task has changed meanwhile.

        After its time nothing is told: the requester concludes that the task has expired. If the task has ended and its
        marker has not, the process that canceled the task died in between: this goes on where that stopped.
        """
        header = parked.header
        if parked.state is ParkedState.ENDED:
            if await self._stores.markers.has_ended(header):
                return True
        elif await self._stores.tasks.change(parked, replace(parked, state=ParkedState.ENDED)) is None:
            return False
        self._operator_log.message("canceled", header, action=parked.decision.action, code=Code.CANCELED)
        if self._clock() < parked.until:
            # Numbered above the statuses of all deliveries before.
            reporter = self._stores.statuses.of(header, parked.arrival.delivery + 1)
            if not await reporter.tell(State.CANCELED, code=Code.CANCELED, note=canceled.reason, by=canceled.by):
                raise StateUnavailable("the status of a canceled parked task is not stored")
        await self._stores.markers.put(header, until=parked.until, ended=True)
        return True


def _chain(parked: Parked) -> Sequence[Header]:
    """Return the headers of a parked task and its ancestors, the root first; without ancestors if these do not parse.

    The headers are not verified. They are matched by their hashes, each of which the next header names.
    """
    try:
        envelope = parse_envelope(parked.envelope)
        ancestors = [parse_header(ancestor.header) for ancestor in envelope.ancestors]
    except EnvelopeError:
        return [parked.header]
    return [*reversed(ancestors), parked.header]
