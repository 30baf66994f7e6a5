"""The marker of a parked task tells its requester until when the task waits, and whether it has ended.

It stands in HELD, at `held.<agent>.wait.<token of the requester>.<hex id of the task>`, as long as the parked task, because
statuses are deleted after a day. A requester looks for it before it concludes that a task has expired.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Identity
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.request import rfc3339

MARKER_TYPE: Final = "application/vnd.sealbus.parked-marker.v1"
"""Payload type of the signature."""

_WRITES: Final = 4
"""Tries to write a marker while other processes write in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What the requester of the task with H(header) `digest` learns. `until` is microseconds."""

    digest: bytes
    until: int
    ended: bool

    def keys(self) -> dict[str, Value]:
        """Return its own keys of the payload."""
        return {"dig": self.digest, "unt": self.until, "end": self.ended}


@dataclass(frozen=True, slots=True)
class StoredMarker:
    """A marker, and the version of the stored value that holds it."""

    marker: Marker
    value: HeldValue


class Markers:
    """The markers that one agent writes."""

    def __init__(self, held: Held, *, identity: Identity, names: Names, clock: BusClock) -> None:
        self._held = held
        self._identity = identity
        self._names = names
        self._clock = clock

    async def put(
        self, task: Header, *, until: int, ended: bool, first: bool = False, known: StoredMarker | None = None
    ) -> StoredMarker:
        """Replace the marker of `task`, unless it says the same, and return it.

        An earlier marker holds: a task that has ended does not wait again, and no task waits for a shorter time than before
        (`move` changes that). If the marker should be the `first`, or should follow `known`, the first write happens without
        a read: it fails if another value is there. Raises `BusUnavailable` and `StateUnavailable` as `Held` does.
        """
        subject = self._subject(task)
        before, last = (known.value if known is not None else None), 0
        current = known.marker if known is not None else None
        for number in range(_WRITES):
            if number or not (first or known):
                before, last = await self._held.standing(subject, MARKER_TYPE)
                current = parsed_marker(before) if before is not None else None
            marker = Marker(digest=task.digest, until=until, ended=ended)
            if current is not None and current.digest == task.digest:
                marker = replace(marker, until=max(until, current.until), ended=ended or current.ended)
            if before is not None and current == marker:
                return StoredMarker(marker, before)
            stored = await self._write(subject, marker, before, last)
            if stored is not None:
                return StoredMarker(marker, stored)
        raise StateUnavailable(f"{subject}: other processes write in its place")

    async def move(self, task: Header, *, until: int, since: int) -> StoredMarker | None:
        """Move the time until which the readers of `task` wait to `until`, later or earlier, and return the marker.

        Returns `None` if a reader may have concluded by now that the task has expired, or may do so before `until`: then
        nothing may be done or told any more. `since` is the time until which readers wait without a marker.

        Readers conclude twice the clock skew after the time of the marker, and read the marker again first. So every reader
        sees a marker that was acknowledged before that time. Raises as `put`.
        """
        subject = self._subject(task)
        for _ in range(_WRITES):
            before, last = await self._held.standing(subject, MARKER_TYPE)
            current = parsed_marker(before) if before is not None else None
            if current is None or current.digest != task.digest:
                current = Marker(digest=task.digest, until=since, ended=False)
            bound = min(current.until, until)
            if current.ended or self._clock() >= bound or (before is not None and _moved_late(before)):
                return None
            if before is not None and current.until == until:
                return StoredMarker(current, before)
            marker = replace(current, until=until)
            stored = await self._write(subject, marker, before, last)
            if stored is not None:
                return StoredMarker(marker, stored) if self._clock() < bound else None
        raise StateUnavailable(f"{subject}: other processes write in its place")

    async def has_ended(self, task: Header) -> bool:
        """Return whether the marker of `task` says that it has ended. Raises as `put`."""
        value, _ = await self._held.standing(self._subject(task), MARKER_TYPE)
        marker = parsed_marker(value) if value is not None else None
        return marker is not None and marker.digest == task.digest and marker.ended

    def _subject(self, task: Header) -> str:
        own = self._names.token(self._identity.spiffe_id)
        return marker_subject(own, self._names.token(task.iss), task.id)

    async def _write(self, subject: str, marker: Marker, before: HeldValue | None, last: int) -> HeldValue | None:
        sealer = self._identity.sealer()
        return await self._held.write(subject, marker.keys(), MARKER_TYPE, sealer, before=before, last=last)


async def marker_of(held: Held, pending: PendingRequest, *, own: SpiffeId, names: Names) -> Marker | None:
    """Return the marker of our task `pending`, or `None`. Raises as `Held.newest` does."""
    subject = marker_subject(names.token(pending.aud), names.token(own), pending.id)
    value = (await held.newest(subject, MARKER_TYPE)).get(subject)
    marker = parsed_marker(value) if value is not None and value.own == pending.aud else None
    return marker if marker is not None and marker.digest == pending.digest else None


def waits_note(until: int) -> str:
    """Return the note of the status of a task that waits until `until` (microseconds)."""
    return f"waits for an approval until {rfc3339(until // SECOND)}"


def marker_subject(agent: str, requester: str, task: bytes) -> str:
    """Return the subject of a marker; `agent` and `requester` are tokens, `task` is the id of the task."""
    return f"held.{agent}.wait.{requester}.{task.hex()}"


def _moved_late(value: HeldValue) -> bool:
    """Return whether a marker was stored so long after it was made that a reader may have missed it.

    A write that was not acknowledged may still be stored later.
    """
    return value.number > 1 and value.stored > value.at + DEFAULT_LIMITS.clock_skew


def parsed_marker(value: HeldValue) -> Marker | None:
    """Return the marker in a genuine value, or `None` if the value is not a marker."""
    keys = value.keys
    try:
        marker = Marker(digest=keys.octets("dig"), until=keys.uint("unt"), ended=keys.flag("end"))
        keys.end()
    except EnvelopeError:
        return None
    return marker
