"""How a parked task goes on: a verdict that was decided and recorded is counted, and the policy is asked about the task anew.

::

    verdict recorded --counted (compare-and-set)--> task decided again, recorded --allowed--> its handler runs, as it came
                                                         |--the same approval again--> waits on
                                                         |--another one--> parked anew, what was said is void
                                                         `--denied--> rejected

What redelivers the approval redelivers all of it: the task runs as the approval's delivery, and is acknowledged with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import BoundedTasks
from sealbus.bus.gate.approval_authorizer import ApprovalCase, verdict_of
from sealbus.bus.gate.authorizer import Authorizer
from sealbus.bus.ports import Clock, ConsumerLoad, Delivery, Identity, Pull, wall_clock
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import UNTIL_EXPIRY
from sealbus.bus.routing.routes import Permitted, Resumed, RouteTable, TaskReporter
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.sending.approval import ApprovalRequest, Verdict, parse_approval
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.bus.streams.held import Held, PastTrust
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.bus.work.approvals.marker import Markers, StoredMarker, waits_note
from sealbus.bus.work.approvals.parked_tasks import (
    INPUT_BYTES,
    CountedVerdict,
    Parked,
    ParkedState,
    ParkedTasks,
    counted,
)
from sealbus.bus.work.executor.executor import Executor
from sealbus.bus.work.idempotency.effects import effect_key
from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage, credential_issued
from sealbus.envelopes.accept.parked import accept_parked
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import RETRIED_CODES, Code, EnvelopeError, SealbusError, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.policies.decision.approval import approval_of
from sealbus.policies.decision.request import NO_RESOURCE, Resource, rfc3339
from sealbus.policies.decision.request import Parked as ParkedFacts

if TYPE_CHECKING:
    from sealbus.bus.telemetry.spans import Processing
    from sealbus.bus.telemetry.tracing import Tracer

__all__ = ["ApprovalEndpoint", "Resumption", "reopened"]

_log: Final = logging.getLogger(__name__)

LOST: Final = 0.5
"""Seconds until an approval is tried again where another was counted at the same moment."""
DECIDED_WITHIN: Final = 60 * SECOND
"""How long after a verdict was counted its task may be decided on, though its time is over meanwhile (microseconds)."""
END_AGAIN: Final = (0.2, 1.0, 5.0)
"""Pauses between tries to store that a parked task has ended."""
_EFFECT_TYPE: Final = "application/vnd.sealbus.parked-effect.v1"
"""Payload type of the note that a request with an idempotency key has gone on."""


class _Again(Exception):
    """The approval is to be delivered again, because something is not available now."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds


