"""Count decisions of the last minute by sender and decider, second by second (pure; the time is an argument).

The number of pairs is bounded. Pairs without recent decisions are dropped first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sealbus.agents.console.documents import TrafficDocument

WINDOW: Final = 60
"""Seconds that are counted."""
PAIRS: Final = 2_000
"""Most pairs of sender and decider that are known at a time."""


@dataclass(slots=True)
class _Pair:
    """Counts by second, oldest first: allowed and denied."""

    seconds: deque[list[int]] = field(default_factory=deque)
    last: int = 0

    def add(self, second: int, *, allowed: int, denied: int) -> None:
        if not self.seconds or self.seconds[-1][0] < second:
            self.seconds.append([second, 0, 0])
        self.seconds[-1][1] += allowed
        self.seconds[-1][2] += denied
        self.last = second

    def forget(self, before: int) -> None:
        while self.seconds and self.seconds[0][0] <= before:
            self.seconds.popleft()

    def sums(self) -> tuple[int, int]:
        return sum(allowed for _, allowed, _ in self.seconds), sum(denied for *_, denied in self.seconds)


class Traffic:
    """Counts decisions by sender and decider. Times are seconds, and never go back."""

    def __init__(self, *, pairs: int = PAIRS) -> None:
        self._most = pairs
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()

    def add(self, sender: str, decider: str, *, allow: bool, second: int, count: int = 1) -> None:
        """Count `count` decisions in `second`."""
        pair = self._pairs.pop((sender, decider), None) or _Pair()
        self._pairs[sender, decider] = pair
        # The clock of another process may be behind. Its decision counts in the newest second of the pair.
        pair.add(max(second, pair.last), allowed=count if allow else 0, denied=0 if allow else count)
        if len(self._pairs) > self._most:
            self._pairs.popitem(last=False)

    def document(self, second: int, states: Mapping[str, str], edges: Iterable[str]) -> TrafficDocument:
        """Return the map of the last minute before `second` as JSON.

        `states` has the agents that the broker knows; they are on the map even without traffic. `edges` are the names of the
        workloads through which requests from outside come in.
        """
        rows = []
        for (sender, decider), pair in list(self._pairs.items()):
            pair.forget(second - WINDOW)
            allowed, denied = pair.sums()
            if not pair.seconds:
                del self._pairs[sender, decider]
                continue
            rows.append((sender, decider, allowed + denied, denied))
        received: dict[str, int] = dict.fromkeys(states, 0)
        for sender, decider, all_, _ in rows:
            received.setdefault(sender, 0)
            received[decider] = received.get(decider, 0) + all_
        outside = frozenset(edges)
        columns = _columns(received, [(sender, decider) for sender, decider, *_ in rows], outside)
        return {
            "decided": round(sum(row[2] for row in rows) / WINDOW, 2),
            "denied_minute": sum(row[3] for row in rows),
            "agents": [
                {
                    "name": name,
                    "kind": "edge" if name in outside else "agent",
                    "column": columns[name],
                    "rate": round(received[name] / WINDOW, 2),
                    "state": states.get(name, "unknown"),
                }
                for name in sorted(received)
            ],
            "edges": [
                {"from": sender, "to": decider, "rate": round(all_ / WINDOW, 2), "denied": denied}
                for sender, decider, all_, denied in sorted(rows)
            ],
        }


def _columns(names: Iterable[str], pairs: Iterable[tuple[str, str]], outside: frozenset[str]) -> dict[str, int]:
    """Return the distance of each name from the entry points: the edges, and workloads that nobody asks."""
    deciders: dict[str, set[str]] = {name: set() for name in names}
    of: dict[str, set[str]] = {name: set() for name in deciders}
    for sender, decider in pairs:
        # The requester decides on a reply. A reply does not lead further in.
        if sender != decider and sender not in deciders[decider]:
            deciders[sender].add(decider)
            of[decider].add(sender)
    columns = {name: 0 for name in deciders if name in outside or not of[name]}
    level = sorted(columns) or sorted(deciders)[:1]
    columns |= dict.fromkeys(level, 0)
    while level:
        level = sorted({further for name in level for further in deciders[name] if further not in columns})
        columns |= dict.fromkeys(level, max(columns.values()) + 1)
    return {name: columns.get(name, 0) for name in deciders}
