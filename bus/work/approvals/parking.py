"""Parks tasks that the policy denied until a person approves: off every queue, and out of memory.

The decision record, the parked task, its marker and the status are stored in this order; then the delivery is acknowledged.
After a crash in between, the redelivery repeats all of it. Each value has a name of its own, so that it is stored once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.ports import Settlement
from sealbus.bus.routing.retry import UNTIL_EXPIRY
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.approval import LONGEST_WAIT, WAIT
from sealbus.bus.sending.status import State
from sealbus.bus.site import Site
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.marker import waits_note
from sealbus.bus.work.approvals.parked_cancels import ParkedCancels
from sealbus.bus.work.approvals.parked_tasks import ENVELOPE_BYTES, INPUT_BYTES, Parked, ParkedState
from sealbus.bus.work.approvals.progress import ParkedStores
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.places import Cause, Places
from sealbus.envelopes.denial import Explanation
from sealbus.envelopes.errors import Code, SealbusError, SealError, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.policies.decision.approval import approval_of

_logger = logging.getLogger(__name__)

A_MINUTE: Final = 20
"""Tasks of one user, or of one requester without a user, that are parked in a minute; further tasks are denied."""
_KNOWN: Final = 65_536
"""Users whose tasks are counted within a minute; tasks of further users are denied."""
MINUTE: Final = 60 * SECOND


class Parking:
    """Parks the tasks of one agent, at most `a_minute` of one user in a minute."""

    def __init__(
        self,
        site: Site,
        stores: ParkedStores,
        *,
        stops: Stops,
        cancels: ParkedCancels,
        audit: AuditWriter,
        places: Places,
        a_minute: int = A_MINUTE,
    ) -> None:
        self._site = site
        self._stores = stores
        self._stops = stops
        self._cancels = cancels
        self._audit = audit
        self._places = places
        self._a_minute = a_minute
        self._minute = 0
        self._parked: Counter[tuple[str, str, str]] = Counter()
        self._operator_log = OperatorLog(_logger)

    async def mark(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """Return `decided`, with a mark on each task to park: its decision is then recorded, and never only counted."""
        asking = [task for task in decided if self._can_park(task)]
        if not asking:
            return decided
        over = [task for task in asking if task.opened.delivery.number == 1 and not self._charge_budget(task)]
        are_parked = await asyncio.gather(*map(self._is_parked, over))
        denied = {id(task) for task, is_parked in zip(over, are_parked, strict=True) if not is_parked}
        parks = {id(task) for task in asking} - denied
        return [task._replace(parks=True) if id(task) in parks else task for task in decided]

    def _can_park(self, decided: Decided) -> bool:
        decision, message = decided.decision, decided.opened.message
        if decision is None or decision.allow is not False or decided.error is not None or not decision.obligations:
            return False
        if (
            message.header.kind is not Kind.TASK
            or decided.opened.delivery.arrival is None
            or decided.opened.resumed is not None
        ):
            return False
        if approval_of(decision.obligations) is None:
            return False
        if len(decided.opened.delivery.payload) > ENVELOPE_BYTES or len(decided.input_document) > INPUT_BYTES:
            self._operator_log.warning("a task of %s is too large to be parked", decided.opened.route.action)
            return False
        if _waits_until(decided.opened.message.header) <= self._site.bus_clock():
            # Its requester waits no longer.
            return False
        try:
            redacted = self._audit.record(decided).redacted
        except SealError:
            # It is refused when it is recorded.
            return False
        if redacted:
            # The question who may approve contains the recorded input document, which must not lack the requester.
            self._operator_log.warning(
                "a task of %s is not parked: audit.redact removes parts of its record", decided.opened.route.action
            )
            return False
        return True

    async def _is_parked(self, decided: Decided) -> bool:
        """Return whether a task over the budget is parked already; true if that is not known, because `park` looks again.

        A consumer that was created again delivers it as if for the first time. Denied, it could still be approved.
        """
        header = decided.opened.message.header
        try:
            if await self._stores.tasks.find(header.digest) is not None:
                return True
        except SealbusError:
            return True
        self._site.counters.add("sealbus_parked_total", 1, outcome="over_budget")
        self._operator_log.warning("%s asks for too many approvals: denied", header.iss.value)
        return False

    def _charge_budget(self, decided: Decided) -> bool:
        """Charge a task to the budget of its user in this minute; return whether the budget allows it."""
        minute = self._site.bus_clock() // MINUTE
        if minute != self._minute:
            self._minute = minute
            self._parked.clear()
        context = decided.opened.message.context
        user = (context.idp, context.sub) if context is not None else ("", "")
        key = (decided.opened.message.header.iss.value, *user)
        if self._parked[key] >= self._a_minute or (key not in self._parked and len(self._parked) >= _KNOWN):
            return False
        self._parked[key] += 1
        return True

    async def park(self, decided: Decided, settlement: Settlement, explanation: Explanation) -> None:
        """Park the task of a recorded decision, tell its requester, and acknowledge the delivery.

        While HELD cannot be written, the delivery is put off, until its `exp`.
        """
        delivery, message = decided.opened.delivery, decided.opened.message
        parked = self.parked(decided)
        try:
            # A first delivery is rarely parked already, and the write fails if it is: no need to look.
            known = await self._stores.tasks.find(parked.digest) if delivery.number > 1 else None
            if known is None:
                if not await self._stores.tasks.create(parked):
                    # Another process has stored the task, or bytes of others are in its place.
                    known = await self._stores.tasks.find(parked.digest)
                    if known is None:
                        raise StateUnavailable("the place of a parked task is taken")
                known = known or parked
            if known.state is not ParkedState.ENDED:
                await self._stores.markers.put(message.header, until=known.until, ended=False, first=known is parked)
            # A cancel that came before did not find the task here.
            if self._stops.suspects(message) and (stored := await self._stores.tasks.find(parked.digest)):
                ended = await self._cancels.met(stored)
                known = replace(stored, state=ParkedState.ENDED) if ended else stored
        except SealbusError as error:
            delay = UNTIL_EXPIRY.delay(
                delivery.number, random=self._site.random(), now=self._site.bus_clock(), until=message.header.exp
            )
            self._site.counters.add("sealbus_parked_total", 1, outcome="put_off")
            self._operator_log.warning("a task of %s is not parked: %s", decided.opened.route.action, error.detail)
            if delay is not None:
                self._places.put_off(Cause.PASSING, delivery, settlement, delay)
                return
            reporter = self._stores.statuses.reporter(message, delivery)
            if reporter is not None and await self._given_up(parked.digest):
                await reporter.tell(State.EXPIRED, code=Code.STATE_UNAVAILABLE)
            settlement.term(delivery)
            return
        if known.state is ParkedState.WAITING:
            # Numbered by the delivery that was parked, not by later ones: later statuses then have higher numbers.
            reporter, note = self._stores.statuses.of(message.header, known.arrival.delivery), waits_note(known.until)
            await reporter.tell(State.INPUT_REQUIRED, code=Code.APPROVAL_REQUIRED, explanation=explanation, note=note)
        self._site.counters.add("sealbus_parked_total", 1, outcome="parked")
        action = decided.opened.route.action
        self._operator_log.message(
            "parked", message.header, action=action, code=Code.APPROVAL_REQUIRED, context=message.context
        )
        settlement.ack([delivery])

    async def _given_up(self, digest: bytes) -> bool:
        """End a stored task that is not parked after all; return whether it can no longer be approved."""
        try:
            known = await self._stores.tasks.find(digest)
            if known is None:
                return True
            ended = replace(known, state=ParkedState.ENDED)
            return known.state is ParkedState.WAITING and await self._stores.tasks.change(known, ended) is not None
        except SealbusError:
            return False

    def parked(self, decided: Decided) -> Parked:
        """Return the parked task of a decision that `mark` marked."""
        delivery, message = decided.opened.delivery, decided.opened.message
        obligation = approval_of(decided.decision.obligations) if decided.decision is not None else None
        if obligation is None or delivery.arrival is None:
            raise ValueError("not to be parked")
        since = self._site.bus_clock()
        until = min(
            since + obligation.until * SECOND,
            _waits_until(message.header),
            delivery.arrival.stored + LONGEST_WAIT,
        )
        record = self._audit.record(decided).encode()
        return Parked(record=record, envelope=delivery.payload, since=since, until=until)


def _waits_until(header: Header) -> int:
    """Return until when the requester of a task waits for its result, by a mark of the task or by its end (microseconds)."""
    mark = header.ext.get(WAIT) if header.ext is not None else None
    longest = header.iat + LONGEST_WAIT
    if type(mark) is int and mark > 0:
        return min(mark, longest)
    return header.end if header.end is not None else header.exp
