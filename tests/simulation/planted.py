"""Safeguards of the product that can be removed, one at a time, to see that the simulation misses each.

Each function changes classes of this process, which is forked for one plan and ends with it.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from sealbus.agents.control.notary import key_book
from sealbus.agents.control.notary.log.message_verifier import MessageVerifier
from sealbus.agents.control.notary.term import Term
from sealbus.agents.edge.front import Front
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.agents.sdk.messages import Origin
from sealbus.bus.audit.trail import AuditEntry, AuditTrail, Finding
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.cells import CellTransport
from sealbus.bus.gate import approval_authorizer
from sealbus.bus.gate.status_reader import StatusReading
from sealbus.bus.nats import consumer_binding
from sealbus.bus.nats.api import api
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.bus.nats.durable_consumer import Bound, DurableSpec, look
from sealbus.bus.ports import Delivery, NotAcknowledged, Outgoing, PubAck, Request, Transport
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.streams.declared import DUPLICATE_WINDOW
from sealbus.bus.streams.key_book import KeyBook
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.ack_floors import StoredFloors, floor_key
from sealbus.bus.work.cancel import in_force, room
from sealbus.bus.work.cancel.endpoint import CancelEndpoint
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.cancel.stop import STOPS, Stop
from sealbus.bus.work.executor.attempt_counts import FailedAttempts
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.executor import Executor
from sealbus.bus.work.executor.settlement import WorkSettlement
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency import effects
from sealbus.bus.work.idempotency.claim import Stage, StoredClaim
from sealbus.bus.work.idempotency.claim_store import ClaimStore
from sealbus.bus.work.schedules import scheduler
from sealbus.bus.work.schedules.endpoint import ScheduleEndpoint
from sealbus.bus.work.schedules.rule import newest_missed
from sealbus.bus.work.schedules.tick import TakenTick, Tick, TickClaims
from sealbus.bus.work.status_writer import StatusReporter
from sealbus.bus.work.timely_arrays import StoredArray
from sealbus.envelopes.accept import live
from sealbus.envelopes.errors import HandlingError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message import chain
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.trust.caches import BoundedMap
from sealbus.envelopes.trust.names import Names
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.engines.revoking import RevokingEngine
from simulation import console, network, run

__all__ = ["EARLIER", "PLANTED", "RARE"]

_Planted = Callable[[], None]
TELL_AGAIN_MOST: Final = 9
"""The deliveries after which a result was given up, before that was found."""


def _record_not_awaited() -> None:
    """Handlers begin before the record of their decision is stored."""
    stored, waiting = AuditWriter.decisions, set[asyncio.Task[Any]]()

    async def decisions(self: AuditWriter, decided: Sequence[Any], places: Any = None) -> Sequence[Any]:
        leaves, _ = self._batched(decided)
        waiting.add(asyncio.get_running_loop().create_task(stored(self, decided, places)))
        return [leaf if isinstance(leaf, bytes) else bytes(32) for leaf in leaves]

    AuditWriter.decisions = decisions  # type: ignore[method-assign]


def _record_not_needed() -> None:
    """Handlers begin though the record of their decision could not be stored."""
    stored = AuditWriter.decisions

    async def decisions(self: AuditWriter, decided: Sequence[Any], places: Any = None) -> Sequence[Any]:
        return [leaf if isinstance(leaf, bytes) else bytes(32) for leaf in await stored(self, decided, places)]

    AuditWriter.decisions = decisions  # type: ignore[method-assign]


def _unheard_counts_as_stored() -> None:
    """A message whose acknowledgement is not heard counts as stored."""
    settle = Outbox._settle

    def settled(self: Outbox, waiting: Any, answer: Any, loop_time: float) -> bool:
        stored = PubAck("", 0, duplicate=False) if isinstance(answer, NotAcknowledged) else answer
        return settle(self, waiting, stored, loop_time)

    Outbox._settle = settled  # type: ignore[method-assign]


def _denial_not_heeded() -> None:
    """A denial counts as an allowance."""
    decide = RevokingEngine.decide

    async def allowed(self: RevokingEngine, inputs: Sequence[bytes]) -> Sequence[Any]:
        return [replace(one, allow=True, reasons=()) for one in await decide(self, inputs)]  # type: ignore[type-var]

    RevokingEngine.decide = allowed  # type: ignore[method-assign]


def _claim_not_compared() -> None:
    """A claim is written over whatever stands there."""
    write = KeyValue.replace

    async def written(self: KeyValue, subject: str, payload: bytes, *, last: int, within: float = 5.0) -> int | None:
        if ".effect." not in subject:
            return await write(self, subject, payload, last=last, within=within)
        (answer,) = await self._transport.publish([Outgoing(subject=subject, payload=payload)], deadline=within)
        if isinstance(answer, Exception):
            raise answer
        return answer.sequence

    KeyValue.replace = written  # type: ignore[method-assign]


def _claim_not_waited_for() -> None:
    """A claim of a process that may still run is taken over at once."""
    take_over = ClaimStore._take_over

    async def taken(self: ClaimStore, subject: str, last: int, held: Any, own: Any) -> int | None:
        free = replace(held, stage=Stage.FREE) if held.stage is Stage.STARTED else held
        return await take_over(self, subject, last, free, own)

    ClaimStore._take_over = taken  # type: ignore[method-assign]


def _claim_freed_when_over() -> None:
    """A claim whose time is over is taken over, though its effect may have happened."""
    take_over = ClaimStore._take_over

    async def taken(self: ClaimStore, subject: str, last: int, held: Any, own: Any) -> int | None:
        is_over = held.stage is Stage.STARTED and own.at >= held.until
        return await take_over(self, subject, last, replace(held, stage=Stage.FREE) if is_over else held, own)

    ClaimStore._take_over = taken  # type: ignore[method-assign]


def _claim_freed_at_start() -> None:
    """The mark of an effect that has happened is left out, and its claim freed."""
    mark = ClaimStore.mark

    async def freed(self: ClaimStore, claim: Any, stage: Stage, result: Any) -> None:
        await mark(self, claim, Stage.FREE, None)

    ClaimStore.mark = freed  # type: ignore[method-assign]


def _effect_named_by_message() -> None:
    """An effect is that of a message, not of its idempotency key."""
    effects.effect_key = lambda message: message.header.digest


def _unreadable_claim_is_free() -> None:
    """A claim over which others have stored something counts as free."""
    held = ClaimStore._held

    def free(self: ClaimStore, stored: bytes, claim: Any) -> StoredClaim:
        try:
            return held(self, stored, claim)
        except HandlingError:
            return self._stored_claim(claim, Stage.FREE, at=0, until=0)

    ClaimStore._held = free  # type: ignore[method-assign]


def _stop_not_heeded() -> None:
    """Stops concern no message."""
    Stop.concerns = lambda *_: False  # type: ignore[method-assign]


def _stop_confirmed_early() -> None:
    """A cancel is confirmed before its stop is stored."""
    handle, waiting = CancelEndpoint.handle, set[asyncio.Task[Any]]()

    async def early(self: CancelEndpoint, permitted: Any) -> Any:
        async def later() -> None:
            await asyncio.sleep(8.0)
            await handle(self, permitted)

        waiting.add(asyncio.get_running_loop().create_task(later()))

    CancelEndpoint.handle = early  # type: ignore[method-assign]


def _acknowledged_at_start() -> None:
    """A delivery is acknowledged before its handler runs."""
    put = Executor.put

    async def acknowledged(self: Executor, permitted: Any, delivery: Any, settlement: Any) -> None:
        if settlement is not None:
            settlement.ack([delivery])
        await put(self, permitted, delivery, settlement)

    Executor.put = acknowledged  # type: ignore[method-assign]


def _failure_not_buried() -> None:
    """What cannot be handled is acknowledged without a dead letter and without an end."""

    async def forgotten(self: WorkSettlement, work: Any, failure: Any) -> None:
        work.ack()

    async def nothing(self: DeadLetters, *_: Any) -> None:
        return

    WorkSettlement._bury = forgotten  # type: ignore[method-assign]
    DeadLetters.bury = nothing  # type: ignore[method-assign, assignment]


def _last_end_counts() -> None:
    """A reader takes the last terminal status for the end of a task, not the first."""
    stored_from = network._stored_from

    def newest_first(broker: Any, stream: str, place: int, subjects: Sequence[str]) -> Any:
        found, last = stored_from(broker, stream, place, subjects)
        return (found[::-1] if stream == "RESULTS" else found), last

    network._stored_from = newest_first


def _end_not_told_again() -> None:
    """A result that could not be told is not told by a later delivery."""

    async def never(self: WorkSettlement, *_: Any) -> bool:
        return False

    WorkSettlement._tell_later = never  # type: ignore[method-assign, assignment]


def _end_told_early() -> None:
    """A requester is told that its task is done before its handler runs."""
    put = Executor.put

    async def told(self: Executor, permitted: Any, delivery: Any, settlement: Any) -> None:
        if isinstance(permitted.reporter, StatusReporter):
            await permitted.reporter.completed(None)
        await put(self, permitted, delivery, settlement)

    Executor.put = told  # type: ignore[method-assign]


def _verb_not_awaited() -> None:
    """A task whose verb this replica lacks fails, though another replica has the verb."""
    made = WorkerLimits.__init__

    def impatient(self: WorkerLimits, **named: Any) -> None:
        made(self, **{**named, "verbs_awaited": False})

    WorkerLimits.__init__ = impatient  # type: ignore[method-assign]


def _dated_by_own_clock() -> None:
    """Messages are dated by the clock of their sender, which may be over 5 s off before it stops (found by seeds)."""
    ClockDifference.now = lambda self: self._clock()  # type: ignore[method-assign]


def _deliveries_counted_as_tries() -> None:
    """A result is not told later if its message was delivered often before (found by seeds)."""
    tell_later = WorkSettlement._tell_later

    async def counted(self: WorkSettlement, work: Any, code: Any) -> bool:
        return work.tried.number < TELL_AGAIN_MOST and await tell_later(self, work, code)

    WorkSettlement._tell_later = counted  # type: ignore[method-assign]


def _copy_acknowledged_early() -> None:
    """A copy is acknowledged before the end of the first was told (found by seeds)."""
    done = effects.Effects.done

    async def released(self: effects.Effects, claim: Any, result: Any) -> None:
        self.told(claim)
        await done(self, claim, result)

    effects.Effects.done = released  # type: ignore[method-assign]


def _tick_of_each_process() -> None:
    """Each process sends each tick, under an id of its own: neither the claim nor the id of a tick keeps it from that."""
    named_by = Tick.message_id.fget  # type: ignore[attr-defined]
    Tick.message_id = property(lambda tick: named_by(Tick(os.urandom(32), tick.time)))  # type: ignore[assignment]

    async def claimed(self: TickClaims, tick: Tick) -> TakenTick:
        until = self._site.bus_clock() + self._claimed_for
        return TakenTick(tick=tick, last=0, send_by=until, until=until, fresh=True)

    TickClaims.claim = claimed  # type: ignore[method-assign]


def _halt_not_stored() -> None:
    """A schedule is told to be paused or removed, and goes on."""
    handle = ScheduleEndpoint.handle

    async def told(self: ScheduleEndpoint, permitted: Any) -> Any:
        return await handle(self, permitted) if permitted.value.planned is not None else None

    ScheduleEndpoint.handle = told  # type: ignore[method-assign]


def _ticks_not_caught_up() -> None:
    """A tick whose time passed while no process of its owner ran is given up."""

    def none_missed(when: Any, **named: Any) -> Any:
        return newest_missed(when, **{**named, "catchup": 0})

    patch.object(scheduler, "newest_missed", none_missed).start()


def _grants_not_heeded() -> None:
    """What a message lets follow from it limits nothing."""
    patch.object(live, "check_grants", lambda *_, **__: None).start()


def _chain_outlives_its_root() -> None:
    """A message may end after the one that it follows from: neither its sender nor its reader keeps to that."""
    message, check_pair = Origin.message, chain._check_pair

    def endless(handled: Any) -> Origin:
        return replace(message(handled), end=None)

    def unbounded(child: Any, parent: Any, step: int) -> None:
        check_pair(child._replace(end=min(child.end, parent.end)), parent, step)

    Origin.message = endless  # type: ignore[assignment, method-assign]
    patch.object(chain, "_check_pair", unbounded).start()


def _cancel_reaches_no_children() -> None:
    """A cancel reaches the message that it names, and not what follows from it."""
    patch.object(in_force, "_bound", lambda message: [message.header]).start()


def _revocation_not_heeded() -> None:
    """A process knows what is revoked, and allows it."""

    async def decide(self: RevokingEngine, inputs: Sequence[bytes]) -> Sequence[Any]:
        return await self._engine.decide(inputs)

    RevokingEngine.decide = decide  # type: ignore[method-assign]


def _pushes_not_followed() -> None:
    """A process reads the store of policies when it starts, and never again."""

    async def nothing(self: PolicySync) -> None:
        await asyncio.Event().wait()

    PolicySync.follow_pushes = nothing  # type: ignore[method-assign]


def _credentials_not_revoked() -> None:
    """A process reads which credentials are revoked, and takes them all the same."""
    InForce.revoked_before = property(lambda _: {}, lambda *_: None)  # type: ignore[assignment]


def _log_stops_for_good() -> None:
    """A notary whose clock was wrong once never goes on (found by seeds)."""
    MessageVerifier.earlier = property(lambda _: 0, lambda *_: None)  # type: ignore[assignment]


def _verdict_not_read() -> None:
    """Whatever a person says of a task that waits for an approval counts as an approval."""
    parse = approval_authorizer.parse_approval  # type: ignore[attr-defined]  # the name that it has imported

    def approving(body: bytes, typ: str) -> ApprovalRequest:
        return replace(parse(body, typ), verdict=Verdict.APPROVE)

    approval_authorizer.parse_approval = approving  # type: ignore[attr-defined]


def _edge_takes_any_clock() -> None:
    """An edge takes requests while its clock is wrong, and dates by it (found by seeds)."""
    Front._check_clock = lambda self: None  # type: ignore[method-assign]
    _dated_by_own_clock()


def _deliveries_counted_as_attempts() -> None:
    """An attempt has the number of its delivery."""

    async def count(self: FailedAttempts, work: Work) -> int:
        return work.tried.number

    FailedAttempts.count = count  # type: ignore[method-assign]


def _last_status_counts() -> None:
    """A reader passes over the end of a first delivery that was stored after a status of the second."""
    StatusReading._is_news = lambda self, status: status.sequence > self._after  # type: ignore[method-assign]


def _nobody_expires() -> None:
    """What nobody approved in time stays open for its readers."""
    left = StatusReading._left

    def open_for_ever(self: StatusReading, now: int) -> float:
        return math.inf if self._term.is_parked else left(self, now)

    StatusReading._left = open_for_ever  # type: ignore[method-assign]


def _clock_not_compared() -> None:
    """A worker takes work whatever its clock shows, and dates by it."""
    ClockDifference.problem = property(lambda _: None)  # type: ignore[assignment]
    _dated_by_own_clock()


def _stops_counted_unverified() -> None:
    """The room for stops counts what anybody stores there, and is not counted again before a cancel is confirmed."""
    take, seen = Stops._take, dict[int, set[str]]()

    def counted(self: Stops, deliveries: Sequence[Any], *, is_own: bool) -> None:
        places = seen.setdefault(id(self), set())
        kept = []
        for delivery in deliveries:
            if delivery.subject in places or len(places) < room.OF_REQUESTER:
                places.add(delivery.subject)
                kept.append(delivery)
        take(self, kept, is_own=is_own)

    async def admits(self: Stops, stop: Stop, sequence: int) -> bool:
        return True

    Stops._take, Stops.admits = counted, admits  # type: ignore[method-assign]


def _claim_kept_for_window() -> None:
    """A claim counts no longer than its stream remembers message ids."""
    begin, held_claim = effects.Effects.begin, ClaimStore._held

    async def begun(self: effects.Effects, permitted: Any) -> Any:
        self._handled = BoundedMap(1)
        return await begin(self, permitted)

    def forgotten(self: ClaimStore, stored: bytes, claim: Any) -> Any:
        held = held_claim(self, stored, claim)
        is_over = self._site.bus_clock() >= held.at + DUPLICATE_WINDOW * SECOND
        return replace(held, stage=Stage.FREE, result=None) if is_over else held

    effects.Effects.begin = begun  # type: ignore[method-assign]
    ClaimStore._held = forgotten  # type: ignore[method-assign]


def _notary_not_told() -> None:
    """Nobody tells the notary that the streams were restored."""
    run._Run.tell_notaries = lambda *_: None  # type: ignore[method-assign]


def _restored_streams_not_named() -> None:
    """The notary's key book does not name the restored streams."""
    key_book.all_restored = lambda *_, **__: []


