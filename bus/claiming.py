"""Claiming effects in STATE: what holds for all processes of one identity, and outlives them (SPEC.md section 7).

::

    nothing --create--> started --handler returned--> done       found: not handled again, its result said again
               ^           |`-----handler raised----> free       found: claimed again
               |           |                           |
               |           `--its time is over------> unknown    found: not handled again, a person has to look
               `--------------------------------------'

Who finds `started` waits until that handler's time is over, for it cannot be seen whether its process still lives.
What is concluded is written by comparison, so that of two processes that conclude differently only one is right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.claims import Claimed, Stage, parse, sign, unsigned
from sealbus.bus.clock import Clock, wall_clock
from sealbus.bus.counters import Counters
from sealbus.bus.keyed import Keyed
from sealbus.bus.ports import Identity
from sealbus.bus.routes import Answer
from sealbus.envelopes.caches import Caches
from sealbus.envelopes.errors import (
    BusUnavailable,
    Code,
    EnvelopeError,
    HandlingError,
    IdentityUnavailable,
    SealbusError,
    StateUnavailable,
)
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust import Trust

__all__ = ["MARGIN", "BusyEffect", "Claiming", "Going", "Happened", "same_body"]

_log = logging.getLogger(__name__)

MARGIN: Final = 15.0
"""Seconds beyond a handler's own time after which its claim is given up: for marking it, and for clocks that differ."""

WITHIN: Final = 5.0
"""Seconds for one read or write of STATE."""

_MARKS: Final = 3
"""How often a mark is tried that is not acknowledged."""
_ROUNDS: Final = 4
"""How often a claim is tried that another process was quicker with."""


