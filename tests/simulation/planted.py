"""Safeguards of the product that can be removed, one at a time, to see that the simulation misses each.

Each function changes classes of this process, which is forked for one plan and ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sealbus.agents.control.notary.log.message_verifier import MessageVerifier
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.cancel.endpoint import CancelEndpoint
from sealbus.bus.work.cancel.stop import Stop
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.executor import Executor
from sealbus.bus.work.executor.settlement import WorkSettlement
from sealbus.bus.work.idempotency import effects
from sealbus.bus.work.idempotency.claim import Stage
from sealbus.bus.work.idempotency.claim_store import ClaimStore
from sealbus.bus.work.status_writer import StatusReporter
from sealbus.policies.engines.revoking import RevokingEngine
from simulation import network

__all__ = ["PLANTED", "RARE"]

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

    def newest_first(source: Any, place: int, subjects: Sequence[str]) -> Any:
        found, last = stored_from(source, place, subjects)
        return (found[::-1] if source.config.name == "RESULTS" else found), last

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


def _log_stops_for_good() -> None:
    """A notary whose clock was wrong once never goes on (found by seeds)."""
    MessageVerifier.earlier = property(lambda _: 0, lambda *_: None)  # type: ignore[assignment]


PLANTED: Final[Mapping[str, _Planted]] = {
    function.__name__.strip("_").replace("_", "-"): function
    for function in (
        _record_not_awaited,
        _record_not_needed,
        _denial_not_heeded,
        _claim_not_compared,
        _claim_not_waited_for,
        _claim_freed_when_over,
        _claim_freed_at_start,
        _effect_named_by_message,
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
        _log_stops_for_good,
    )
}
"""The safeguards, by name."""
RARE: Final = frozenset(
    {
        "claim-freed-when-over",
        "copy-acknowledged-early",
        "dated-by-own-clock",
    }
)
"""Those that take from a hundred to three hundred seeds, and are tried by hand (docs/simulation.md)."""
