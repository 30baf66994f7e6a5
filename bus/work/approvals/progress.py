"""Stores how a parked task goes on: verdicts, its marker, the note of its effect, that it waits, that it has ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.site import Site
from sealbus.bus.streams.held import Held
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.marker import Markers, StoredMarker
from sealbus.bus.work.approvals.parked_tasks import CountedVerdict, Parked, ParkedState, ParkedTasks, counted
from sealbus.bus.work.idempotency.effects import effect_key
from sealbus.bus.work.status_writer import Statuses
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.limits import SECOND

_logger: Final = logging.getLogger(__name__)

LOST: Final = 0.5
"""Seconds until an approval is tried again after another process changed the same task first."""
DECIDED_WITHIN: Final = 60 * SECOND
"""How long after a verdict was counted its task may be decided, even if its own time ends before (microseconds)."""
END_AGAIN: Final = (0.2, 1.0, 5.0)
"""Pauses between tries to store that a parked task has ended, in seconds."""
_EFFECT_TYPE: Final = "application/vnd.sealbus.parked-effect.v1"
"""Payload type of the note that a request with an idempotency key has gone on."""


class NotNow(Exception):
    """The approval is to be delivered again: after `seconds`, or with backoff until it expires if `seconds` is `None`."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedStores:
    """Where one agent stores its parked tasks, their markers and their statuses."""

    tasks: ParkedTasks
    markers: Markers
    statuses: Statuses


class ParkedProgress:
    """Stores how the parked tasks of one agent go on. Methods raise `NotNow` for what can be stored later."""

    def __init__(self, site: Site, stores: ParkedStores, held: Held) -> None:
        self._site = site
        self._tasks = stores.tasks
        self._markers = stores.markers
        self._held = held
        self._operator_log = OperatorLog(_logger)

    async def find(self, digest: bytes) -> Parked | None:
        """Return the task with H(header) `digest`. Raises as `ParkedTasks.find` does."""
        return await self._tasks.find(digest)

    async def count_withdrawal(self, parked: Parked, verdict: CountedVerdict) -> Parked:
        """Store that a person took their verdict back, and return the task."""
        return await self._change(parked, replace(parked, verdicts=counted(parked.verdicts, verdict)))

    async def count_verdict(self, parked: Parked, verdict: CountedVerdict) -> Parked:
        """Store a verdict with its task, which its message then has taken up, and return the task.

        The requester looks for a result until the task can have been decided; a task for which that is too late ends.
        """
        until = self._site.bus_clock() + DECIDED_WITHIN
        if until > parked.until and await self.move(parked, until) is None:
            await self.end(parked)
            raise NotNow("its task has expired", LOST)
        verdicts = counted(parked.verdicts, verdict)
        running = replace(
            parked, verdicts=verdicts, state=ParkedState.RUNNING, run=verdict.message, turn=parked.turn + 1
        )
        return await self._change(parked, running)

    async def move(self, parked: Parked, until: int) -> StoredMarker | None:
        """Have the task's readers wait until `until` (microseconds); return `None` if that is too late (`Markers.move`)."""
        return await self._markers.move(parked.header, until=until, since=parked.until)

    async def is_first_of_its_key(self, message: VerifiedMessage) -> bool:
        """Note that a request with an idempotency key goes on; return whether no other copy of it has done so.

        A claim of `once` lasts a day. Of two copies that were parked and approved, one runs.
        """
        if message.header.idm is None:
            return True
        subject = f"held.{self._site.token}.effect.{effect_key(message).hex()}"
        fields = {"dig": message.header.digest}
        last = 0
        # Nothing stands before the first note: its write tells whether that is so.
        while await self._held.write(subject, fields, _EFFECT_TYPE, self._site.identity.sealer(), last=last) is None:
            note, newest = await self._held.standing(subject, _EFFECT_TYPE)
            if note is not None:
                return note.keys.octets("dig") == message.header.digest
            if newest == last:
                raise NotNow("its effect was noted at the same moment", LOST)
            last = newest
        return True

    async def wait(self, parked: Parked, record: bytes) -> Parked | None:
        """Have the task wait for the approval that its newly recorded denial asks for, and return it; `None` if it has ended.

        It waits for more verdicts on the same approval, or for another approval, for which earlier verdicts are void.
        """
        anew = replace(parked, record=record, verdicts=(), state=ParkedState.WAITING, run=b"")
        if anew.obligation == parked.obligation:
            after = replace(parked, state=ParkedState.WAITING, run=b"")
        else:
            until = self._site.bus_clock() + anew.obligation.until * SECOND
            after = replace(anew, until=min(parked.until, until))
        # First: no verdict counts after `until`, and a reader that does not know it waits for longer.
        if await self.move(parked, after.until) is None:
            await self.end(parked)
            return None
        if anew.obligation.queue == parked.obligation.queue:
            stored = await self._tasks.change(parked, after) is not None
        else:
            stored = await self._tasks.create_in_queue(after) and await self._store_end(parked)
        if not stored:
            raise NotNow("it was changed at the same moment", LOST)
        return after

    async def end(self, parked: Parked, marker: StoredMarker | None = None) -> bool:
        """Store that a task has ended, in several tries; return whether that is stored. `marker` is its marker, if known."""
        for pause in (*END_AGAIN, None):
            try:
                # The marker first: nothing looks at an ended task again, and its marker would wait for ever.
                marker = await self._markers.put(parked.header, until=parked.until, ended=True, known=marker)
                if await self._store_end(parked):
                    return True
            except SealbusError as error:
                self._operator_log.warning("that a parked task has ended is not stored: %s", error.code)
            if pause is not None:
                await asyncio.sleep(pause)
        return False

    async def _change(self, parked: Parked, after: Parked) -> Parked:
        stored = await self._tasks.change(parked, after)
        if stored is None:
            raise NotNow("another was counted at the same moment", LOST)
        return stored

    async def _store_end(self, parked: Parked) -> bool:
        ended = replace(parked, state=ParkedState.ENDED)
        if await self._tasks.change(parked, ended) is not None:
            return True
        stored = await self._tasks.find(parked.digest)
        return stored is not None and stored.state is ParkedState.ENDED