def _restoration_logged_by_one() -> None:
    """A notary adds no restoration before it has come to what another has signed after it (found by seeds)."""
    added = Term._add_restorations

    def waiting(self: Term) -> None:
        if self._floor is None:
            added(self)

    Term._add_restorations = waiting  # type: ignore[method-assign]


def _done_told_as_rejected() -> None:
    """A denial is told without a look at whether an earlier delivery was done (found by seeds)."""

    async def never(self: effects.Effects, message: Any, *, once: bool) -> bool:
        return False

    patch.object(effects.Effects, "may_have_happened", never).start()


def _first_record_read() -> None:
    """A reader of the audit stream takes the first record of a message that holds several."""
    read = AuditTrail._read

    async def first(self: AuditTrail, delivery: Delivery) -> Sequence[AuditEntry | Finding]:
        return (await read(self, delivery))[:1]

    patch.object(AuditTrail, "_read", first).start()


def _minters_not_told() -> None:
    """The console is not told who may mint contexts: what was allowed for a user does not verify."""

    def knowing_none(names: Names, minters: object) -> ArchiveProfile:
        return ArchiveProfile(names=names, minters=frozenset())

    patch.object(console, "ArchiveProfile", knowing_none).start()


def _delivered_counts_as_acknowledged() -> None:
    """A consumer that is moved continues after what its processes were given, and not after what they settled."""

    async def delivered(request: Request, spec: DurableSpec) -> Bound:
        info = await api(request, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
        reached: Any = info["delivered"]
        return replace(await look(request, spec), ack_floor=int(reached["stream_seq"]))

    patch.object(consumer_binding, "look", delivered).start()


def _stops_of_other_cells_not_read() -> None:
    """A process reads the stops of its own cell alone."""
    cells_of = CellTransport.cells_of

    def own(self: CellTransport, pattern: str) -> Mapping[str, Transport]:
        found = cells_of(self, pattern)
        return dict([*found.items()][:1]) if pattern == STOPS else found

    CellTransport.cells_of = own  # type: ignore[method-assign]


def _stored_in_senders_cell() -> None:
    """A message is stored in the cell of its sender, wherever its owner is."""

    async def publish(
        self: CellTransport, messages: Sequence[Outgoing], *, deadline: float
    ) -> Sequence[PubAck | Exception]:
        return await self._own.publish(messages, deadline=deadline)

    CellTransport.publish = publish  # type: ignore[method-assign]


def _book_of_another_cell_counts() -> None:
    """The notary of another cell is believed that nothing was restored (found by seeds)."""
    KeyBook._cell_of = lambda *_: ""  # type: ignore[method-assign]


def _tasks_left_behind() -> None:
    """A moved agent takes what was said to it before only where it is now."""
    cells_of = CellTransport.cells_of

    def present(self: CellTransport, pattern: str) -> Mapping[str, Transport]:
        found = cells_of(self, pattern)
        return dict([*found.items()][:1]) if pattern.startswith("task.") else found

    CellTransport.cells_of = present  # type: ignore[method-assign]


def _claims_left_behind() -> None:
    """A moved agent claims effects without a look at the claims in the cell before."""

    async def create(self: KeyValue, subject: str, payload: bytes, *, within: float = 5.0) -> int | None:
        return await self.replace(subject, payload, last=0, within=within)

    KeyValue.create = create  # type: ignore[method-assign]


def _floor_of_the_cell_before() -> None:
    """How far a stream of the cell before was acknowledged counts for that of the present one (found by seeds)."""

    async def read(self: StoredFloors, stream: str, consumer: str) -> StoredArray | None:
        return await self._values.read(floor_key(stream, consumer))

    StoredFloors._stored = read  # type: ignore[method-assign]


PLANTED: Final[Mapping[str, _Planted]] = {
    function.__name__.strip("_").replace("_", "-"): function
    for function in (
        _record_not_awaited,
        _record_not_needed,
        _unheard_counts_as_stored,
        _denial_not_heeded,
        _claim_not_compared,
        _claim_not_waited_for,
        _claim_freed_when_over,
        _claim_freed_at_start,
        _effect_named_by_message,
        _unreadable_claim_is_free,
        _stop_not_heeded,
        _stop_confirmed_early,
        _acknowledged_at_start,
        _failure_not_buried,
        _last_end_counts,
        _end_not_told_again,
        _end_told_early,
        _verb_not_awaited,
        _dated_by_own_clock,
        _deliveries_counted_as_tries,
        _copy_acknowledged_early,
        _tick_of_each_process,
        _halt_not_stored,
        _ticks_not_caught_up,
        _grants_not_heeded,
        _chain_outlives_its_root,
        _cancel_reaches_no_children,
        _revocation_not_heeded,
        _pushes_not_followed,
        _credentials_not_revoked,
        _log_stops_for_good,
        _verdict_not_read,
        _done_told_as_rejected,
        _first_record_read,
        _minters_not_told,
        _edge_takes_any_clock,
        _deliveries_counted_as_attempts,
        _last_status_counts,
        _nobody_expires,
        _clock_not_compared,
        _stops_counted_unverified,
        _claim_kept_for_window,
        _notary_not_told,
        _restored_streams_not_named,
        _restoration_logged_by_one,
        _delivered_counts_as_acknowledged,
        _stops_of_other_cells_not_read,
        _stored_in_senders_cell,
        _book_of_another_cell_counts,
        _tasks_left_behind,
        _claims_left_behind,
        _floor_of_the_cell_before,
    )
}
"""The safeguards, by name."""
RARE: Final = frozenset(
    {
        "claim-freed-when-over",
        "claims-left-behind",
        "copy-acknowledged-early",
        "dated-by-own-clock",
        "cancel-reaches-no-children",
        "done-told-as-rejected",
        "edge-takes-any-clock",
        "floor-of-the-cell-before",
        "deliveries-counted-as-tries",
        "log-stops-for-good",
        "restoration-logged-by-one",
        "stops-of-other-cells-not-read",
        "ticks-not-caught-up",
        "unreadable-claim-is-free",
    }
)
"""Those that take from sixty to three hundred seeds, and are tried by hand (docs/simulation.md)."""
EARLIER: Final = frozenset(
    {
        "book-of-another-cell-counts",
        "clock-not-compared",
        "dated-by-own-clock",
        "deliveries-counted-as-attempts",
        "end-not-told-again",
        "last-status-counts",
        "nobody-expires",
        "notary-not-told",
        "stops-counted-unverified",
        "unreadable-claim-is-free",
        "verb-not-awaited",
    }
)
"""Those that put back a fault of earlier versions, found by the ledger or by attack (CHANGELOG.md, docs/chaos.md)."""
