"""Claims on effects in STATE, which hold for all processes of one identity and outlive them (SPEC.md section 7).

::

    nothing --create--> started --handler returned--> done       later: not handled again, its result is told again
               ^           |`-----handler raised----> free       later: claimed again
               |           |                           |
               |           `--its time is over------> unknown    later: not handled again, an operator must decide
               `--------------------------------------'

A process that reads `started` waits until the time of that handler is over, because it cannot see whether the other process
still lives. Conclusions are written by compare-and-set, so that only one of two different conclusions is stored. `done` and
`free` are signed. A claim without that signature, or one that is unreadable, counts as `unknown`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sealbus.bus.sending.message import Content
from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.idempotency.claim import SIGNED, Stage, StoredClaim, parse, sign, unsigned
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
from sealbus.envelopes.trust.caches import BoundedMap

_logger = logging.getLogger(__name__)

MARGIN: Final = 15.0
"""Seconds beyond the time of a handler until its claim is given up: for writing the outcome, and clocks that differ."""

WITHIN: Final = 5.0
"""Seconds for one read or write of STATE."""

_MARKS: Final = 3
"""Tries to write an outcome that is not acknowledged."""
_ROUNDS: Final = 4
"""Tries to write a claim while other processes are quicker."""
_IDLE: Final = 4_096
"""Claims of its own that a process remembers as idle; a forgotten claim counts as another process's."""


