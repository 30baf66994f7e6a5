"""The worker's side of task statuses, published on `status.<requester>.<task id>` (SPEC.md section 7).

Storing a status is tried for a bounded time; a failure is then counted and logged, and the requester concludes `expired`
at the task's end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Unpack

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.routing.timers import Deadlines
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.sending.parts import PartsTally
from sealbus.bus.sending.status import (
    FINAL,
    PART_NUMBER,
    PER_DELIVERY,
    State,
    Status,
    StatusDetails,
    encode,
    sequence_of,
)
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.denial import NOTHING_TOLD
from sealbus.envelopes.errors import Code, HandlingError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import status_subject
from sealbus.envelopes.trust.names import Names

_logger = logging.getLogger(__name__)

STATUS_LIFE = 86_400 * SECOND
"""The longest life that a status may have: its requester may read it much later."""

NOTHING = Content(body=b"null", typ="application/json")
"""The result of a handler that returned nothing."""

_STORED = "stored"
"""Metric label of a status that was acknowledged in time."""


class Statuses:
    """Writes the statuses of one worker's tasks; each has `within` seconds to be stored."""

    def __init__(self, *, names: Names, outbox: Outbox, counters: Counters, within: float = 10.0) -> None:
        self._names = names
        self._outbox = outbox
        self._counters = counters
        self._within = within
        self._deadlines = Deadlines()
        self._operator_log = OperatorLog(_logger)

    def reporter(self, message: VerifiedMessage, delivery: Delivery) -> StatusReporter | None:
        """Return the reporter of the statuses of a task, or `None` for messages of other kinds."""
        return self.of(message.header, delivery.number) if message.header.kind is Kind.TASK else None

    def of(self, task: Header, delivery: int) -> StatusReporter:
        """Return the reporter of one delivery of the task with this header, which was verified once."""
        return StatusReporter(self, task, delivery)

    async def store(self, task: Header, status: Status) -> bool:
        """Store `status` of `task`; return whether that was acknowledged in time. Raises nothing."""
        try:
            with self._deadlines.within(self._within):
                await self._outbox.publish(self._outgoing(task, status), within=self._within)
        except TimeoutError:
            return self._note(task, status, "timeout")
        except SealbusError as error:
            return self._note(task, status, str(error.code))
        return self._note(task, status, _STORED)

    async def store_each(self, statuses: Sequence[tuple[Header, Status | None]]) -> list[bool]:
        """Store the statuses of several tasks in one write.

        Return for each whether it was stored in time; `False` for `None`.
        """
        present = [(task, status) for task, status in statuses if status is not None]
        outcomes: list[str]
        try:
            with self._deadlines.within(self._within):
                messages = [self._outgoing(task, status) for task, status in present]
                answers = await self._outbox.publish_each(messages, within=self._within)
                outcomes = [str(answer.code) if isinstance(answer, SealbusError) else _STORED for answer in answers]
        except TimeoutError:
            outcomes = ["timeout"] * len(present)
        except SealbusError as error:
            outcomes = [str(error.code)] * len(present)
        stored = iter([self._note(*entry, outcome) for entry, outcome in zip(present, outcomes, strict=True)])
        return [status is not None and next(stored) for _, status in statuses]

    def _outgoing(self, task: Header, status: Status) -> OutgoingMessage:
        body = encode(status)
        return OutgoingMessage(
            Draft(
                kind=Kind.STATUS,
                to=status_subject(self._names.token(task.iss), task.id),
                aud=task.iss,
                body=body.body,
                typ=body.typ,
                re=task.digest,
                seq=status.sequence,
                fin=status.final,
                tid=task.tid,
                ext={PART_NUMBER: status.number} if status.part is not None else None,
            ),
            life=STATUS_LIFE,
        )

    def _note(self, task: Header, status: Status, outcome: str) -> bool:
        """Count the outcome of storing a status; return whether it was stored."""
        self._counters.add("sealbus_statuses_total", 1, state=status.state.value, outcome=outcome)
        if outcome != _STORED:
            self._operator_log.warning("status %s of a task of %s not stored: %s", status.state, task.iss, outcome)
        return outcome == _STORED


class StatusReporter:
    """Reports one delivery of one task to its requester, in numbered statuses."""

    def __init__(self, statuses: Statuses, task: Header, delivery: int) -> None:
        self._statuses = statuses
        self._task = task
        self._delivery = delivery
        self._next = 0

    @property
    def begun(self) -> bool:
        """Whether a status that is not final was numbered for this delivery."""
        return self._next > 0

    def numbered(self, state: State, **details: Unpack[StatusDetails]) -> Status | None:
        """Return the next status for `store`. Statuses are numbered in the order of these calls.

        A delivery has 65,536 numbers, the last of which is reserved for its final status. Returns `None` if the others are
        used up. Raises `ValueError` for an invalid status (`Status`).
        """
        final, explanation = state in FINAL, details.get("explanation", NOTHING_TOLD)
        number = PER_DELIVERY - 1 if final else self._next
        status = Status(
            state=state,
            code=str(details.get("code", "")),
            reasons=explanation.reasons,
            remedies=explanation.remedies,
            via=explanation.via,
            note=details.get("note", ""),
            result=details.get("result"),
            by=details.get("by"),
            sequence=sequence_of(self._delivery, number),
        )
        if final:
            return status
        if number >= PER_DELIVERY - 1:
            return None
        self._next += 1
        return status

    def part(self, content: Content, number: int) -> Status | None:
        """Return the next status as part `number` of the result; `None` if this delivery has no numbers left."""
        place = self._next
        if place >= PER_DELIVERY - 1:
            return None
        self._next += 1
        return Status(state=State.WORKING, part=content, number=number, sequence=sequence_of(self._delivery, place))

    async def store(self, status: Status | None) -> bool:
        """Store a status; return whether that was acknowledged within a bounded time. Raises nothing."""
        return status is not None and await self._statuses.store(self._task, status)

    async def tell(self, state: State, **details: Unpack[StatusDetails]) -> bool:
        """Store the next status at once; see `numbered` and `store`."""
        return await self.store(self.numbered(state, **details))

    async def completed(self, result: Content | None) -> bool:
        """Store the final status of a completed task; `None` stands for a handler that returned nothing."""
        return await self.tell(State.COMPLETED, result=result or NOTHING)


class PartWriter:
    """Stores the parts of the result of one attempt as statuses for the requester.

    Each part is stored before the next. So parts are in order, and the handler is no faster than the stream.
    """

    def __init__(self, reporter: TaskReporter) -> None:
        self._reporter = reporter
        self._tally: PartsTally | None = None
        self.result: Content | None = None
        """The result that stands for all parts, once all are stored; `None` for a handler that returns one result."""

    async def write(self, permitted: Permitted, part: Content, number: int, fin: bool) -> None:
        """Store a part; `fin` means that there are no more parts. Raises `HandlingError` if the part cannot be stored."""
        del permitted, number
        tally = self._tally = self._tally or PartsTally()
        if fin:
            self.result = tally.result()
        elif not await self._reporter.store(self._reporter.part(part, tally.add(part))):
            raise HandlingError(Code.HANDLER_FAILED, "a part of the result was not stored")
