"""The effects that have happened, so that a redelivery, or the same message sealed again, is not handled again.

Every process remembers the effects that it handled, within bounds. If a handler is declared `once`, its effects are also
claimed in STATE before it runs, and marked there afterwards (`claim_store`). That outlives the process and holds for all
replicas.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.message import Content
from sealbus.bus.work.idempotency.claim import RESULT_BYTES, Stage
from sealbus.bus.work.idempotency.claim_store import AlreadyDone, BusyEffect, Claim, ClaimStore, same_body
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.encoding.codec import pack
from sealbus.envelopes.trust.caches import BoundedMap

REMEMBERED: Final = 65_536
"""Handled effects that a process remembers."""

RESULTS: Final = 4_096
"""Results that a process remembers, each of at most `REMEMBERED_BYTES`."""
REMEMBERED_BYTES: Final = 4_096

BUSY_AGAIN: Final = 1.0
"""Seconds until a copy is tried again while this process handles the first copy."""


class _Remembered(NamedTuple):
    """An effect of the message with the hash `first`; `told` is whether its requester was told the end."""

    dig: bytes
    first: bytes
    told: bool = False


class Effects:
    """The effects of one worker."""

    def __init__(self, claims: ClaimStore) -> None:
        self._claims = claims
        self._running: dict[bytes, Claim] = {}
        self._handled: BoundedMap[bytes, _Remembered] = BoundedMap(REMEMBERED)
        self._results: BoundedMap[bytes, Content] = BoundedMap(RESULTS)

    async def begin(self, permitted: Permitted) -> Claim | AlreadyDone:
        """Claim the effect of a message before its handler runs; if its route says `once`, in STATE as well.

        Raises `BusyEffect`, `StateUnavailable` and `HandlingError` as `ClaimStore.claim` does; without `once`, only for
        effects that this process remembers.
        """
        header = permitted.message.header
        key = effect_key(permitted.message)
        running = self._running.get(key)
        if running is not None:
            same_body(running.dig, header.dig)
            raise BusyEffect(BUSY_AGAIN)
        known = self._handled.get(key)
        if known is not None:
            same_body(known.dig, header.dig)
            same, result = known.first == header.digest, self._results.get(key)
            told = same and known.told
            if result is None and not told and permitted.route.options.once:
                result = await self._claims.stored_result(Claim(key=key, dig=header.dig, first=header.digest))
            return AlreadyDone(result=result, same=same, told=told)
        claim = self._running[key] = Claim(key=key, dig=header.dig, first=header.digest)
        if not permitted.route.options.once:
            return claim
        begun: Claim | AlreadyDone | None = None
        try:
            begun = await self._claims.claim(claim, permitted.route.options.timeout)
        finally:
            if not isinstance(begun, Claim):
                del self._running[key]
        return begun

    def was_told(self, message: VerifiedMessage) -> bool:
        """Return whether this process remembers that the requester of `message` was told the end of its effect."""
        known = self._handled.get(effect_key(message))
        return known is not None and known.told and known.first == message.header.digest

    async def may_have_happened(self, message: VerifiedMessage, *, once: bool) -> bool:
        """Return whether an earlier delivery of `message` may have had its effect; `once` is whether its route says so.

        Without `once` only effects that this process remembers count. Raises `BusyEffect` while it may be running, and
        `StateUnavailable`.
        """
        digest, key = message.header.digest, effect_key(message)
        if (running := self._running.get(key)) is not None and running.first == digest:
            raise BusyEffect(BUSY_AGAIN)
        if (known := self._handled.get(key)) is not None and known.first == digest:
            return True
        return once and await self._claims.may_have_happened(Claim(key=key, dig=message.header.dig, first=digest))

    async def done(self, claim: Claim, result: Content | None) -> None:
        """Note that the effect has happened, and mark its claim, with a bounded number of tries.

        Copies wait until `told` or `untold` is called: if one was acknowledged before its requester was told, and this
        process died, nobody would tell the requester. `result` is kept if it is small. A mark that cannot be stored is
        counted and logged. This process then still knows the effect, and others conclude `outcome_unknown`, so that no
        message is handled twice.
        """
        self._handled.put(claim.key, _Remembered(claim.dig, claim.first))
        if result is not None and len(result.body) <= REMEMBERED_BYTES:
            self._results.put(claim.key, result)
        if claim.last:
            small = result if result is not None and len(result.body) <= RESULT_BYTES else None
            await self._claims.mark(claim, Stage.DONE, small)

    def told(self, claim: Claim) -> None:
        """Note that the requester was told the end of an effect that has happened, or that there is none to tell."""
        self._handled.put(claim.key, _Remembered(claim.dig, claim.first, told=True))
        self._running.pop(claim.key, None)

    def untold(self, claim: Claim) -> None:
        """Note that the requester was not told the result of an effect that has happened."""
        self._running.pop(claim.key, None)

    async def failed(self, claim: Claim) -> None:
        """Release the claim, so that the next delivery may be handled."""
        try:
            if claim.last:
                await self._claims.mark(claim, Stage.FREE, None)
        finally:
            self._running.pop(claim.key, None)


def effect_key(message: VerifiedMessage) -> bytes:
    """Return the key of the effect of a message: from its idempotency key (SPEC.md section 7) if it has one, else H(header).

    Copies of a message have the same header, and so the same key.
    """
    header, context = message.header, message.context
    if header.idm is None:
        return header.digest
    user: tuple[str | None, ...] = (context.idp, context.sub) if context is not None else (None, None)
    if context is not None and context.typ is not None:
        # A client with the id of a user must not get a result that was kept for the user.
        user = (*user, context.typ.value)
    return sha256(pack(("idm", header.iss.value, header.to, *user, header.idm))).digest()