class BusyEffect(Exception):
    """Another copy of the message may be running; try again in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Claim(NamedTuple):
    """Permission to run the handler; report its end by `done` or `failed`. `last` is 0 without a stored claim."""

    key: bytes
    dig: bytes
    first: bytes
    last: int = 0
    until: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyDone:
    """The effect has happened. `result` is absent if it is not kept, or no longer.

    `same` means that this delivery is a copy of the message that caused the effect, and not another message with its
    idempotency key. `told` means that it is a copy, and that its requester knows the result.
    """

    result: Content | None
    same: bool
    told: bool


class ClaimStore:
    """The claims of one worker. `instance` (16 bytes) names this process."""

    def __init__(self, site: Site, *, instance: bytes, margin: float = MARGIN) -> None:
        self._site = site
        self._keyed = KeyValue(site.transport)
        self._prefix = f"state.{site.token}.effect."
        self._instance = instance
        self._margin = margin
        self._idle: BoundedMap[bytes, bool] = BoundedMap(_IDLE)
        """Effects that STATE may show as started by us, but whose handler did not run or has failed."""

    async def claim(self, claim: Claim, timeout: float) -> Claim | AlreadyDone:
        """Claim an effect for a handler that may take `timeout` seconds, unless the effect has happened.

        Raises `BusyEffect`; `StateUnavailable`; `HandlingError` with `idempotency_conflict`, or with `outcome_unknown` if a
        process died before it wrote an outcome. Call it only while this process does not run the same effect.
        """
        try:
            begun = await self._claim(claim, timeout)
        except BusUnavailable as error:
            # Our claim may have been stored nevertheless.
            self._idle.put(claim.key, True)
            raise StateUnavailable("the effect cannot be claimed") from error
        self._idle.put(claim.key, False)
        return begun

    async def may_have_happened(self, claim: Claim) -> bool:
        """Return whether the message `claim.first` may have had its effect: its own claim is there and not given back.

        What is no claim of this agent counts, a claim of another message does not. Raises `BusyEffect` while a process may
        still handle the message, and `StateUnavailable` if STATE does not answer.
        """
        try:
            value = await self._keyed.get(self._prefix + claim.key.hex(), within=WITHIN)
        except BusUnavailable as error:
            raise StateUnavailable("the claim of the effect cannot be read") from error
        if value is None:
            return False
        try:
            held = self._held(value.payload, claim)
        except HandlingError as error:
            return error.code is Code.OUTCOME_UNKNOWN
        if held.first != claim.first or held.stage is Stage.FREE:
            return False
        if held.by == self._instance and self._idle.get(claim.key):
            return False
        left = held.until - self._site.bus_clock()
        if held.stage is Stage.STARTED and left > 0:
            raise BusyEffect(left / SECOND)
        return True

    async def stored_result(self, claim: Claim) -> Content | None:
        """Return the stored result of an effect that has happened; `None` if there is none or it cannot be read."""
        try:
            value = await self._keyed.get(self._prefix + claim.key.hex(), within=WITHIN)
            return self._held(value.payload, claim).result if value is not None else None
        except SealbusError:
            return None

    async def mark(self, claim: Claim, stage: Stage, result: Content | None) -> None:
        """Write the outcome of a claim; a failure to write it is counted and logged. Raises nothing."""
        subject = self._prefix + claim.key.hex()
        outcome = ""
        for _ in range(_MARKS):
            try:
                mark = self._stored_claim(claim, stage, at=self._site.bus_clock(), until=claim.until, result=result)
                stored = self._stored(mark)
                if await self._keyed.replace(subject, stored, last=claim.last, within=WITHIN) is not None:
                    return
            except SealbusError as error:
                outcome = str(error.code)
            else:
                # An earlier try was stored but not acknowledged, or our time was over and another process has concluded.
                outcome = "replaced"
                break
        if outcome == "replaced" and await self._is_marked(subject, stage):
            return
        if stage is Stage.FREE:
            self._idle.put(claim.key, True)
        self._site.counters.add("sealbus_effects_unmarked_total", 1, stage=stage.value, reason=outcome)
        _logger.error("an effect is not marked %s: %s", stage, outcome)

    async def _claim(self, claim: Claim, timeout: float) -> Claim | AlreadyDone:
        subject = self._prefix + claim.key.hex()
        for _ in range(_ROUNDS):
            now = self._site.bus_clock()
            own = self._stored_claim(claim, Stage.STARTED, at=now, until=now + int((timeout + self._margin) * SECOND))
            last = await self._keyed.create(subject, unsigned(own), within=WITHIN)
            if last is None:
                value = await self._keyed.get(subject, within=WITHIN)
                if value is None:
                    continue  # a replica that is behind answered
                held = self._held(value.payload, claim)
                if held.stage is Stage.DONE:
                    same = held.first == claim.first
                    return AlreadyDone(result=held.result, same=same, told=same and held.result is None)
                last = await self._take_over(subject, value.sequence, held, own)
            if last is not None:
                return Claim(key=claim.key, dig=claim.dig, first=claim.first, last=last, until=own.until)
        raise StateUnavailable("other processes claim the same effect")

    async def _take_over(self, subject: str, last: int, held: StoredClaim, own: StoredClaim) -> int | None:
        """Replace a claim that is not done; return `None` if another process was quicker."""
        # A claim of ours is not enough: the effect may have happened, and only its mark may have failed.
        ours = held.by == self._instance and self._idle.get(held.key) is True
        if held.stage is Stage.FREE or (held.stage is Stage.STARTED and ours):
            return await self._keyed.replace(subject, unsigned(own), last=last, within=WITHIN)
        if held.stage is Stage.STARTED:
            if own.at < held.until:
                raise BusyEffect((held.until - own.at) / SECOND)
            gone = replace(held, by=self._instance, stage=Stage.UNKNOWN, at=own.at)
            if await self._keyed.replace(subject, unsigned(gone), last=last, within=WITHIN) is None:
                return None
        raise HandlingError(Code.OUTCOME_UNKNOWN, "a process started its handler and died")

    def _held(self, stored: bytes, claim: Claim) -> StoredClaim:
        try:
            held, signed = self._parse(stored)
        except EnvelopeError as error:
            # Bytes of others, or of a newer version: the effect may have happened, so it must not happen again.
            raise HandlingError(Code.OUTCOME_UNKNOWN, "its claim is not readable") from error
        if held.key != claim.key:
            raise HandlingError(Code.OUTCOME_UNKNOWN, "its claim is for another effect")
        if held.stage in SIGNED and not signed:
            raise HandlingError(Code.OUTCOME_UNKNOWN, f"its claim says {held.stage} without our signature")
        same_body(held.dig, claim.dig)
        return held

    async def _is_marked(self, subject: str, stage: Stage) -> bool:
        try:
            value = await self._keyed.get(subject, within=WITHIN)
            if value is None:
                return False
            held, _ = self._parse(value.payload)
        except SealbusError:
            return False
        return held.stage is stage and held.by == self._instance

    def _parse(self, stored: bytes) -> tuple[StoredClaim, bool]:
        return parse(stored, own=self._site.own, trust=self._site.trust(), caches=self._site.caches)

    def _stored(self, mark: StoredClaim) -> bytes:
        try:
            return sign(mark, self._site.identity.sealer())
        except IdentityUnavailable as error:
            if mark.stage is not Stage.DONE:
                raise
            # Other processes conclude `unknown` from this at once. A claim that stays started would make them wait.
            _logger.warning("an effect is marked done without a signature: %s", error)
            return unsigned(replace(mark, result=None))

    def _stored_claim(
        self, claim: Claim, stage: Stage, *, at: int, until: int, result: Content | None = None
    ) -> StoredClaim:
        return StoredClaim(
            key=claim.key,
            dig=claim.dig,
            first=claim.first,
            by=self._instance,
            stage=stage,
            at=at,
            until=until,
            result=result,
        )


def same_body(known: bytes, dig: bytes) -> None:
    """Raise `HandlingError` `idempotency_conflict` if one effect was requested with two bodies."""
    if known != dig:
        raise HandlingError(Code.IDEMPOTENCY_CONFLICT, "the same idempotency key with another body")
