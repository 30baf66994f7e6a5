"""How a parked task goes on: a recorded verdict is counted, and the gate decides the task anew.

::

    verdict recorded --counted (compare-and-set)--> task decided again, recorded --allowed--> its handler runs, as it came
                                                         |--the same approval again--> waits on
                                                         |--another approval--> parked anew, earlier verdicts are void
                                                         `--denied--> rejected

The task runs as the approval's delivery, and is settled with it: a redelivered approval repeats all of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import BoundedTasks
from sealbus.bus.gate.approval_authorizer import ApprovalCase, verdict_of
from sealbus.bus.gate.gate import Gate
from sealbus.bus.gate.opener import Opener
from sealbus.bus.ports import Delivery, Settlement
from sealbus.bus.routing.retry import UNTIL_EXPIRY
from sealbus.bus.routing.routes import Permitted, Resumed, TaskReporter
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.sending.status import State
from sealbus.bus.site import Site
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.approvals.marker import StoredMarker, waits_note
from sealbus.bus.work.approvals.parked_tasks import INPUT_BYTES, CountedVerdict, Parked
from sealbus.bus.work.approvals.progress import END_AGAIN, NotNow, ParkedProgress
from sealbus.envelopes.accept.live import VerifiedMessage, credential_issued
from sealbus.envelopes.errors import Code, EnvelopeError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.approval import approval_of
from sealbus.policies.decision.request import Parked as ParkedFacts
from sealbus.policies.decision.request import rfc3339

_logger: Final = logging.getLogger(__name__)


class Resumption:
    """Takes the permitted approvals of one agent, and has `gate` admit the tasks that they take up.

    `opener` and `gate` are those of the agent's tasks. What an approval waits for runs in `background`.
    """

    def __init__(
        self,
        site: Site,
        *,
        progress: ParkedProgress,
        opener: Opener,
        gate: Gate,
        audit: AuditWriter,
        background: BoundedTasks,
    ) -> None:
        self._site = site
        self._progress = progress
        self._opener = opener
        self._gate = gate
        self._audit = audit
        self._background = background
        self._operator_log = OperatorLog(_logger)
        self.under_way: set[bytes] = set()
        """H(header) of each approval that was taken here and is not settled: at most its consumer's `max_ack_pending`."""

    async def take(self, permitted: Permitted, delivery: Delivery, settlement: Settlement) -> None:
        """Count an approval that was decided and recorded, and go on with its task; return once there is room for that."""
        if permitted.span is not None:
            # What follows has the span of the task that goes on.
            permitted.span.end("taken up")
        digest = permitted.message.header.digest
        if digest in self.under_way:
            # Both deliveries were decided before this process took one of them.
            return
        self.under_way.add(digest)
        await self._background.start(self._resume, permitted, delivery, settlement)

    async def _resume(self, permitted: Permitted, delivery: Delivery, settlement: Settlement) -> None:
        message, case = permitted.message, permitted.value
        if not isinstance(case, ApprovalCase):
            raise TypeError("not an approval")
        started = self._site.bus_clock()
        confirmation: asyncio.Future[None] | None = None
        approval = _Approval(message, delivery, settlement, self.under_way)
        try:
            try:
                parked = await self._count(case, permitted)
            except SealbusError as error:
                raise NotNow(f"it is not counted: {error.code}") from error
            micros = max(0, self._site.bus_clock() - started)
            await self._audit.note(OutcomeRecord(decision=permitted.leaf, micros=micros, delivery=delivery.number))
            # The person is told that the verdict is counted while the task goes on, and before the approval is acknowledged.
            confirmation = asyncio.ensure_future(_confirm(permitted))
            try:
                if case.request.verdict is Verdict.WITHDRAW:
                    await confirmation
                    approval.ack()
                else:
                    await self._go_on(parked, approval, confirmation)
            finally:
                await confirmation
        except NotNow as later:
            await self._try_again(approval, later)
        except SealbusError as error:
            # One task that cannot go on must not end its worker.
            await self._try_again(approval, NotNow(f"its task cannot go on: {error.code}"))

    async def _try_again(self, approval: _Approval, later: NotNow) -> None:
        self._operator_log.warning("an approval is put off: %s", later)
        delay = later.seconds
        if delay is None:
            now, until = self._site.bus_clock(), approval.message.header.exp
            delay = UNTIL_EXPIRY.delay(approval.delivery.number, random=self._site.random(), now=now, until=until)
        if delay is None:
            await self._give_up(approval.message)
            approval.term()
        else:
            approval.retry(delay)

    async def _give_up(self, message: VerifiedMessage) -> None:
        """End the task that an expired approval has taken up: its requester concludes that it expired.

        The task does not wait again: its handler may have begun, and another approval weeks later would not know that.
        """
        digest = message.header.re
        try:
            parked = await self._progress.find(digest) if digest is not None else None
        except SealbusError as error:
            self._operator_log.warning("what an expired approval has taken up is not known: %s", error.code)
            return
        if parked is not None and parked.taken_up_by(message.header.digest):
            action = parked.decision.action
            self._operator_log.message("given up", parked.header, action=action, code=Code.EXPIRED)
            await self._progress.end(parked)

    async def _count(self, case: ApprovalCase, permitted: Permitted) -> Parked:
        """Store the verdict with the task; the approval then has taken it up, unless it withdraws an earlier verdict."""
        message = permitted.message
        issued = credential_issued(message, trust=self._site.trust(), caches=self._site.caches)
        verdict = verdict_of(case, message, record=permitted.leaf, issued=issued)
        if case.request.verdict is Verdict.WITHDRAW:
            return await self._progress.count_withdrawal(case.parked, verdict)
        return await self._progress.count_verdict(case.parked, verdict)

    async def _go_on(self, parked: Parked, approval: _Approval, confirmation: asyncio.Future[None]) -> None:
        """Open the task again and have the gate admit it; the approval is settled after `confirmation`."""
        source = _ParkedSource(self._site, self._audit, self._progress, parked)

        async def end() -> bool:
            await asyncio.shield(confirmation)
            return await self._progress.end(parked, source.marker)

        source.settlement = _TaskSettlement(approval, end, self._background)
        approvals = verdicts_in_force(parked.verdicts, self._site.trust().revoked_before)
        resumed = Resumed(
            approval=approval.message,
            approvals=tuple([verdict.given() for verdict in approvals]),
            parked=ParkedFacts(since=rfc3339(parked.since // SECOND), revision=parked.decision.revision or ""),
        )
        try:
            opened = await self._opener.reopen(parked, resumed)
        except StateUnavailable as error:
            raise NotNow("the keys of that time are not known now") from error
        except EnvelopeError as error:
            self._operator_log.warning("a parked task does not verify any more: %s", error.code)
            source.settlement.term(approval.delivery)
            return
        if opened is None:
            raise NotNow("its verb has no handler here")
        await self._gate.admit_opened(opened, source)
        if source.waits:
            await asyncio.shield(confirmation)
            approval.ack()


class _ParkedSource:
    """A parked task as the gate admits it."""

    settlement: Settlement

    def __init__(self, site: Site, audit: AuditWriter, progress: ParkedProgress, parked: Parked) -> None:
        self._site = site
        self._audit = audit
        self._progress = progress
        self._parked = parked
        self._operator_log = OperatorLog(_logger)
        self.marker: StoredMarker | None = None
        """The task's marker, if it was stored since the approval took the task up."""
        self.waits = False
        """Whether the task waits for another approval or verdict, or has ended because that was too late."""

    def mark(self, decided: Decided) -> Decided:
        """Return the decision, marked if it asks for an approval that people can be asked for.

        For another approval the conditions are those of `Parking`.
        """
        decision = decided.decision
        if decision is None or decided.code is not Code.DENIED:
            return decided
        obligation = approval_of(decision.obligations)
        if obligation is None:
            return decided
        if obligation == self._parked.obligation:
            return decided._replace(parks=True)
        can_be_asked = len(decided.input_document) <= INPUT_BYTES and not self._audit.record(decided).redacted
        return decided._replace(parks=can_be_asked)

    async def may_run(self, decided: Decided, leaf: bytes, reporter: TaskReporter | None) -> bool:
        """Return whether the task may run; end it if its requester may have been told otherwise, or a copy of it has run."""
        opened, parked = decided.opened, self._parked
        end = (opened.resumed.approval.header.end or 0) if opened.resumed is not None else 0
        if max(end, self._site.bus_clock()) > parked.until:
            # Its requester looks for a result as long as it may be under way.
            try:
                self.marker = await self._progress.move(parked, end)
            except SealbusError as error:
                raise NotNow(f"that it is under way is not stored: {error.code}") from error
            if self.marker is None:
                # A requester may have been told that it has expired, and is not told anything else.
                self._operator_log.message("expired", parked.header, action=opened.route.action, code=Code.EXPIRED)
                await self._note_not_run(decided, leaf, Code.EXPIRED)
                self.settlement.term(opened.delivery)
                return False
        try:
            is_first = await self._progress.is_first_of_its_key(opened.message)
        except SealbusError as error:
            raise NotNow(f"its effect is not known: {error.code}") from error
        if not is_first:
            if reporter is not None:
                note = "the same request was approved and done before"
                await reporter.tell(State.FAILED, code=Code.REPLAYED, note=note)
            await self._note_not_run(decided, leaf, Code.REPLAYED)
            self.settlement.ack([opened.delivery])
        return is_first

    async def _note_not_run(self, decided: Decided, leaf: bytes, code: Code) -> None:
        """Record that a task was allowed and its handler not called, and why."""
        delivery = decided.opened.delivery.number
        await self._audit.note(OutcomeRecord(decision=leaf, code=code, micros=0, delivery=delivery))

    async def wait(self, decided: Decided, reporter: TaskReporter | None) -> None:
        """Store that the task waits, and tell its requester until when."""
        try:
            waiting = await self._progress.wait(self._parked, self._audit.record(decided).encode())
        except SealbusError as error:
            raise NotNow(f"that it waits on is not stored: {error.code}") from error
        self.waits = True
        if waiting is not None and reporter is not None:
            note = waits_note(waiting.until)
            await reporter.tell(State.INPUT_REQUIRED, code=Code.APPROVAL_REQUIRED, note=note)


class _Approval:
    """An approval that was taken, and its delivery; it is under way until the delivery is settled."""

    def __init__(
        self, message: VerifiedMessage, delivery: Delivery, settlement: Settlement, under_way: set[bytes]
    ) -> None:
        self.message = message
        self.delivery = delivery
        self._settlement = settlement
        self._under_way = under_way

    def _leave(self) -> Settlement:
        self._under_way.discard(self.message.header.digest)
        return self._settlement

    def ack(self) -> None:
        """Acknowledge the delivery."""
        self._leave().ack([self.delivery])

    def retry(self, delay: float) -> None:
        """Have the delivery delivered again after `delay` seconds."""
        self._leave().retry(self.delivery, delay)

    def term(self) -> None:
        """Terminate the delivery."""
        self._leave().term(self.delivery)

    def working(self) -> None:
        """Tell the broker that the delivery is still being handled."""
        self._settlement.working(self.delivery)


class _TaskSettlement:
    """Settles a resumed task with the delivery of its approval, once `end` has stored that the task has ended."""

    def __init__(self, approval: _Approval, end: Callable[[], Awaitable[bool]], background: BoundedTasks) -> None:
        self._approval = approval
        self._end = end
        self._background = background

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Store that the task has ended, then acknowledge the approval; if that fails, it is delivered again."""
        self._background.start_at_once(self._settle(self._approval.ack))

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Have the approval delivered again, and with it the task."""
        self._approval.retry(delay)

    def term(self, delivery: Delivery) -> None:
        """Store that the task has ended, then terminate the approval."""
        self._background.start_at_once(self._settle(self._approval.term))

    def working(self, delivery: Delivery) -> None:
        """Tell the broker that the approval is still being handled."""
        self._approval.working()

    async def _settle(self, then: Callable[[], None]) -> None:
        if await self._end():
            then()
        else:
            self._approval.retry(END_AGAIN[-1])


async def _confirm(permitted: Permitted) -> None:
    if permitted.reporter is not None:
        await permitted.reporter.completed(None)


def verdicts_in_force(
    verdicts: Sequence[CountedVerdict], revoked_before: Mapping[SpiffeId, int]
) -> list[CountedVerdict]:
    """Return the verdicts that were not withdrawn and whose credential the operator has not revoked.

    A credential of an edge is revoked if it was issued before the time in `revoked_before` (microseconds).
    """
    return [
        verdict
        for verdict in verdicts
        if verdict.verdict is not Verdict.WITHDRAW and verdict.issued >= revoked_before.get(verdict.edge, 0)
    ]
