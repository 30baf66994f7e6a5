"""The room for stops that verified, counted by agent and requester in the order of the stream. Pure.

Each requester has its own room at each agent, so that no requester uses up another's. Only stops that verify are counted, so
bytes of others take no room. An agent refuses a cancel, before it confirms it, if the requester has no room left. So every
stop that was confirmed is among the first `OF_REQUESTER`, in whichever process counts.

A process keeps all stops of its own agent, and as many of other agents as its memory allows. HELD has the others. It is asked
before a message begins that such a stop may concern (`Doubts`).
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from sealbus.bus.work.cancel.stop import Stop, StopPlace
from sealbus.envelopes.limits import SECOND

OF_REQUESTER: Final = 8_192
"""Stops of one agent for one requester that are in force at a time (SPEC.md section 7): 9 MB in a process of that agent."""
OF_AGENT: Final = 16_384
"""Stops of one other agent that a process keeps: an agent that signs too many fills only its own room."""
IN_MEMORY: Final = 65_536
"""Stops of other agents that a process keeps: 72 MB at 1,100 bytes each, measured."""

KEPT_AFTER: Final = 60
"""Seconds that a stop is kept after its `end`: more than clocks may differ."""

SLOTS: Final = 262_144
"""Slots of `Doubts`, of 4 bytes. 13,000 doubts are in 5 % of them."""
_SLOT_BYTES: Final = 4
_DIGEST_SLOT_BYTES: Final = 8
_SPARE: Final = 1_024
"""Entries of the heap that may be out of date before it is made anew."""

_NONE: Final[Mapping[StopPlace, Stop]] = MappingProxyType({})


class Taken(Enum):
    """What `StopRoom` did with a stop that verified."""

    NEW = "new"
    """The stop is kept and has taken room."""
    AGAIN = "again"
    """A stop in its place was known. The newer of the two is kept."""
    OVER = "over"
    """Its end has passed: it stops nothing, and nothing is kept in its place."""
    FULL = "full"
    """Its requester has no room left at its agent: the agent did not confirm it."""
    NO_MEMORY = "no memory"
    """The stop has room, but this process does not keep it."""


class StopRoom:
    """The stops that one process of the agent with the token `own` keeps: all of its own agent, some of others."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._known: dict[bytes, dict[StopPlace, Stop]] = {}
        """The stops by H(header) of the message that they name."""
        self._until: dict[StopPlace, int] = {}
        """Until when each may stop a message (microseconds)."""
        self._order: list[tuple[int, StopPlace]] = []
        """The same as a heap, the soonest first. An entry that differs from `_until` is out of date."""
        self._of_agent: Counter[str] = Counter()
        self._of_pair: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, place: StopPlace) -> bool:
        return place in self._until

    def put(self, place: StopPlace, stop: Stop, *, until: int, now: int) -> Taken:
        """Take in a stop that verified and may stop messages until `until`.

        Call it in the order of the stream, with the time `now` at which the stop was stored: so all processes count alike.
        """
        self.forget(now)
        known = self._known.get(place.digest, _NONE).get(place)
        if known is not None and stop.at < known.at:
            # An older version was stored again.
            return Taken.AGAIN
        if until < now:
            if known is not None:
                self._drop(place)
            return Taken.OVER
        if known is None:
            if self.is_full(place.agent, place.requester):
                return Taken.FULL
            if place.agent != self._own and self._is_beyond_memory(place.agent):
                return Taken.NO_MEMORY
            self._of_agent[place.agent] += 1
            self._of_pair[place.agent, place.requester] += 1
        self._known.setdefault(place.digest, {})[place] = stop
        if self._until.get(place) != until:
            self._until[place] = until
            heapq.heappush(self._order, (until, place))
            if len(self._order) > 2 * len(self._until) + _SPARE:
                self._order = [(end, known_place) for known_place, end in self._until.items()]
                heapq.heapify(self._order)
        return Taken.NEW if known is None else Taken.AGAIN

    def under(self, digest: bytes) -> Mapping[StopPlace, Stop]:
        """Return the stops that name the message with H(header) `digest`, by their places."""
        return self._known.get(digest, _NONE)

    def is_full(self, agent: str, requester: str) -> bool:
        """Return whether a requester has no room left at an agent; both are tokens."""
        return self._of_pair[agent, requester] >= OF_REQUESTER

    def forget(self, now: int) -> None:
        """Forget the stops that stop nothing any more at `now` (microseconds)."""
        while self._order and self._order[0][0] < now:
            until, place = heapq.heappop(self._order)
            if self._until.get(place) == until:
                self._drop(place)

    def _is_beyond_memory(self, agent: str) -> bool:
        others = len(self._until) - self._of_agent[self._own]
        return others >= IN_MEMORY or self._of_agent[agent] >= OF_AGENT

    def _drop(self, place: StopPlace) -> None:
        del self._until[place]
        _take_off(self._of_agent, place.agent)
        _take_off(self._of_pair, (place.agent, place.requester))
        known = self._known[place.digest]
        del known[place]
        if not known:
            del self._known[place.digest]


class Doubts:
    """The messages for which HELD is asked before they begin, because a stop's place holds a value that is not kept here.

    A table of fixed size: each slot says until when messages whose hashes fall into it are doubtful. So values that others
    store take no more memory. A message that shares the slot of a doubtful message costs one question to HELD.
    """

    def __init__(self) -> None:
        self._until = array("I", bytes(_SLOT_BYTES * SLOTS))
        self._latest = 0

    def __bool__(self) -> bool:
        return self._latest > 0

    def add(self, digest: bytes, until: int) -> None:
        """Make the message with H(header) `digest` doubtful until `until` (microseconds)."""
        slot, end = _slot(digest), min(until // SECOND + 1, (1 << 8 * _SLOT_BYTES) - 1)
        self._until[slot] = max(self._until[slot], end)
        self._latest = max(self._latest, end)

    def has(self, digest: bytes, now: int) -> bool:
        """Return whether HELD has to be asked about this message at `now` (microseconds)."""
        return self._latest * SECOND > now and self._until[_slot(digest)] * SECOND > now


def _slot(digest: bytes) -> int:
    return int.from_bytes(digest[:_DIGEST_SLOT_BYTES]) % SLOTS


def _take_off(counted: Counter[Any], key: object) -> None:
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