class Resumption:
    """What handles the approvals of one agent behind their gate; the tasks themselves run in `executor`."""

    def __init__(
        self,
        *,
        tasks: ParkedTasks,
        markers: Markers,
        held: Held,
        past: PastTrust,
        identity: Identity,
        profile: LiveProfile,
        authorizer: Authorizer,
        audit: AuditWriter,
        executor: Executor,
        routes: RouteTable,
        trust: Callable[[], Trust],
        caches: Caches,
        counters: Counters,
        background: BoundedTasks,
        random: Callable[[], float],
        clock: Clock = wall_clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._tasks = tasks
        self._markers = markers
        self._held = held
        self._past = past
        self._identity = identity
        self._profile = profile
        self._authorizer = authorizer
        self._audit = audit
        self._executor = executor
        self._routes = routes
        self._trust = trust
        self._caches = caches
        self._counters = counters
        self._background = background
        self._random = random
        self._clock = clock
        self._said = OperatorLog(_log)
        self._under_way: set[bytes] = set()
        """H(header) of each approval that was put here and is not settled: at most its consumer's `max_ack_pending`."""

    def reporter(self, message: VerifiedMessage, delivery: Delivery) -> TaskReporter | None:
        """Return the reporter of an approval's status."""
        return self._executor.reporter(message, delivery)

    def mark(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """Return `decided` without the approvals that are under way here; no approval waits for an approval.

        The server delivers an approval again whose task takes longer than `ack_wait`. Counted again, it would take the task
        away from its own earlier delivery, which then could not end it. The earlier delivery settles both.
        """
        return [one for one in decided if one.opened.message.header.digest not in self._under_way]

    async def put(self, permitted: Permitted, delivery: Delivery, pull: Pull | None) -> None:
        """Count an approval that was decided and recorded, and go on with its task; return once there is room for that."""
        if pull is None:
            raise TypeError("an approval comes from a stream")
        if permitted.span is not None:
            # What follows has the span of the task that goes on.
            permitted.span.end("taken up")
        digest = permitted.message.header.digest
        if digest in self._under_way:
            # Both deliveries were decided before one of them was put here.
            return
        self._under_way.add(digest)
        await self._background.start(
            self._resume, permitted, delivery, _SettledOnce(pull, partial(self._under_way.discard, digest))
        )

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off what has no handler here."""
        await self._executor.put_off(message, delivery, pull)

    async def turn_down(self, decided: Decided, pull: Pull | None) -> None:
        """End an approval that steps 14 to 16 refused."""
        await self._executor.turn_down(decided, pull)

    async def answer_error(self, decided: Decided, error: SealbusError) -> None:
        """Do nothing: an approval is no call, and is delivered again."""

    async def _resume(self, permitted: Permitted, delivery: Delivery, pull: Pull) -> None:
        message, case = permitted.message, permitted.value
        if not isinstance(case, ApprovalCase):
            raise TypeError("not an approval")
        started = self._clock()
        try:
            try:
                parked = await self._counted(case, permitted)
            except SealbusError as error:
                raise _Again(f"it is not counted: {error.code}") from error
            micros = max(0, self._clock() - started)
            await self._audit.note(OutcomeRecord(decision=permitted.leaf, micros=micros, delivery=delivery.number))
            # Whoever approves is told that it is counted while its task goes on, and before the approval is acknowledged.
            told = asyncio.ensure_future(_tell(permitted))
            try:
                if case.request.verdict is Verdict.WITHDRAW:
                    await told
                    pull.ack([delivery])
                    return
                await self._go_on(parked, message, delivery, pull, told)
            finally:
                await told
        except _Again as again:
            await self._again(message, delivery, pull, again)
        except SealbusError as error:
            # One task that cannot go on must not end its worker.
            await self._again(message, delivery, pull, _Again(f"its task cannot go on: {error.code}"))

    async def _again(self, message: VerifiedMessage, delivery: Delivery, pull: Pull, again: _Again) -> None:
        self._said.warning("an approval is put off: %s", again)
        delay = again.seconds
        if delay is None:
            delay = UNTIL_EXPIRY.delay(
                delivery.number, random=self._random(), now=self._clock(), until=message.header.exp
            )
        if delay is None:
            await self._give_up(message)
            pull.term(delivery)
        else:
            pull.retry(delivery, delay)

    async def _give_up(self, message: VerifiedMessage) -> None:
        """End the task that an approval took up and does not come back to: its requester concludes that it expired.

        It does not wait again: its handler may have begun, and another approval weeks later would not know that.
        """
        digest = message.header.re
        try:
            parked = await self._tasks.find(digest) if digest is not None else None
        except SealbusError as error:
            self._said.warning("what an expired approval has taken up is not known: %s", error.code)
            return
        if parked is not None and parked.taken_up_by(message.header.digest):
            self._said.message("given up", parked.header, action=parked.decision.action, code=Code.EXPIRED)
            await self._end(parked)

    async def _counted(self, case: ApprovalCase, permitted: Permitted) -> Parked:
        """Store the verdict with the task, which is then taken up by it, unless it takes back what was said."""
        message, parked = permitted.message, case.parked
        header = message.header
        issued = credential_issued(message, trust=self._trust(), caches=self._caches)
        verdict = verdict_of(case, message, record=permitted.leaf, issued=issued)
        said = replace(parked, verdicts=counted(parked.verdicts, verdict))
        if case.request.verdict is Verdict.WITHDRAW:
            after = said
        else:
            await self._kept_open(parked)
            after = replace(said, state=ParkedState.RUNNING, run=header.digest, turn=parked.turn + 1)
        stored = await self._tasks.change(parked, after)
        if stored is None:
            raise _Again("another was counted at the same moment", LOST)
        return stored

    async def _kept_open(self, parked: Parked) -> None:
        """Have readers wait until the task can have been decided on; end it, and raise, where that is too late."""
        until = self._clock() + DECIDED_WITHIN
        if until <= parked.until:
            return
        if await self._markers.move(parked.header, until=until, since=parked.until) is None:
            await self._end(parked)
            raise _Again("its task has expired", LOST)

    async def _go_on(
        self, parked: Parked, approval: VerifiedMessage, delivery: Delivery, pull: Pull, told: asyncio.Future[None]
    ) -> None:
        """Decide about the task again, record that, and do what it says; `told` ends before the approval does."""

        async def end(marker: StoredMarker | None) -> bool:
            await asyncio.shield(told)
            return await self._end(parked, marker)

        ending = _ResumedPull(delivery, pull, end, self._background)
        route = self._routes.find(parked.header.to)
        if route is None:
            raise _Again("its verb has no handler here")
        try:
            message = await reopened(
                parked,
                profile=self._profile,
                trust=self._trust(),
                past=self._past,
                caches=self._caches,
            )
        except StateUnavailable as error:
            raise _Again("the keys of that time are not known now") from error
        except EnvelopeError as error:
            self._said.warning("a parked task does not verify any more: %s", error.code)
            ending.term(delivery)
            return
        task = Delivery(subject=parked.header.to, payload=parked.envelope, header_block=b"", arrival=parked.arrival)
        resumed = Resumed(
            approval=approval,
            approvals=tuple([one.given() for one in self._in_force(parked.verdicts)]),
            parked=ParkedFacts(since=rfc3339(parked.since // SECOND), revision=parked.decision.revision or ""),
        )
        opened = Opened(delivery=task, route=route, message=message, time=self._clock(), resumed=resumed)
        [decided] = await self._authorizer.authorize([opened])
        if decided.error is not None and decided.error.code in RETRIED_CODES:
            raise _Again(f"its task is not decided: {decided.error.code}")
        decision = decided.decision
        asked = approval_of(decision.obligations) if decided.code is Code.DENIED and decision is not None else None
        if asked is not None and asked != parked.obligation and not self._can_be_asked(decided):
            asked = None
        decided = decided._replace(parks=asked is not None)
        [leaf] = await self._audit.decisions([decided])
        if not isinstance(leaf, bytes):
            raise _Again(f"its decision is not recorded: {leaf.code}")
        reporter = self._executor.reporter(message, task)
        if decision is not None and decided.code is None:
            await self._run(parked, ending, decided, leaf, resumed, reporter)
        elif asked is not None:
            await self._wait_on(parked, decided, reporter)
            await asyncio.shield(told)
            pull.ack([delivery])
        else:
            await self._executor.turn_down(decided, ending)

    async def _run(
        self,
        parked: Parked,
        ending: _ResumedPull,
        decided: Decided,
        leaf: bytes,
        resumed: Resumed,
        reporter: TaskReporter | None,
    ) -> None:
        opened = decided.opened
        end = resumed.approval.header.end or 0
        if max(end, self._clock()) > parked.until:
            # Its requester looks for a result as long as it may be under way.
            try:
                ending.marker = await self._markers.move(parked.header, until=end, since=parked.until)
            except SealbusError as error:
                raise _Again(f"that it is under way is not stored: {error.code}") from error
            if ending.marker is None:
                # A requester may have been told that it has expired, and is not told anything else.
                self._said.message("expired", parked.header, action=opened.route.action, code=Code.EXPIRED)
                await self._not_run(decided, leaf, Code.EXPIRED)
                ending.term(opened.delivery)
                return
        if not await self._first_of_its_key(opened.message):
            if reporter is not None:
                await reporter.tell(
                    State.FAILED, code=Code.REPLAYED, note="the same request was approved and done before"
                )
            await self._not_run(decided, leaf, Code.REPLAYED)
            ending.ack([opened.delivery])
            return
        self._counters.add("sealbus_decisions_total", 1, action=opened.route.action, verdict="allow")
        permitted = Permitted(
            message=opened.message,
            value=decided.value,
            route=opened.route,
            leaf=leaf,
            sent=[],
            cancellation=Cancellation(),
            obligations=decided.decision.obligations if decided.decision is not None else (),
            reporter=reporter,
            resumed=resumed,
            span=self._span(decided, leaf),
        )
        await self._executor.put(permitted, opened.delivery, ending)

    async def _not_run(self, decided: Decided, leaf: bytes, code: Code) -> None:
        """Record that a task was allowed and its handler not called, and why."""
        delivery = decided.opened.delivery.number
        await self._audit.note(OutcomeRecord(decision=leaf, code=code, micros=0, delivery=delivery))

    def _span(self, decided: Decided, leaf: bytes) -> Processing | None:
        if self._tracer is None:
            return None
        return self._tracer.processing(decided, at=self._clock(), record=leaf)

    async def _first_of_its_key(self, message: VerifiedMessage) -> bool:
        """Note that a request with an idempotency key goes on; return whether no other copy of it has done so.

        What `once` remembers is gone after a day. Of the same request, parked twice and approved twice, one runs.
        """
        if message.header.idm is None:
            return True
        token = self._profile.names.token(self._identity.spiffe_id)
        subject = f"held.{token}.effect.{effect_key(message).hex()}"
        last = 0
        try:
            # The first has nothing before it: its write tells.
            while (
                await self._held.write(
                    subject,
                    {"dig": message.header.digest},
                    _EFFECT_TYPE,
                    self._identity.sealer(),
                    last=last,
                )
                is None
            ):
                known, now = await self._held.standing(subject, _EFFECT_TYPE)
                if known is not None:
                    return known.keys.octets("dig") == message.header.digest
                if now == last:
                    raise _Again("its effect was noted at the same moment", LOST)
                last = now
        except SealbusError as error:
            raise _Again(f"its effect is not known: {error.code}") from error
        return True

    async def _wait_on(self, parked: Parked, decided: Decided, reporter: TaskReporter | None) -> None:
        """Let the task wait: for more of the same approval, or for another, for which what was said before is void."""
        record = self._audit.record(decided).encode()
        anew = replace(parked, record=record, verdicts=(), state=ParkedState.WAITING, run=b"")
        same = anew.obligation == parked.obligation
        if not same:
            anew = replace(anew, until=min(parked.until, self._clock() + anew.obligation.until * SECOND))
        after = replace(parked, state=ParkedState.WAITING, run=b"") if same else anew
        try:
            # First: nobody can say anything after `until`, and a reader that does not know waits for longer.
            if await self._markers.move(parked.header, until=after.until, since=parked.until) is None:
                await self._end(parked)
                return
            if anew.obligation.queue == parked.obligation.queue:
                stored = await self._tasks.change(parked, after) is not None
            else:
                stored = await self._tasks.create_anew(after) and await self._store_end(parked)
        except SealbusError as error:
            raise _Again(f"that it waits on is not stored: {error.code}") from error
        if not stored:
            raise _Again("it was changed at the same moment", LOST)
        if reporter is not None:
            await reporter.tell(State.INPUT_REQUIRED, code=Code.APPROVAL_REQUIRED, note=waits_note(after.until))

    def _can_be_asked(self, decided: Decided) -> bool:
        """Return whether people can be asked about this decision, as `Parking` asks before a task is parked."""
        return len(decided.input_document) <= INPUT_BYTES and not self._audit.record(decided).redacted

    def _in_force(self, verdicts: Sequence[CountedVerdict]) -> list[CountedVerdict]:
        """Return the verdicts without what was withdrawn, or is under a credential that the operator has revoked since."""
        revoked = self._trust().revoked_before
        return [
            one for one in verdicts if one.verdict is not Verdict.WITHDRAW and one.issued >= revoked.get(one.edge, 0)
        ]

    async def _end(self, parked: Parked, marker: StoredMarker | None = None) -> bool:
        """Store that a parked task has ended, whose marker may be known; return whether that is so."""
        for pause in (*END_AGAIN, None):
            try:
                # The marker first: what has ended is not looked at again, and its marker would wait for ever.
                marker = await self._markers.put(parked.header, until=parked.until, ended=True, known=marker)
                if await self._store_end(parked):
                    return True
            except SealbusError as error:
                self._said.warning("that a parked task has ended is not stored: %s", error.code)
            if pause is not None:
                await asyncio.sleep(pause)
        return False

    async def _store_end(self, parked: Parked) -> bool:
        ended = replace(parked, state=ParkedState.ENDED)
        if await self._tasks.change(parked, ended) is not None:
            return True
        now = await self._tasks.find(parked.digest)
        return now is not None and now.state is ParkedState.ENDED


class ApprovalEndpoint:
    """The code behind the route of approvals, which have an authorizer of their own, and are handled by `Resumption`."""

    def decode(self, body: bytes, typ: str) -> ApprovalRequest:
        """Return the request (step 14)."""
        return parse_approval(body, typ)

    def properties(self, value: object) -> Mapping[str, object]:
        """Return nothing."""
        del value
        return {}

    async def resource(self, value: object) -> Resource:
        """Return none."""
        del value
        return NO_RESOURCE

    async def handle(self, permitted: Permitted) -> Content | None:
        """Raise `TypeError`."""
        raise TypeError("an approval is handled by what counts it")

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        """Return nothing: this is no call."""
        del permitted
        return None


class _SettledOnce:
    """A consumer for one of its deliveries; calls `settled` when that delivery is acknowledged, retried or terminated."""

    def __init__(self, pull: Pull, settled: Callable[[], None]) -> None:
        self._pull = pull
        self._settled = settled

    def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Raise `TypeError`: nothing is taken here."""
        raise TypeError("one delivery is no consumer")

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge the delivery."""
        self._settled()
        self._pull.ack(deliveries)

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Have the delivery delivered again."""
        self._settled()
        self._pull.retry(delivery, delay)

    def term(self, delivery: Delivery) -> None:
        """Terminate the delivery."""
        self._settled()
        self._pull.term(delivery)

    def working(self, delivery: Delivery) -> None:
        """Tell the broker that the delivery is still being handled."""
        self._pull.working(delivery)

    async def load(self) -> ConsumerLoad:
        """Ask for the load of the consumer."""
        return await self._pull.load()


class _ResumedPull:
    """Where a resumed task is settled: the approval's delivery, once it is stored that the task has ended."""

    def __init__(
        self,
        approval: Delivery,
        pull: Pull,
        end: Callable[[StoredMarker | None], Awaitable[bool]],
        background: BoundedTasks,
    ) -> None:
        self.marker: StoredMarker | None = None
        """The task's marker, as it was stored last by whoever runs it."""
        self._approval = approval
        self._pull = pull
        self._end = end
        self._background = background

    def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        """Raise `TypeError`: nothing is taken here."""
        raise TypeError("a resumed task is no consumer")

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Store that the task has ended, then acknowledge the approval; if that fails, it is delivered again."""
        self._background.start_at_once(self._settle(self._acknowledge))

    def retry(self, delivery: Delivery, delay: float) -> None:
        """Have the approval delivered again, and with it the task."""
        self._pull.retry(self._approval, delay)

    def term(self, delivery: Delivery) -> None:
        """Store that the task has ended, then terminate the approval."""
        self._background.start_at_once(self._settle(self._terminate))

    def working(self, delivery: Delivery) -> None:
        """Tell the broker that the approval is still being handled."""
        self._pull.working(self._approval)

    async def load(self) -> ConsumerLoad:
        """Ask for the load of the consumer of approvals."""
        return await self._pull.load()

    async def _settle(self, then: Callable[[], None]) -> None:
        if await self._end(self.marker):
            then()
        else:
            self._pull.retry(self._approval, END_AGAIN[-1])

    def _acknowledge(self) -> None:
        self._pull.ack([self._approval])

    def _terminate(self) -> None:
        self._pull.term(self._approval)


async def _tell(permitted: Permitted) -> None:
    if permitted.reporter is not None:
        await permitted.reporter.completed(None)


async def reopened(
    parked: Parked,
    *,
    profile: LiveProfile,
    trust: Trust,
    past: PastTrust,
    caches: Caches,
) -> VerifiedMessage:
    """Verify the message of a parked task again, with the bundles of now or of when it was stored, and return it.

    Raises `EnvelopeError` if it is not genuine, `StateUnavailable` if it may be, but the bundles of then are not known now.
    """
    arrival = parked.arrival
    reader = ResultProfile(own=profile.own, names=profile.names, formats=profile.formats)

    def verified(with_trust: Trust) -> VerifiedMessage:
        return accept_parked(
            parked.envelope,
            parked.digest,
            arrival,
            reader,
            own_subjects=profile.own_subjects,
            minters=profile.minters,
            trust=with_trust,
            caches=caches,
        )

    try:
        return verified(trust)
    except EnvelopeError as error:
        if error.code not in (Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN):
            raise
        failure = error
    for then in await past.at(arrival.stored):
        try:
            return verified(then)
        except EnvelopeError as error:
            failure = error
    raise failure
