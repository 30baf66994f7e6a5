"""A durable consumer as one process binds it, and moves it to another server when its only one is away.

::

    STREAM.LIST is answered              the API works, and the stream has a leader, and
    CONSUMER.INFO is not, twice          so the consumer's server is away, or too slow to be of use
    STATE: moves + 1                     one process of the agent may go on, by compare-and-set
    CONSUMER.DELETE                      takes effect at once, answered or not
    CONSUMER.CREATE at floor + 1         on a server that is there; all others find the consumer as before

The new consumer delivers again what was acknowledged after the stored floor. A process that stalls between two of these steps
may delete the consumer that another process has created. Then messages are delivered again, and none is lost.

Versions of an agent share the consumer of its events, and each knows only its own subjects. What the consumer listens to is
stored with the floor before anything is taken from it, so that whoever moves it leaves out no subject of another version.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sealbus.bus.nats.api import StreamState
from sealbus.bus.nats.durable_consumer import Bound, ConsumerSilent, DurableSpec, bind, create_again, joined, look
from sealbus.bus.ports import MOST_LISTENED, AckFloors, Request, StoredFloor
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

_logger = logging.getLogger(__name__)

STORE_TRIES = 3
"""How often a floor is written when others write it, too; the first try of a process that has not read it yet fails."""


class ConsumerBinding:
    """The consumer of `spec`, which is moved only if it has one replica.

    With `floors` a consumer that does not exist begins after the stored floor, also where none was moved.
    """

    def __init__(self, request: Request, spec: DurableSpec, floors: AckFloors | None) -> None:
        if spec.one_replica and floors is None:
            raise ConfigurationError(f"consumer {spec.name}: with one replica it needs a place for its floor")
        self._request = request
        self._spec = spec
        self._floors = floors
        self._created = 0
        """When the stream was created of which the consumer is bound (microseconds); 0 before."""
        self._stored = StoredFloor()
        """The stored floor that this process has read or written last."""

    async def bind(self, stream: StreamState, start: int) -> Bound:
        """Bind the consumer of a stream, and move it if its server is away.

        The leader of `stream` has just described it. A consumer that does not exist begins after the stored floor. Without
        `floors` it begins at the sequence `start`, or at the first for 0. A stream of one replica is on one server, so that
        its consumer stays there. Raises as `durable_consumer.bind` does, `BusUnavailable` also while another process moves
        it, and `IdentityUnavailable`.
        """
        spec, floors = self._spec, self._floors
        if spec.shared and floors is not None:
            await self._read(floors, stream)
            spec = replace(spec, others=self._stored.listened)

        async def after_floor() -> DurableSpec:
            if floors is None:
                return replace(spec, start=start)
            # Another process of the agent may be about to create it, and hold deliveries that this one knows nothing of.
            floor = await self._read(floors, stream)
            return replace(spec, start=floor + 1, others=self._stored.listened)

        try:
            bound = await bind(self._request, spec, after_floor)
        except ConsumerSilent:
            if floors is None or not spec.one_replica or not stream.is_replicated:
                raise
            if spec.shared and not self._stored.listened:
                # It listens to more than can be stored, and has the replicas of its stream.
                raise
            try:
                bound = await bind(self._request, spec, after_floor)
            except ConsumerSilent:
                bound = await self._move(floors, stream)
        if spec.shared and floors is not None and not await self._store(floors, stream.created, bound):
            raise BusUnavailable(f"consumer {spec.name} of {spec.stream}: others bind it at the same time")
        self._created = stream.created
        return bound

    async def _move(self, floors: AckFloors, stream: StreamState) -> Bound:
        """Create the consumer anew on a server that is there."""
        spec, known = self._spec, self._stored
        floor = await self._read(floors, stream)
        if self._stored.moves != known.moves:
            raise BusUnavailable(f"consumer {spec.name} of {spec.stream}: another process moves it")
        moved = self._stored._replace(created=stream.created, floor=floor, moves=self._stored.moves + 1)
        stored = await floors.replace(spec.prefix + spec.stream, spec.name, moved)
        if stored is None:
            raise BusUnavailable(f"consumer {spec.name} of {spec.stream}: another process moves it")
        self._stored = stored
        bound = await create_again(self._request, replace(spec, start=floor + 1, others=stored.listened))
        _logger.warning(
            "consumer %s of %s: its server is away; another continues after sequence %d", spec.name, spec.stream, floor
        )
        return bound

    async def _read(self, floors: AckFloors, stream: StreamState) -> int:
        """Return the floor that is stored for this very `stream`, 0 if there is none."""
        self._stored = await floors.read(self._spec.prefix + self._spec.stream, self._spec.name)
        # nats-server begins where it is told, also beyond the end of a stream that has lost its last messages.
        return min(self._stored.floor, stream.last) if self._stored.created == stream.created else 0

    async def keep_floor(self) -> None:
        """Store how far the consumer is acknowledged, if that has changed. Raises `BusUnavailable`, `IdentityUnavailable`."""
        created, floors, spec = self._created, self._floors, self._spec
        if floors is None or not created:
            return
        await self._store(floors, created, await look(self._request, spec))

    async def _store(self, floors: AckFloors, created: int, bound: Bound) -> bool:
        """Store how far the consumer is acknowledged and what it listens to; return False if others were quicker."""
        spec = self._spec
        for _ in range(STORE_TRIES):
            # An acknowledgement is not taken back: the floor holds also for a consumer that was moved meanwhile.
            listened = joined(self._stored.listened, bound.listened)
            if len(listened) > MOST_LISTENED or (spec.shared and not bound.listened):
                listened = ()
            floor = self._stored._replace(created=created, floor=bound.ack_floor, listened=listened)
            if floor == self._stored:
                return True
            stored = await floors.replace(spec.prefix + spec.stream, spec.name, floor)
            if stored is not None:
                self._stored = stored
                return True
            self._stored = await floors.read(spec.prefix + spec.stream, spec.name)
        return False
