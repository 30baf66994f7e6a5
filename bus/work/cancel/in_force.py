"""The stops that are in force: read from STATE, and matched with the messages that are handled here.

A process reads the stops of all agents from the start on, and keeps each while messages that it concerns may be delivered.
Messages are matched by their verified headers; without stops, that is one look at an empty table. Bytes that do not verify
stop nothing and take no room. If such bytes stand in the place of a stop, HELD, which erases nothing, is asked before the
message of that place begins.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from sealbus.bus.loop_turns import TURN
from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.routing.cancellation import Canceled
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.answer import is_detached
from sealbus.bus.site import Site
from sealbus.bus.stream_names import STATE
from sealbus.bus.streams.declared import KEPT_SECONDS
from sealbus.bus.streams.held import PastTrust, current_only
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.cancel.room import KEPT_AFTER, Doubts, StopRoom, Taken
from sealbus.bus.work.cancel.stop import STOPS, Stop, StopPlace, parse, place_of
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import Header

_logger = logging.getLogger(__name__)

CURRENT_WITHIN: Final = 5.0
"""Seconds that a message waits for the stops to be known again, before it is put off."""

PUT_OFF_BYTES: Final = 67_108_864
"""Bytes of messages that were put off and are watched for stops; each counts with its body and `HEADERS` bytes."""
HEADERS: Final = 4_096

PROVED_AGAIN: Final = 1.0
"""Seconds after which stops whose signature does not verify are looked at again."""
UNPROVED: Final = 256
"""Such stops that are looked at again, because their keys may be new. For others, HELD is asked when their messages begin."""
UNPROVED_OF_AGENT: Final = 64
"""Such stops that stand in the places of one agent."""

NEW_CELLS: Final = 5.0
"""Seconds between two looks for cells that were added."""

_AGAIN: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopVerifier:
    """Verifies the values in the places of stops, by the bundles of now or of the past."""

    site: Site
    past: PastTrust = current_only

    def verified(self, raw: bytes, place: StopPlace, *, stored: int) -> Stop:
        """Return the stop that was stored in `place` at `stored`, verified by the bundles of now. Raises as `parse` does."""
        site = self.site
        return parse(raw, place, stored=stored, names=site.names, trust=site.trust(), caches=site.caches)

    async def verified_then(self, raw: bytes, place: StopPlace, *, stored: int) -> Stop:
        """As `verified`, or by the bundles of the time `stored`: the key may have left the bundles since."""
        parsed = partial(parse, raw, place, stored=stored, names=self.site.names, caches=self.site.caches)
        with suppress(StateUnavailable):
            for trust in await self.past.at(stored):
                with suppress(EnvelopeError):
                    return parsed(trust=trust)
        return parsed(trust=self.site.trust())


class _Known(asyncio.Event):
    """Whether the stops of one cell are known; `changed` is called whenever that is said."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def set(self) -> None:
        """Note that they are."""
        super().set()
        self._changed()

    def clear(self) -> None:
        """Note that they are not."""
        super().clear()
        self._changed()


class _PutOff(NamedTuple):
    message: VerifiedMessage
    until: int
    size: int
    end: Callable[[Canceled], None]


