"""Stops that outlive a day, for parked tasks: a task that waits for an approval may be canceled, or one of its ancestors.

STATE forgets a stop after a day, because no message that it stops is delivered later. A parked task waits longer. So each
stop is kept in HELD as well, at `held.<agent>.stop.<hex of the message's hash>.<token of the canceling workload>`. It is
looked up before a parked task goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from sealbus.bus.background import all_done
from sealbus.bus.ports import Identity, Transport
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.sending.answer import is_detached
from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.stream_names import HELD
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.bus.work.cancel.stop import Stop, stop_of
from sealbus.envelopes.errors import EnvelopeError, SealError, StateUnavailable
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

KEPT_STOP_TYPE: Final = "application/vnd.sealbus.kept-stop.v1"
"""Payload type of the signature."""

STOP_PLACES: Final = 262_144
"""Hashes of canceled messages that are remembered: some 8,000 cancels on each of 32 days, in 26 MB."""

_STOPS: Final = "held.*.stop.*.*"


class KeptStops:
    """The stops in HELD: this agent's are written, all agents' are read."""

    def __init__(self, held: Held, *, identity: Identity, names: Names, own_subjects: OwnSubjects) -> None:
        self._held = held
        self._identity = identity
        self._names = names
        self._own_subjects = own_subjects

    async def keep(self, stop: Stop) -> None:
        """Store `stop`. A stop that is there already stays, except that an operator's replaces a requester's.

        Raises `BusUnavailable` and `StateUnavailable` as `Held` does.
        """
        place = stop.place(self._names)
        subject = f"held.{place.agent}.stop.{place.digest.hex()}.{place.requester}"
        before, last = await self._held.standing(subject, KEPT_STOP_TYPE)
        known = _stop(before) if before is not None else None
        if known is not None and known.action == stop.action and known.role in (stop.role, CancelRole.OPERATOR):
            return
        stored = await self._held.write(
            subject,
            {"mad": stop.at, **stop.keys()},
            KEPT_STOP_TYPE,
            self._identity.sealer(),
            before=before,
            last=last,
        )
        if stored is None:
            raise StateUnavailable("other processes write in the place of a stop")

    async def under(self, digest: bytes, agent: SpiffeId | None = None, *, fresh: bool = False) -> Sequence[Stop]:
        """Return the stops that `agent`, or this agent, has kept of the message with H(header) `digest`.

        Raises as `Held.newest` does, which defines `fresh`.
        """
        pattern = f"held.{self._names.token(agent or self._identity.spiffe_id)}.stop.{digest.hex()}.*"
        values = await self._held.newest(pattern, KEPT_STOP_TYPE, fresh=fresh)
        return [stop for value in values.values() if (stop := _stop(value)) is not None]

    async def find(self, chain: Sequence[Header], *, last: Sequence[Stop] | None = None) -> Canceled | None:
        """Return the cancellation of the last message of `chain`, or of an ancestor that it is not detached from.

        `chain` has the root first; `last` is what `under` returned for its last message. Raises as `Held.newest` does.
        """
        for header in reversed(chain):
            if last is None and header.aud is not None:
                last = await self.under(header.digest, header.aud)
            for stop in last or ():
                if stop.concerns(header, self._own_subjects):
                    return Canceled(stop.by, stop.reason)
            if is_detached(header):
                return None
            last = None
        return None


class StopPlaces:
    """The hashes of messages for which a value was stored where stops are kept. Other messages were not canceled.

    Use it to look up many tasks: it reads only what was stored since the last time, without the values. `most` bounds the
    hashes that are remembered, some 100 bytes each. Beyond `most`, and while HELD cannot be read within `within` seconds,
    each message has to be looked up, because it may have been canceled.
    """

    def __init__(self, transport: Transport, *, most: int = STOP_PLACES, within: float = 5.0) -> None:
        self._transport = transport
        self._most = most
        self._within = within
        self._read: dict[str, tuple[int, int]] = {}
        """For each cell when its stream was created, and the last sequence that was read."""
        self._digests: dict[str, set[bytes]] = {}
        self._reading = asyncio.Lock()

    async def refresh(self) -> bool:
        """Read the places that were stored since the last time; return whether all are known, so that `may_hold` holds.

        All cells are asked at once. Raises `BusUnavailable`, and `ConfigurationError` without the stream HELD.
        """
        async with self._reading:
            cells = self._transport.cells_of(_STOPS)
            try:
                async with asyncio.timeout(self._within):
                    await all_done(self._refresh_cell(cell, transport) for cell, transport in cells.items())
            except TimeoutError:
                return False
            return self._room > 0

    async def _refresh_cell(self, cell: str, transport: Transport) -> None:
        created = await transport.created(HELD)
        if created != self._read.get(cell, (-1, 0))[0]:
            # The stream was deleted and created again.
            self._read[cell], self._digests[cell] = (created, 0), set()
        await self._read_on(cell, transport)

    @property
    def _room(self) -> int:
        return self._most - sum(map(len, self._digests.values()))

    async def _read_on(self, cell: str, transport: Transport) -> None:
        created, last = self._read[cell]
        digests = self._digests[cell]
        async with aclosing(transport.read(HELD, [_STOPS], start=last + 1, headers_only=True)) as batches:
            async for batch in batches:
                for delivery in batch:
                    if self._room <= 0:
                        return
                    if delivery.arrival is not None:
                        self._read[cell] = created, delivery.arrival.sequence
                        digests.add(_digest_of(delivery.subject))

    def may_hold(self, chain: Sequence[Header]) -> bool:
        """Return whether `KeptStops.find` may find a stop for `chain`."""
        for header in reversed(chain):
            if any(header.digest in digests for digests in self._digests.values()):
                return True
            if is_detached(header):
                return False
        return False


def _digest_of(subject: str) -> bytes:
    try:
        return bytes.fromhex(subject.split(".")[3])
    except ValueError:
        return b""


def _stop(value: HeldValue) -> Stop | None:
    try:
        stop = stop_of(value.keys, agent=value.own, at=value.keys.uint("mad"))
        value.keys.end()
    except (EnvelopeError, SealError, ValueError):
        return None
    return stop if value.subject.split(".")[3] == stop.digest.hex() else None
