"""The stops that are in force: read from STATE from the start on, matched with what is handled here.

A process reads the stops of all agents, keeps them as long as anything that they concern may still be delivered, and matches
messages by their verified headers. While there are none, that is one look at an empty table for each message.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sealbus.bus.handling.cancel.stop import STOPS, Stop, StopPlace, parse, place_of
from sealbus.bus.ports import Clock, Delivery, Transport, wall_clock
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.answer import is_detached
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.declared import KEPT_SECONDS
from sealbus.bus.streams.held import PastTrust, current_only
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names

__all__ = ["MOST", "MOST_OF_ONE", "MOST_OF_REQUESTER", "Stops"]

_log = logging.getLogger(__name__)

MOST: Final = 65_536
"""Stops that a process knows."""
MOST_OF_ONE: Final = 16_384
"""Stops of one agent that a process knows: one agent that is told too much does not use up the room of all."""
MOST_OF_REQUESTER: Final = 12_288
"""Those of them from one requester: who leaves many calls, for instance, does not keep others from cancelling."""

KEPT_AFTER: Final = 60
"""Seconds that a stop is known after the end of what it stops: more than clocks may differ."""

CURRENT_WITHIN: Final = 5.0
"""Seconds that a message waits until it is known again which stops there are, before it is put off."""

STILL_WITHIN: Final = 2.0
"""Seconds for which the event loop may have stood still before a message has to wait until it turns again: what came
meanwhile, a stop or that the server is silent, is not seen yet."""
TURN: Final = 0.25
"""Seconds between two looks at that."""

PUT_OFF_BYTES: Final = 67_108_864
"""Bytes of messages that were put off and are watched for stops; each counts with its body, and `HEADERS` beside it."""
HEADERS: Final = 4_096

PROVED_AGAIN: Final = 1.0
"""Seconds after which stops that do not verify are looked at again."""
_UNPROVED: Final = 256

_NONE: Final[Mapping[StopPlace, Stop | None]] = MappingProxyType({})
_AGAIN: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


class _PutOff(NamedTuple):
    message: VerifiedMessage
    until: int
    size: int
    end: Callable[[Canceled], None]


class Stops:
    """The stops that one process knows; `run` reads them. Pure bookkeeping otherwise."""

    def __init__(
        self,
        *,
        transport: Transport,
        names: Names,
        own_subjects: OwnSubjects,
        trust: Callable[[], Trust],
        caches: Caches,
        counters: Counters,
        past: PastTrust = current_only,
        required: bool = True,
        clock: Clock = wall_clock,
    ) -> None:
        self._required = required
        """Whether nothing begins while it is not known what was canceled."""
        self._transport = transport
        self._names = names
        self._own_subjects = own_subjects
        self._trust = trust
        self._caches = caches
        self._past = past
        self._counters = counters
        self._clock = clock
        self.current = asyncio.Event()
        """Set while everything that was stored a few seconds ago is known."""
        self._known: dict[bytes, dict[StopPlace, Stop | None]] = {}
        """By the message that they are about; None stands for a stop that does not verify."""
        self._until: dict[StopPlace, int] = {}
        """Until when each may concern anything."""
        self._order: list[tuple[int, StopPlace]] = []
        """The same as a heap, the soonest first; a place may be in it more than once."""
        self._of_one: Counter[str] = Counter()
        self._of_pair: Counter[tuple[str, str]] = Counter()
        self._unproved: dict[StopPlace, tuple[int, bytes]] = {}
        """Stops that do not verify, which may be because our bundle lags behind their signer's key."""
        self._running: dict[int, Permitted] = {}
        self._put_off: dict[bytes, _PutOff] = {}
        """What waits to be tried again, by the hash of its message; bounded by what it holds."""
        self._held = 0
        self._turned = 0.0
        """When the event loop was last seen to turn, by its time; 0 before."""
        self._news = asyncio.Event()
        """Set, and another put in its place, when stops have come."""
        self._said = OperatorLog(_log)

    async def run(self) -> None:
        """Read the stops until cancelled; a stream that was created again is read from its beginning."""
        failures = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(self._prove_again(), name="stops-unproved")
            group.create_task(self._watch_turns(), name="stops-turns")
            while True:
                try:
                    # All that there are: the stream keeps each as long as it matters, and our clock may be wrong.
                    reading = self._transport.read(STATE, [STOPS], follow=True, current=self.current)
                    async with aclosing(reading) as batches:
                        async for batch in batches:
                            failures = 0
                            self._take(batch)
                except (BusUnavailable, ConfigurationError) as error:
                    self._said.warning("reading stops: %s", error.detail)
                failures += 1
                self.current.clear()
                await asyncio.sleep(_AGAIN.interval(failures))

    async def met(self, permitted: Permitted) -> Canceled | None:
        """Return who canceled the work of a message that is about to be handled, and watch for it until `leave`.

        Raises `StateUnavailable` if it is not known within `CURRENT_WITHIN` seconds which stops there are, and that is
        required.
        """
        if self._required and (not self.current.is_set() or self._stood_still()):
            try:
                async with asyncio.timeout(CURRENT_WITHIN):
                    while self._stood_still():  # noqa: ASYNC110  an event would be set before what came is seen
                        await asyncio.sleep(TURN)
                    await self.current.wait()
            except TimeoutError as error:
                raise StateUnavailable("what was canceled is not known") from error
        self._running[id(permitted)] = permitted
        if self._put_off:
            self._taken_up(permitted.message.header.digest)
        return self.find(permitted.message) if self._known else None

    async def expected(self, message: VerifiedMessage) -> Canceled | None:
        """Return who canceled a message whose handler ended because something that it asked for was canceled.

        If that is because the message itself was, the news of its end may come before the stop, for which this waits at most
        `CURRENT_WITHIN` seconds. Returns `None` if nobody did.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CURRENT_WITHIN):
                while (canceled := self.find(message)) is None:
                    await self._news.wait()
                return canceled
        return None

    def put_off(self, message: VerifiedMessage, seconds: float, end: Callable[[Canceled], None]) -> None:
        """Call `end` once somebody cancels `message`, or now if somebody has; it is delivered again in `seconds`.

        Where too much waits already, the stop is met when it is delivered.
        """
        self._taken_up(message.header.digest)
        if (canceled := self.find(message)) is not None:
            # It came after the handler had ended: nothing was running that could be told, and nothing waited yet.
            end(canceled)
            return
        now, size = self._clock(), len(message.body) + HEADERS
        if self._held + size > PUT_OFF_BYTES:
            for digest in [digest for digest, one in self._put_off.items() if one.until < now]:
                self._taken_up(digest)
        if self._held + size <= PUT_OFF_BYTES:
            self._put_off[message.header.digest] = _PutOff(message, now + int(seconds * SECOND), size, end)
            self._held += size

    def _taken_up(self, digest: bytes) -> None:
        if (known := self._put_off.pop(digest, None)) is not None:
            self._held -= known.size

    def leave(self, permitted: Permitted) -> None:
        """Watch no longer: the work has ended."""
        self._running.pop(id(permitted), None)

    def find(self, message: VerifiedMessage) -> Canceled | None:
        """Return who canceled a message, or one that it follows from and is not detached from; `None` if nobody did."""
        if not self._known:
            return None
        for header in reversed(message.chain):
            for place, stop in self._known.get(header.digest, _NONE).items():
                if stop is not None and stop.concerns(header, self._own_subjects):
                    return Canceled(stop.by, stop.reason)
                # Bytes that another stored there must not undo a cancel: at worst one message is withheld.
                if stop is None and header is message.header and place.could_stop(header, self._names):
                    return Canceled(header.iss, "")
            if is_detached(header):
                return None
        return None

    def full_for(self, agent: str, requester: str) -> bool:
        """Return whether no more stops of the agent and the requester with these tokens would be known."""
        self._forget()
        return self._is_full(agent, requester)

    def _is_full(self, agent: str, requester: str) -> bool:
        of_pair = self._of_pair[agent, requester]
        return len(self._until) >= MOST or self._of_one[agent] >= MOST_OF_ONE or of_pair >= MOST_OF_REQUESTER

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self._forget()
        for delivery in deliveries:
            place, arrival = place_of(delivery.subject), delivery.arrival
            if place is None or arrival is None:
                continue
            known = self._known.get(place.digest, _NONE)
            if place not in known:
                if self._is_full(place.agent, place.requester):
                    self._counters.add("sealbus_stops_ignored_total", 1)
                    self._said.warning("no room for another stop of %s", place.agent)
                    continue
                self._of_one[place.agent] += 1
                self._of_pair[place.agent, place.requester] += 1
                self._counters.add("sealbus_stops_total", 1)
            self._put(place, delivery.payload, arrival.stored)
            stop = self._known[place.digest][place]
            kept = arrival.stored + KEPT_SECONDS * SECOND
            self._keep(place, kept if stop is None else min(kept, stop.end + KEPT_AFTER * SECOND))
        self._interrupt()

    def _keep(self, place: StopPlace, until: int) -> None:
        if until > self._until.get(place, -1):
            self._until[place] = until
            heapq.heappush(self._order, (until, place))

    async def _then(self, stored: int) -> Sequence[Trust]:
        """Return the trust of when a stop was stored: its key may have left the bundle since."""
        try:
            return await self._past.at(stored)
        except StateUnavailable:
            return ()

    def _put(self, place: StopPlace, raw: bytes, stored: int, then: Sequence[Trust] = ()) -> None:
        known = self._known.setdefault(place.digest, {})
        try:
            known[place] = self._parsed(place, raw, stored, then)
        except EnvelopeError as error:
            if place not in self._unproved:
                self._counters.add("sealbus_stops_unverified_total", 1, code=str(error.code))
                self._said.warning("a stop of %s does not verify: %s", place.agent, error)
            # A genuine one that is known stays in force.
            if known.setdefault(place, None) is None and len(self._unproved) < _UNPROVED:
                self._unproved[place] = stored, raw
        else:
            self._unproved.pop(place, None)

    def _parsed(self, place: StopPlace, raw: bytes, stored: int, then: Sequence[Trust]) -> Stop:
        parsed = partial(parse, raw, place, stored=stored, names=self._names, caches=self._caches)
        for trust in then:
            with suppress(EnvelopeError):
                return parsed(trust=trust)
        return parsed(trust=self._trust())

    def _stood_still(self) -> bool:
        return 0.0 < self._turned < asyncio.get_running_loop().time() - STILL_WITHIN

    async def _watch_turns(self) -> None:
        """Note that the event loop turns, and after a pause only once it has turned for a while."""
        loop = asyncio.get_running_loop()
        self._turned = loop.time()
        while True:
            before = loop.time()
            await asyncio.sleep(TURN)
            if loop.time() - before < STILL_WITHIN:
                self._turned = loop.time()

    async def _prove_again(self) -> None:
        """Verify once more what did not verify, for as long as a bundle may lag, and with the keys of its time."""
        while True:
            await asyncio.sleep(PROVED_AGAIN)
            unproved = list(self._unproved.items())
            for place, (stored, raw) in unproved:
                self._put(place, raw, stored, await self._then(stored))
                if self._clock() > stored + DEFAULT_LIMITS.key_awaited:
                    self._unproved.pop(place, None)
            if unproved:
                self._interrupt()

    def _interrupt(self) -> None:
        for permitted in list(self._running.values()):
            canceled = self.find(permitted.message)
            if canceled is not None:
                permitted.cancellation.request(canceled)
        for digest, waiting in list(self._put_off.items()):
            canceled = self.find(waiting.message)
            if canceled is not None:
                self._taken_up(digest)
                waiting.end(canceled)
        self._news.set()
        self._news = asyncio.Event()

    def _forget(self) -> None:
        """Forget the stops that can concern nothing any more."""
        now = self._clock()
        while self._order and self._order[0][0] < now:
            until, place = heapq.heappop(self._order)
            if self._until.get(place) != until:
                continue
            del self._until[place]
            self._unproved.pop(place, None)
            for counted, key in ((self._of_one, place.agent), (self._of_pair, (place.agent, place.requester))):
                _take_off(counted, key)
            known = self._known[place.digest]
            del known[place]
            if not known:
                del self._known[place.digest]


def _take_off(counted: Counter[Any], key: object) -> None:
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