class Stops:
    """The stops that are in force for one process: `run` reads them from STATE, `kept` looks others up in HELD.

    With `required`, no message begins while the stops are not known.
    """

    def __init__(self, site: Site, *, kept: KeptStops, past: PastTrust = current_only, required: bool = True) -> None:
        self._required = required
        self._site = site
        self._verifier = StopVerifier(site=site, past=past)
        self._kept = kept
        self._own_subjects = site.own_subjects
        self._clock = site.bus_clock
        self.current = asyncio.Event()
        """Set while all stops are known, except those of the last seconds."""
        self._position = 0
        """The highest sequence of the own cell's STATE that was taken in since the last connection."""
        self._known: dict[str, _Known] = {}
        """Whether all stops of each cell are known."""
        self._room = StopRoom(site.token)
        self._doubts = Doubts()
        self._unproved: dict[StopPlace, tuple[int, bytes]] = {}
        """Stops whose signature does not verify: our bundle may lag behind the key of the signer."""
        self._unproved_of: Counter[str] = Counter()
        self._doubted = asyncio.Event()
        """Set when a stop was added to those."""
        self._running: dict[int, Permitted] = {}
        self._put_off: dict[bytes, _PutOff] = {}
        """Messages that wait for their redelivery, by their hashes; bounded by their bytes, which `_held` counts."""
        self._held = 0
        self._news = asyncio.Event()
        """Set and replaced whenever stops have come."""
        self._operator_log = OperatorLog(_logger)

    async def run(self) -> None:
        """Read the stops of every cell until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._prove_again(), name="stops-unproved")
            group.create_task(self._site.turns.watch(), name="stops-turns")
            reading: dict[str, asyncio.Task[None]] = {}
            while True:
                cells = self._site.transport.cells_of(STOPS)
                for cell in reading.keys() - cells.keys():
                    reading.pop(cell).cancel()
                    del self._known[cell]
                for cell, transport in cells.items():
                    if cell not in reading:
                        self._known[cell] = known = _Known(self._note_known)
                        follow = self._follow(transport, known, is_own=transport is next(iter(cells.values())))
                        reading[cell] = group.create_task(follow, name=f"stops-{cell}")
                self._note_known()
                await asyncio.sleep(NEW_CELLS)

    async def _follow(self, transport: Transport, known: _Known, *, is_own: bool) -> None:
        """Read the stops of one cell until cancelled; a stream that was created again is read from its beginning."""
        failures = 0
        while True:
            try:
                # From the start: the stream keeps each stop as long as it matters, and our clock may be wrong.
                if is_own:
                    self._position = 0
                async with aclosing(transport.read(STATE, [STOPS], follow=True, current=known)) as batches:
                    async for batch in batches:
                        failures = 0
                        self._take(batch, is_own=is_own)
            except (BusUnavailable, ConfigurationError) as error:
                self._operator_log.warning("reading stops: %s", error.detail)
            failures += 1
            known.clear()
            await asyncio.sleep(_AGAIN.interval(failures))

    def _note_known(self) -> None:
        if all(known.is_set() for known in self._known.values()):
            self.current.set()
        else:
            self.current.clear()

    async def met(self, permitted: Permitted) -> Canceled | None:
        """Return the cancellation of a message that is about to be handled, and watch the message until `leave`.

        Raises `StateUnavailable` if the stops are required and not known within `CURRENT_WITHIN` seconds, or if HELD has to
        be asked and does not answer within as many.
        """
        if self._required and (not self.current.is_set() or self._site.turns.stood_still):
            try:
                async with asyncio.timeout(CURRENT_WITHIN):
                    while self._site.turns.stood_still:  # noqa: ASYNC110  an event would be set before the stops are seen
                        await asyncio.sleep(TURN)
                    await self.current.wait()
            except TimeoutError as error:
                raise StateUnavailable("the stops are not known") from error
        self._running[id(permitted)] = permitted
        message = permitted.message
        if self._put_off:
            self._taken_up(message.header.digest)
        canceled = self.find(message)
        if canceled is None and self._doubtful(message):
            canceled = await self._find_kept(message)
        # A stop may have come while HELD was asked.
        return canceled or permitted.cancellation.canceled

    async def expected(self, message: VerifiedMessage) -> Canceled | None:
        """Return the cancellation of a message whose handler failed because a request of it was canceled, or `None`.

        If the message itself was canceled, its request may end before the stop arrives here. So this waits for the stop, at
        most `CURRENT_WITHIN` seconds.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(CURRENT_WITHIN):
                while (canceled := self.find(message)) is None:
                    await self._news.wait()
                return canceled
        with suppress(StateUnavailable):
            return await self._find_kept(message)
        return None

    async def admits(self, stop: Stop, sequence: int) -> bool:
        """Return whether our `stop`, stored in STATE at `sequence`, has room by the order of the stream.

        It has none if its requester had no room left when it was stored. Raises `StateUnavailable` if this process has not
        read the stop within `CURRENT_WITHIN` seconds, or cannot verify it yet.
        """
        place = stop.place(self._site.names)
        try:
            async with asyncio.timeout(CURRENT_WITHIN):
                while self._position < sequence:
                    await self._news.wait()
        except TimeoutError as error:
            raise StateUnavailable("a stop is stored and was not read") from error
        if place in self._room or _until(stop) < self._clock():
            return True
        if self._room.is_full(place.agent, place.requester):
            return False
        raise StateUnavailable("a stop of our own does not verify")

    def put_off(self, message: VerifiedMessage, seconds: float, end: Callable[[Canceled], None]) -> None:
        """Call `end` once `message` is canceled, or now if it is; it is delivered again in `seconds`.

        If too many bytes wait already, the stop is met at the redelivery instead.
        """
        self._taken_up(message.header.digest)
        if (canceled := self.find(message)) is not None:
            # The stop came after the handler had ended and before the message waited here.
            end(canceled)
            return
        now, size = self._clock(), len(message.body) + HEADERS
        if self._held + size > PUT_OFF_BYTES:
            for digest in [digest for digest, waiting in self._put_off.items() if waiting.until < now]:
                self._taken_up(digest)
        if self._held + size <= PUT_OFF_BYTES:
            self._put_off[message.header.digest] = _PutOff(message, now + int(seconds * SECOND), size, end)
            self._held += size

    def _taken_up(self, digest: bytes) -> None:
        if (known := self._put_off.pop(digest, None)) is not None:
            self._held -= known.size

    def leave(self, permitted: Permitted) -> None:
        """Stop watching a message whose work has ended."""
        self._running.pop(id(permitted), None)

    def find(self, message: VerifiedMessage) -> Canceled | None:
        """Return the known cancellation of a message, or of an ancestor that it is not detached from, or `None`."""
        return self._canceled(message, lambda digest: self._room.under(digest).values()) if self._room else None

    def suspects(self, message: VerifiedMessage) -> bool:
        """Return whether a message is canceled, or may be: then HELD has to be asked."""
        return self.find(message) is not None or self._doubtful(message)

    def full_for(self, place: StopPlace) -> bool:
        """Return whether `place` has no stop, and there is no room for a new one."""
        self._room.forget(self._clock())
        return place not in self._room and self._room.is_full(place.agent, place.requester)

    def _canceled(self, message: VerifiedMessage, under: Callable[[bytes], Iterable[Stop]]) -> Canceled | None:
        for header in _bound(message):
            for stop in under(header.digest):
                if stop.concerns(header, self._own_subjects):
                    return Canceled(stop.by, stop.reason)
        return None

    def _doubtful(self, message: VerifiedMessage) -> bool:
        if not self._room and not self._doubts:
            return False
        now = self._clock()
        return any(self._is_doubtful(header, now) for header in _bound(message))

    def _is_doubtful(self, header: Header, now: int) -> bool:
        # An older version of a stop, of another action for instance, may have been stored over the version that counts.
        return self._doubts.has(header.digest, now) or bool(self._room.under(header.digest))

    async def _find_kept(self, message: VerifiedMessage) -> Canceled | None:
        """Return the cancellation of a message by the stops in HELD. Raises `StateUnavailable` if they cannot be read."""
        now = self._clock()
        try:
            async with asyncio.timeout(CURRENT_WITHIN):
                for header in _bound(message):
                    if header.aud is None or not self._is_doubtful(header, now):
                        continue
                    self._site.counters.add("sealbus_stops_asked_total", 1)
                    for stop in await self._kept.under(header.digest, header.aud, fresh=True):
                        if stop.concerns(header, self._own_subjects):
                            return Canceled(stop.by, stop.reason)
        except (TimeoutError, BusUnavailable, ConfigurationError) as error:
            raise StateUnavailable("the stops in HELD are not known") from error
        return None

    def _take(self, deliveries: Sequence[Delivery], *, is_own: bool) -> None:
        passing: dict[bytes, list[Stop]] = {}
        for delivery in deliveries:
            place, arrival = place_of(delivery.subject), delivery.arrival
            if arrival is None:
                continue
            if place is not None:
                try:
                    stop = self._verifier.verified(delivery.payload, place, stored=arrival.stored)
                except EnvelopeError as error:
                    self._doubt(place, arrival.stored, delivery.payload, error)
                else:
                    self._forget_unproved(place)
                    if self._put(place, stop, arrival.stored) is Taken.NO_MEMORY:
                        passing.setdefault(place.digest, []).append(stop)
            if is_own:
                self._position = max(self._position, arrival.sequence)
        self._interrupt(passing)

    def _put(self, place: StopPlace, stop: Stop, stored: int) -> Taken:
        until = min(stored + KEPT_SECONDS * SECOND, _until(stop))
        outcome = self._room.put(place, stop, until=until, now=stored)
        if outcome is Taken.NEW:
            self._site.counters.add("sealbus_stops_total", 1)
        elif outcome is not Taken.AGAIN:
            # A stop that counts may have stood in its place before.
            self._doubts.add(place.digest, stored + KEPT_SECONDS * SECOND)
        if outcome in (Taken.FULL, Taken.NO_MEMORY):
            self._site.counters.add("sealbus_stops_unkept_total", 1)
            self._operator_log.warning(
                "a stop of %s for %s is not kept: %s", place.agent, place.requester, outcome.value
            )
        return outcome

    def _doubt(self, place: StopPlace, stored: int, raw: bytes, error: EnvelopeError) -> None:
        """Note that the value in `place` does not verify; a known genuine stop stays in force."""
        self._doubts.add(place.digest, stored + KEPT_SECONDS * SECOND)
        self._site.counters.add("sealbus_stops_unverified_total", 1, code=str(error.code))
        self._operator_log.warning("a stop of %s does not verify: %s", place.agent, error)
        self._forget_unproved(place)
        of_agent = self._unproved_of[place.agent]
        if error.code is Code.BAD_SIGNATURE and len(self._unproved) < UNPROVED and of_agent < UNPROVED_OF_AGENT:
            self._unproved[place] = stored, raw
            self._unproved_of[place.agent] += 1
            self._doubted.set()

    def _forget_unproved(self, place: StopPlace) -> None:
        if self._unproved.pop(place, None) is not None:
            self._unproved_of[place.agent] -= 1
            if not self._unproved_of[place.agent]:
                del self._unproved_of[place.agent]

    async def _prove_again(self) -> None:
        """Verify unproved stops again while a bundle may lag, also with the keys of the time when they were stored."""
        while True:
            if not self._unproved:
                self._doubted.clear()
                await self._doubted.wait()
            await asyncio.sleep(PROVED_AGAIN)
            for place, (stored, raw) in list(self._unproved.items()):
                try:
                    stop = await self._verifier.verified_then(raw, place, stored=stored)
                except EnvelopeError:
                    if self._clock() <= stored + DEFAULT_LIMITS.key_awaited:
                        continue
                else:
                    # Another value may have been stored in the place meanwhile.
                    if self._unproved.get(place) == (stored, raw):
                        self._put(place, stop, stored)
                        self._interrupt()
                if self._unproved.get(place) == (stored, raw):
                    self._forget_unproved(place)

    def _interrupt(self, passing: Mapping[bytes, Sequence[Stop]] = MappingProxyType({})) -> None:
        """End canceled messages that run or wait here; stops that are `passing` count, although they are not kept."""

        def under(digest: bytes) -> Iterable[Stop]:
            return [*self._room.under(digest).values(), *passing.get(digest, ())]

        for permitted in list(self._running.values()):
            if (canceled := self._canceled(permitted.message, under)) is not None:
                permitted.cancellation.request(canceled)
        for digest, waiting in list(self._put_off.items()):
            if (canceled := self._canceled(waiting.message, under)) is not None:
                self._taken_up(digest)
                waiting.end(canceled)
        self._news.set()
        self._news = asyncio.Event()


def _bound(message: VerifiedMessage) -> Iterable[Header]:
    """Yield the headers of a message and its ancestors, up to the first that is detached from its own ancestors."""
    for header in reversed(message.chain):
        yield header
        if is_detached(header):
            return


def _until(stop: Stop) -> int:
    return stop.end + KEPT_AFTER * SECOND
