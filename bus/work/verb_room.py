"""Room for messages whose verb has no handler here: they wait at the broker for a version of this agent that has one.

A message that waits holds one of its consumer's `max_ack_pending` until it is handled, whichever process put it off last. So
the room is measured at the broker: half of what the consumer allows, over all processes. A process also bounds the bytes that
it has put off itself. A message needs room at its first delivery and then keeps it, so that later messages cannot displace a
waiting task. A sender gets at most as much room as it leaves free, so that some is left for the next sender. A message that
comes again counts for its sender only from when it is put off anew.

::

    first delivery --> room for its sender? --no--> given up at once
                            | yes
    later delivery ---------+--> put off, by backoff and by PACE --> the broker delivers it again, here or elsewhere
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from sealbus.bus.ports import ConsumerLoad, Delivery, Pull
from sealbus.bus.routing.retry import VERB_AWAITED
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND

_logger = logging.getLogger(__name__)

SHARE: Final = 2
"""Waiting messages take at most this fraction of the consumer's places; messages with known verbs use the others."""

PLACE_BYTES: Final = 4_096
"""A message takes one place for each so many bytes or part of them, because each try delivers all of its bytes."""

ROOM_BYTES: Final = 268_435_456
"""Most bytes of the messages that one process puts off, for each stream: 65,536 places."""

PACE: Final = 256.0
"""Messages that are redelivered in a second, over all processes, however many wait; at most 1 MiB for one process.

A consumer delivers redeliveries before new messages, so waiting messages must leave it time for these. With 65,000 messages
that wait at this pace, a consumer with three replicas delivered new messages after 0.24 s (docs/durability.md).
"""

LAST_TRY: Final = 2.0
"""Seconds before `exp` at which a message is delivered for the last time, if the next pause would pass its `exp`."""

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the consumer's load, while messages are put off."""

LOOK_WITHIN: Final = 2.0
"""Seconds for the broker's answer; without an answer, the last known load counts."""

_LABEL: Final = "unknown_verb"


