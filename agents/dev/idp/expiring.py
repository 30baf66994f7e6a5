"""A bounded store of what is valid for a short time: codes, pending logins, device codes (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from sealbus.bus.clock import Clock
from sealbus.envelopes.limits import SECOND

__all__ = ["Expiring"]

T = TypeVar("T")


class Expiring(Generic[T]):
    """Keep values by an unguessable key for `seconds`; over `most` the oldest goes, so that nobody can fill the memory.

    All of one store live equally long, so that they expire in the order in which they came.
    """

    def __init__(self, *, seconds: int, most: int, clock: Clock) -> None:
        self._life = seconds * SECOND
        self._most = most
        self._clock = clock
        self._kept: dict[str, tuple[int, T]] = {}

    def __len__(self) -> int:
        self._drop()
        return len(self._kept)

    def put(self, key: str, value: T) -> None:
        """Keep `value`; the key must be new."""
        self._drop()
        if len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (self._clock() + self._life, value)

    def get(self, key: str) -> T | None:
        """Return the value of `key` if it has not expired."""
        self._drop()
        found = self._kept.get(key)
        return found[1] if found is not None else None

    def take(self, key: str) -> T | None:
        """Return the value of `key` and forget it: what is good once is taken, never only read."""
        self._drop()
        found = self._kept.pop(key, None)
        return found[1] if found is not None else None

    def values(self) -> Iterator[T]:
        """Return what has not expired."""
        self._drop()
        return iter([value for _, value in self._kept.values()])

    def _drop(self) -> None:
        now = self._clock()
        while self._kept:
            key = next(iter(self._kept))
            if self._kept[key][0] > now:
                return
            del self._kept[key]
