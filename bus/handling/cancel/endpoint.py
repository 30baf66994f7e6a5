"""What handles `control.<agent>.cancel`: a cancel that was decided and recorded becomes a stop, which every process reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

from sealbus.bus.handling.cancel.in_force import Stops
from sealbus.bus.handling.cancel.stop import Stop, parse, sign
from sealbus.bus.ports import Clock, Identity, wall_clock
from sealbus.bus.routing.retry import Retry
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.cancel import CancelRequest, CancelRole, parse_cancel
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BadBody, EnvelopeError, StateUnavailable
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.policies.decision.request import Resource

__all__ = ["CancelEndpoint"]

FULL_AGAIN: Final = 10.0
"""Seconds after which a cancel is tried again for which there is no room."""
_WRITES: Final = 4
"""Tries to write a stop while others write in its place."""


class CancelEndpoint:
    """The handler of cancels for one agent, whose identity is `identity`. Raises what a handler may raise."""

    def __init__(
        self,
        *,
        keyed: KeyValue,
        stops: Stops,
        parked: Callable[[Stop], Awaitable[None]] | None = None,
        identity: Identity,
        names: Names,
        trust: Callable[[], Trust],
        caches: Caches,
        clock: Clock = wall_clock,
    ) -> None:
        self._keyed = keyed
        self._stops = stops
        self._parked = parked
        self._identity = identity
        self._names = names
        self._trust = trust
        self._caches = caches
        self._clock = clock

    def decode(self, body: bytes, typ: str) -> CancelRequest:
        """Return the request (step 14)."""
        return parse_cancel(body, typ)

    def properties(self, value: object) -> Mapping[str, object]:
        """Return what the policy may look at: the action that is canceled, as what, and why."""
        request = _request(value)
        return {"action": request.action, "role": request.role.value, "reason": request.reason}

    async def resource(self, value: object) -> Resource:
        """Return the task as the policy's resource: nothing is known of it but its hash."""
        return Resource(type="task", id=_request(value).digest.hex())

    async def handle(self, permitted: Permitted) -> Content | None:
        """Store the stop (step 18); a stop that is stored already stays. Raises `Retry` where no more are known.

        What is parked is ended then: whoever parks it meanwhile finds the stop, which stands before.
        """
        stop = await self._stored(permitted)
        if self._parked is not None:
            await self._parked(stop)
        return None

    async def _stored(self, permitted: Permitted) -> Stop:
        request, header = _request(permitted.value), permitted.message.header
        if self._stops.full_for(self._names.token(self._identity.spiffe_id), self._names.token(header.iss)):
            raise Retry(after=FULL_AGAIN, note="too many cancels are in force")
        stop = Stop(
            agent=self._identity.spiffe_id,
            digest=request.digest,
            action=request.action,
            by=header.iss,
            role=request.role,
            reason=request.reason,
            end=request.end,
            at=self._clock(),
            cancel=header.digest,
        )
        place = stop.place(self._names)
        stored = sign(stop, self._identity.sealer())
        written = await self._keyed.create(place.subject, stored)
        for _ in range(_WRITES):
            if written is not None:
                return stop
            found = await self._keyed.get(place.subject)
            if found is None:
                continue
            try:
                known = parse(
                    found.payload,
                    place,
                    stored=found.stored,
                    names=self._names,
                    trust=self._trust(),
                    caches=self._caches,
                )
                # An operator's cancel counts for everything that the same workload's as a requester counts for.
                if (
                    known.action == stop.action
                    and known.end >= stop.end
                    and known.role in (stop.role, CancelRole.OPERATOR)
                ):
                    return stop
            except EnvelopeError:
                pass
            written = await self._keyed.replace(place.subject, stored, last=found.sequence)
        if written is None:
            raise StateUnavailable("others write in the place of a stop")
        return stop

    def stream(self, permitted: Permitted) -> AsyncGenerator[Content, None] | None:
        """Return nothing: this is no call."""
        del permitted
        return None


def _request(value: object) -> CancelRequest:
    if not isinstance(value, CancelRequest):
        raise BadBody("not a cancel")
    return value
