"""The handler of `control.<agent>.cancel`: stores a decided and recorded cancel as a stop that every process reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from sealbus.bus.routing.retry import Refused
from sealbus.bus.routing.routes import Endpoint, Permitted
from sealbus.bus.sending.cancel import CancelRequest, CancelRole, parse_cancel
from sealbus.bus.sending.message import Content
from sealbus.bus.site import Site
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.cancel.in_force import Stops, StopVerifier
from sealbus.bus.work.cancel.room import OF_REQUESTER
from sealbus.bus.work.cancel.stop import Stop, sign
from sealbus.envelopes.errors import BadBody, Code, EnvelopeError, StateUnavailable
from sealbus.policies.decision.request import Resource

_WRITES: Final = 4
"""Tries to write a stop while others write in its place."""


class CancelEndpoint(Endpoint):
    """The handler of cancels for one agent; `end_parked` ends the parked tasks that a stop concerns.

    Its methods raise what a handler may raise.
    """

    def __init__(
        self,
        site: Site,
        *,
        stops: Stops,
        end_parked: Callable[[Stop], Awaitable[None]] | None = None,
    ) -> None:
        self._keyed = KeyValue(site.transport)
        self._stops = stops
        self._verifier = StopVerifier(site=site)
        self._names = site.names
        self._end_parked = end_parked
        self._identity = site.identity
        self._clock = site.bus_clock

    def decode(self, body: bytes, typ: str) -> CancelRequest:
        """Return the request (step 14)."""
        return parse_cancel(body, typ)

    def properties(self, value: object) -> Mapping[str, object]:
        """Return the properties of a cancel for the policy: the canceled action, the role of the sender, and the reason."""
        request = _request(value)
        return {"action": request.action, "role": request.role.value, "reason": request.reason}

    async def resource(self, value: object) -> Resource:
        """Return the task as the policy's resource: only its hash is known."""
        return Resource(type="task", id=_request(value).digest.hex())

    async def handle(self, permitted: Permitted) -> Content | None:
        """Store the stop (step 18), unless a stored stop covers it. Then end the parked task.

        The stop is stored first, so a process that parks the task meanwhile finds it. Raises `Refused` (`overloaded`) if
        the requester has no room left, `StateUnavailable` or `BusUnavailable` if the stop is not stored.
        """
        stop, sequence = await self._store(permitted)
        if not await self._stops.admits(stop, sequence):
            # Other processes took the room at the same moment. This stop must not come into force once there is room again.
            over = sign(replace(stop, end=0, at=self._clock()), self._identity.sealer())
            await self._keyed.replace(stop.place(self._names).subject, over, last=sequence)
            raise _overloaded()
        if self._end_parked is not None:
            await self._end_parked(stop)
        return None

    async def _store(self, permitted: Permitted) -> tuple[Stop, int]:
        """Store a stop, unless a stored stop covers it; return the stored stop and its sequence.

        Raises `Refused` (`overloaded`), or `StateUnavailable` if other processes keep writing there.
        """
        request, header = _request(permitted.value), permitted.message.header
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
        if self._stops.full_for(place):
            raise _overloaded()
        stored = sign(stop, self._identity.sealer())
        written = await self._keyed.create(place.subject, stored)
        for _ in range(_WRITES):
            if written is not None:
                return stop, written
            value = await self._keyed.get(place.subject)
            if value is None:
                continue
            try:
                known = self._verifier.verified(value.payload, place, stored=value.stored)
                # A stop with the role operator also covers a cancel that its workload sends as requester.
                if (
                    known.action == stop.action
                    and known.end >= stop.end
                    and known.role in (stop.role, CancelRole.OPERATOR)
                ):
                    return known, value.sequence
            except EnvelopeError:
                pass
            written = await self._keyed.replace(place.subject, stored, last=value.sequence)
        if written is None:
            raise StateUnavailable("other processes write in the place of a stop")
        return stop, written


def _request(value: object) -> CancelRequest:
    if not isinstance(value, CancelRequest):
        raise BadBody("not a cancel")
    return value


def _overloaded() -> Refused:
    return Refused(Code.OVERLOADED, note=f"{OF_REQUESTER} cancels of this requester are in force here")
