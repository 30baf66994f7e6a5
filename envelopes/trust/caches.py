"""Bounded memories of verified values and of accepted calls (SPEC.md sections 4 and 7).

A forgotten verified value costs time; a forgotten accepted call would cost safety. So caches evict the least recently used
entry, while a full `ReplayMemory` refuses new entries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, Generic, TypeVar

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ReplayKey = tuple[SpiffeId, bytes]
"""(`iss`, `id`) of a core call."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class VerifiedRoots:
    """The verified signatures over Merkle roots, by (type, key, root, size, signature).

    A hit says that this key made this signature over this root, which stays true. Credential, times, kind and path are
    checked for each message.
    """

    __slots__ = ("_seen",)

    def __init__(self, max_entries: int = 4096) -> None:
        self._seen: BoundedMap[tuple[str, bytes, bytes, int, bytes], bool] = BoundedMap(max_entries)

    def __len__(self) -> int:
        return len(self._seen)

    def knows(self, payload_type: str, key: PublicKey, root: bytes, size: int, signature: bytes) -> bool:
        """Return whether exactly this signature was remembered."""
        return self._seen.get((payload_type, key.raw, root, size, signature)) is not None

    def remember(self, payload_type: str, key: PublicKey, root: bytes, size: int, signature: bytes) -> None:
        """Remember a signature that the caller has just verified."""
        self._seen.put((payload_type, key.raw, root, size, signature), True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """The caches of one process's verifications. The process's subscriptions share them.

    `credentials`, `contexts` and `links` belong to the modules that verify those, which narrow the values by type. With the
    defaults, the total memory is at most a few tens of MB, even if every entry is as large as possible.
    """

    roots: VerifiedRoots = field(default_factory=VerifiedRoots)
    credentials: BoundedMap[Hashable, object] = field(default_factory=lambda: BoundedMap(1024))
    contexts: BoundedMap[Hashable, object] = field(default_factory=lambda: BoundedMap(1024))
    links: BoundedMap[Hashable, object] = field(default_factory=lambda: BoundedMap(2048))


class ReplayMemory:
    """The core calls that were accepted and have not expired (steps 6 and 13). If full, it refuses; it never forgets.

    Entries leave when `now` passes their expiry, each at the cost of one heap operation.
    """

    __slots__ = ("_by_expiry", "_max_entries", "_until")

    def __init__(self, max_entries: int) -> None:
        if max_entries < 1:
            raise ValueError("a replay memory holds at least one entry")
        self._max_entries: Final = max_entries
        self._until: dict[ReplayKey, int] = {}
        self._by_expiry: list[tuple[int, bytes, SpiffeId]] = []

    def __len__(self) -> int:
        return len(self._until)

    def seen(self, key: ReplayKey, *, now: int) -> bool:
        """Return whether `key` was remembered and its message is still within its life at `now`."""
        self._purge(now)
        return key in self._until

    def check(self, key: ReplayKey, *, now: int, step: int = 6) -> None:
        """Raise `EnvelopeError`: `replayed` if `key` was seen, `overloaded` if there is no room for another key."""
        self._purge(now)
        if key in self._until:
            raise EnvelopeError(Code.REPLAYED, step, "id seen before")
        if len(self._until) >= self._max_entries:
            raise EnvelopeError(Code.OVERLOADED, 6, "replay memory is full")

    def remember(self, key: ReplayKey, until: int, *, now: int) -> None:
        """Remember `key` until the message's `exp` (step 13); raise as `check` does, `replayed` counted at step 13."""
        self.check(key, now=now, step=13)
        self._until[key] = until
        heappush(self._by_expiry, (until, key[1], key[0]))

    def _purge(self, now: int) -> None:
        heap = self._by_expiry
        while heap and heap[0][0] <= now:
            _, identifier, issuer = heappop(heap)
            del self._until[(issuer, identifier)]


class BoundedMap(Generic[K, V]):
    """A map of at most `max_entries` entries that forgets the least recently used entry. Values are never None."""

    __slots__ = ("_entries", "_max_entries")

    def __init__(self, max_entries: int) -> None:
        if max_entries < 1:
            raise ValueError("a cache holds at least one entry")
        self._max_entries: Final = max_entries
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of `key`, which becomes the most recently used, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Store `value` under `key`, evicting the least recently used entry if there is no room."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def forget(self, key: K) -> None:
        """Forget the entry of `key`, if there is one."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()