class BusyEffect(Exception):
    """Another copy is being handled, perhaps; look again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """The handler may run; say afterwards what came of it, by `done` or `failed`. `last` is 0 without a stored claim."""

    key: bytes
    dig: bytes
    first: bytes
    last: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """The effect has happened. `result` is absent if it is not kept (any more).

    `told` tells that the copy before us is the message that caused it, and that its requester knows the result.
    """

    result: Answer | None
    told: bool


class Claiming:
    """Claims of one worker, whose subject token is `token`. `instance` (16 bytes) names this process among others."""

    def __init__(
        self,
        *,
        keyed: Keyed,
        token: str,
        identity: Identity,
        trust: Callable[[], Trust],
        caches: Caches,
        counters: Counters,
        instance: bytes,
        margin: float = MARGIN,
        clock: Clock = wall_clock,
    ) -> None:
        self._keyed = keyed
        self._prefix = f"state.{token}.effect."
        self._identity = identity
        self._trust = trust
        self._caches = caches
        self._counters = counters
        self._instance = instance
        self._margin = margin
        self._clock = clock

    async def claim(self, going: Going, timeout: float) -> Going | Happened:
        """Claim for a handler that may take `timeout` seconds, unless the effect has happened.

        Raises `BusyEffect`; `HandlingError` `idempotency_conflict`, or `outcome_unknown` if a process was gone before it
        said what came of it; `StateUnavailable`. To be called only while this process does not run the same effect.
        """
        try:
            return await self._claim(going, timeout)
        except BusUnavailable as error:
            raise StateUnavailable("the effect cannot be claimed") from error

    async def mark(self, going: Going, stage: Stage, result: Answer | None) -> None:
        """Write what became of a claim; one that cannot be written is counted and logged. Raises nothing."""
        subject = self._prefix + going.key.hex()
        outcome = ""
        for _ in range(_MARKS):
            try:
                mark = self._claimed(going, stage, at=self._clock(), until=going.until, result=result)
                stored = self._stored(mark)
                if await self._keyed.replace(subject, stored, last=going.last, within=WITHIN) is not None:
                    return
            except SealbusError as error:
                outcome = str(error.code)
            else:
                # Either an earlier try was stored and not acknowledged, or our time was over and another concluded.
                outcome = "replaced"
                break
        if outcome == "replaced" and await self._is_marked(subject, stage):
            return
        self._counters.add("sealbus_effects_unmarked_total", 1, stage=stage.value, reason=outcome)
        _log.error("an effect is not marked %s: %s", stage, outcome)

    async def _claim(self, going: Going, timeout: float) -> Going | Happened:
        subject = self._prefix + going.key.hex()
        for _ in range(_ROUNDS):
            now = self._clock()
            mine = self._claimed(going, Stage.STARTED, at=now, until=now + int((timeout + self._margin) * SECOND))
            last = await self._keyed.create(subject, unsigned(mine), within=WITHIN)
            if last is None:
                found = await self._keyed.get(subject, within=WITHIN)
                if found is None:
                    continue  # a replica that is behind answered
                held = self._held(found[1], going)
                if held.stage is Stage.DONE:
                    return Happened(result=held.result, told=held.first == going.first and held.result is None)
                last = await self._take_over(subject, found[0], held, mine)
            if last is not None:
                return Going(key=going.key, dig=going.dig, first=going.first, last=last, until=mine.until)
        raise StateUnavailable("other processes claim the same effect")

    async def _take_over(self, subject: str, last: int, held: Claimed, mine: Claimed) -> int | None:
        """Write in place of a claim that is not done; `None` if somebody else was quicker."""
        # Ours is not running any more: either its mark was not stored, or that it was stored was not heard of.
        ours = held.by == self._instance
        if held.stage is Stage.FREE or (held.stage is Stage.STARTED and ours):
            return await self._keyed.replace(subject, unsigned(mine), last=last, within=WITHIN)
        if held.stage is Stage.STARTED:
            if mine.at < held.until:
                raise BusyEffect((held.until - mine.at) / SECOND)
            gone = Claimed(
                key=held.key,
                dig=held.dig,
                first=held.first,
                by=self._instance,
                stage=Stage.UNKNOWN,
                at=mine.at,
                until=held.until,
            )
            if await self._keyed.replace(subject, unsigned(gone), last=last, within=WITHIN) is None:
                return None
        raise HandlingError(Code.OUTCOME_UNKNOWN, "its handler was started by a process that is gone")

    def _held(self, stored: bytes, going: Going) -> Claimed:
        try:
            held, _ = parse(stored, own=self._identity.spiffe_id, trust=self._trust(), caches=self._caches)
        except EnvelopeError as error:
            # Somebody else's bytes, or a newer version's: whether it has happened cannot be told, so it may not again.
            raise HandlingError(Code.OUTCOME_UNKNOWN, "its claim is not readable") from error
        if held.key != going.key:
            raise HandlingError(Code.OUTCOME_UNKNOWN, "its claim is another effect's")
        same_body(held.dig, going.dig)
        return held

    async def _is_marked(self, subject: str, stage: Stage) -> bool:
        try:
            found = await self._keyed.get(subject, within=WITHIN)
            if found is None:
                return False
            held, _ = parse(found[1], own=self._identity.spiffe_id, trust=self._trust(), caches=self._caches)
        except SealbusError:
            return False
        return held.stage is stage and held.by == self._instance

    def _stored(self, mark: Claimed) -> bytes:
        if mark.result is not None:
            try:
                return sign(mark, self._identity.sealer())
            except IdentityUnavailable as error:
                _log.warning("a result is not kept with its claim: %s", error)
        return unsigned(replace(mark, result=None))

    def _claimed(self, going: Going, stage: Stage, *, at: int, until: int, result: Answer | None = None) -> Claimed:
        return Claimed(
            key=going.key,
            dig=going.dig,
            first=going.first,
            by=self._instance,
            stage=stage,
            at=at,
            until=until,
            result=result,
        )


def same_body(known: bytes, dig: bytes) -> None:
    """Raise `HandlingError` `idempotency_conflict` if one effect was asked for with two bodies."""
    if known != dig:
        raise HandlingError(Code.IDEMPOTENCY_CONFLICT, "the same idempotency key with another body")
