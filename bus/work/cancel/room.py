"""The room for stops: those that verified, counted for each agent and requester in the order of the stream. Pure.

Each requester has room of its own at each agent, so that nobody uses up another's. What is counted has verified: it is the
agent's own word, and bytes of others take no room. An agent refuses a cancel for which its requester has no room left,
before it confirms it. So every stop that was confirmed is among the first `OF_REQUESTER`, whichever process counts.

A process keeps the stops of its own agent, and of others as many as its memory allows. What it does not keep is not lost:
HELD has it, and is asked before a message begins that such a stop may concern (`Doubts`).
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

__all__ = ["IN_MEMORY", "KEPT_AFTER", "OF_AGENT", "OF_REQUESTER", "SLOTS", "Doubts", "StopRoom", "Taken"]

OF_REQUESTER: Final = 8_192
"""Stops of one agent for one requester that are in force at a time (SPEC.md section 7): 9 MB in a process of that agent."""
OF_AGENT: Final = 16_384
"""Stops of one other agent that a process keeps: one that signs too many fills its own room, and no other's."""
IN_MEMORY: Final = 65_536
"""Stops of other agents that a process keeps: 72 MB at 1,100 bytes each, measured."""

KEPT_AFTER: Final = 60
"""Seconds that a stop is known after the end of what it stops: more than clocks may differ."""

SLOTS: Final = 262_144
"""Slots of `Doubts`, of 4 bytes. 13,000 doubts are in 5 % of them."""
_SLOT_BYTES: Final = 4
_DIGEST_SLOT_BYTES: Final = 8
_SPARE: Final = 1_024
"""Entries of the heap that may be out of date before it is made anew."""

_NONE: Final[Mapping[StopPlace, Stop]] = MappingProxyType({})


class Taken(Enum):
    """What became of a stop that verified."""

    NEW = "new"
    """It is kept, and has taken room."""
    AGAIN = "again"
    """One in its place was known: it is kept in place of that, or is older and changes nothing."""
    OVER = "over"
    """The end of what it stops has passed, or there never was one: it stops nothing, and nothing is kept in its place."""
    FULL = "full"
    """Its requester has no room left at its agent: the agent did not confirm it."""
    NO_MEMORY = "no memory"
    """It has room, and is not kept here."""


class StopRoom:
    """The stops that one process keeps; it counts all of the agent with the token `own`, whose process it is."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._known: dict[bytes, dict[StopPlace, Stop]] = {}
        """By the message that they are about."""
        self._until: dict[StopPlace, int] = {}
        """Until when each may concern anything (microseconds)."""
        self._order: list[tuple[int, StopPlace]] = []
        """The same as a heap, the soonest first; what `_until` does not say any more is out of date."""
        self._of_agent: Counter[str] = Counter()
        self._of_pair: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, place: StopPlace) -> bool:
        return place in self._until

    def put(self, place: StopPlace, stop: Stop, *, until: int, now: int) -> Taken:
        """Take in a stop that verified, which may concern something until `until`; return what became of it.

        Call it in the order of the stream, with `now` when the stop was stored: so all processes count alike.
        """
        self.forget(now)
        known = self._known.get(place.digest, _NONE).get(place)
        if known is not None and stop.at < known.at:
            # Somebody stored an older version again.
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
                self._order = [(end, one) for one, end in self._until.items()]
                heapq.heapify(self._order)
        return Taken.NEW if known is None else Taken.AGAIN

    def under(self, digest: bytes) -> Mapping[StopPlace, Stop]:
        """Return the stops that name the message with H(header) `digest`, by their places."""
        return self._known.get(digest, _NONE)

    def is_full(self, agent: str, requester: str) -> bool:
        """Return whether the requester with this token has no room left at the agent with that one."""
        return self._of_pair[agent, requester] >= OF_REQUESTER

    def forget(self, now: int) -> None:
        """Forget the stops that can concern nothing any more (`now`, microseconds)."""
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
    """The messages about which HELD is asked before they begin, because what stands in a stop's place is none that is kept.

    A table of fixed size: a slot says until when any message whose hash falls into it is doubtful. So nothing that anybody
    stores takes more memory; a message that shares its slot with another costs one question to HELD.
    """

    def __init__(self) -> None:
        self._until = array("I", bytes(_SLOT_BYTES * SLOTS))
        self._latest = 0

    def __bool__(self) -> bool:
        return self._latest > 0

    def add(self, digest: bytes, until: int) -> None:
        """Have HELD asked about the message with H(header) `digest` until `until` (microseconds)."""
        slot, end = _slot(digest), min(until // SECOND + 1, (1 << 8 * _SLOT_BYTES) - 1)
        self._until[slot] = max(self._until[slot], end)
        self._latest = max(self._latest, end)

    def has(self, digest: bytes, now: int) -> bool:
        """Return whether HELD is to be asked about this message (`now`, microseconds)."""
        return self._latest * SECOND > now and self._until[_slot(digest)] * SECOND > now


def _slot(digest: bytes) -> int:
    return int.from_bytes(digest[:_DIGEST_SLOT_BYTES]) % SLOTS


def _take_off(counted: Counter[Any], key: object) -> None:
    counted[key] -= 1
    if not counted[key]:
        del counted[key]