class VerbRoom:
    """The messages that one process has put off for verbs that it lacks.

    `most` is the `max_ack_pending` that counts until the broker has reported that of the consumer.
    """

    def __init__(self, most: int, *, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._counters = counters
        self._clock = clock
        self._streams: dict[str, _StreamRoom] = {}
        self._operator_log = OperatorLog(_logger)
        counters.add("sealbus_put_off_total", 0, cause=_LABEL)

    async def put_off(
        self, message: VerifiedMessage, delivery: Delivery, pull: Pull, *, random: float, now: int
    ) -> float | None:
        """Have `delivery` redelivered and return the seconds until then, or `None` if there is no room or no time for it.

        `random` is from [0, 1), `now` the time in microseconds. Asks the broker at most every `LOOK_EVERY` seconds, and waits
        for it at most `LOOK_WITHIN` seconds.
        """
        room, places = self._room(delivery), -(-max(1, len(delivery.payload)) // PLACE_BYTES)
        room.free_ended(self._clock())
        await self._look(room, pull)
        if delivery.number == 1:
            if not room.has_room(message, places):
                self._counters.add("sealbus_no_place_total", 1, cause=_LABEL)
                self._operator_log.warning("no room is left for a verb that this version does not have")
                return None
            room.admitted += 1
        pause = max(VERB_AWAITED.interval(delivery.number, random), room.turn(places))
        left = (message.header.exp - now) / SECOND
        if pause >= left:
            pause = left - LAST_TRY
            if pause < LAST_TRY:
                return None
        room.hold(message, places, self._clock() + pause)
        self._counters.add("sealbus_put_off_total", 1, cause=_LABEL)
        pull.retry(delivery, pause)
        return pause

    def waiting(self) -> int:
        """Return the number of messages that this process has put off and that were not redelivered since."""
        now = self._clock()
        for room in self._streams.values():
            room.free_ended(now)
        return sum(len(room) for room in self._streams.values())

    def notes(self) -> dict[str, str]:
        """Return notes for operators, by part."""
        if not (verbs := self.waiting()):
            return {}
        return {"verbs": f"{verbs} tasks or events for verbs that this version does not have wait for one that does"}

    def _room(self, delivery: Delivery) -> _StreamRoom:
        arrival = delivery.arrival
        stream = f"{arrival.cell} {arrival.stream}" if arrival is not None else ""
        if stream not in self._streams:
            self._streams[stream] = _StreamRoom(self._most)
        return self._streams[stream]

    async def _look(self, room: _StreamRoom, pull: Pull) -> None:
        """Update the load of the consumer if the last known is old."""
        now = self._clock()
        if room.looked is not None and now < room.looked + LOOK_EVERY:
            return
        room.looked = now
        try:
            async with asyncio.timeout(LOOK_WITHIN):
                load = await pull.load()
        except (BusUnavailable, TimeoutError) as error:
            self._operator_log.warning("the load of a consumer is not known: %s", type(error).__name__)
        else:
            room.load, room.admitted = load, 0


class _SenderKey(NamedTuple):
    """A workload or, with `idp` and `user`, its messages for one user; both are empty for its messages without a user."""

    workload: str
    idp: str | None = None
    user: str | None = None


class _Sender:
    """The waiting messages of one workload, or of one user of it."""

    __slots__ = ("key", "messages", "places", "workload")

    def __init__(self, key: _SenderKey, workload: _Sender | None) -> None:
        self.key = key
        self.messages = 0
        self.places = 0
        self.workload = workload


_NOTHING: Final = _Sender(_SenderKey(""), None)


class _StreamRoom:
    """The waiting messages of one stream."""

    def __init__(self, most: int) -> None:
        self.load = ConsumerLoad(unsettled=0, most=most)
        self.looked: float | None = None
        self.admitted = 0
        """Messages that got room since the load was looked at."""
        self.places = 0
        self._senders: dict[_SenderKey, _Sender] = {}
        self._held: list[tuple[float, int, int, _Sender]] = []
        """The time of redelivery, a serial number, the places and the sender of each message, the soonest first."""
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._held)

    def has_room(self, message: VerifiedMessage, places: int) -> bool:
        """Return whether a message that takes `places` may wait.

        The user and its workload together may hold at most as much as is free, in messages at the broker and in places of
        this process. So a workload never holds more than is free.
        """
        key = _key(message)
        user, workload = self._senders.get(key, _NOTHING), self._senders.get(_SenderKey(key.workload), _NOTHING)
        messages = self.load.most // SHARE - self.load.unsettled - self.admitted
        free = ROOM_BYTES // PLACE_BYTES - self.places
        # The limit of a user implies that of its workload.
        return user.messages + workload.messages + 1 <= messages and user.places + workload.places + places <= free

    def turn(self, places: int) -> float:
        """Return the seconds until the turn of one more message, if all that wait are delivered at `PACE`."""
        return max(self.load.unsettled + self.admitted, self.places + places) / PACE

    def hold(self, message: VerifiedMessage, places: int, until: float) -> None:
        """Count a message that is put off `until` then."""
        key = _key(message)
        workload = self._sender(_SenderKey(key.workload), None)
        user = self._sender(key, workload)
        for sender in (workload, user):
            sender.messages += 1
            sender.places += places
        self.places += places
        heapq.heappush(self._held, (until, next(self._serial), places, user))

    def free_ended(self, now: float) -> None:
        """Forget the messages that are redelivered by `now`."""
        while self._held and self._held[0][0] <= now:
            _, _, places, user = heapq.heappop(self._held)
            self.places -= places
            for sender in (user, user.workload):
                if sender is None:
                    continue
                sender.messages -= 1
                sender.places -= places
                if not sender.messages:
                    del self._senders[sender.key]

    def _sender(self, key: _SenderKey, workload: _Sender | None) -> _Sender:
        sender = self._senders.get(key)
        if sender is None:
            sender = self._senders[key] = _Sender(key, workload)
        return sender


def _key(message: VerifiedMessage) -> _SenderKey:
    context = message.context
    workload = message.header.iss.value
    return _SenderKey(workload, "", "") if context is None else _SenderKey(workload, context.idp, context.sub)
