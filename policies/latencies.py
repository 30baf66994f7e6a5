"""How long decisions took, in a fixed number of counters however many there are."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Latencies"]

_STEPS: Final = 8
"""Counters for each doubling, so that a quantile is at most an eighth too high."""


class Latencies:
    """A histogram of microseconds."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0
        self._buckets: dict[int, int] = {}

    def add(self, micros: int) -> None:
        """Count one duration, a whole number from 0."""
        self.count += 1
        self._sum += micros
        bucket = _bucket(micros)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 of none."""
        return self._sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> int:
        """Return a bound that at least `share` (over 0, up to 1) of all are not above, at most 1/8 too high; 0 of none."""
        wanted = math.ceil(share * self.count)
        for bucket, count in sorted(self._buckets.items()):
            wanted -= count
            if wanted <= 0:
                return _most(bucket)
        return 0


def _bucket(micros: int) -> int:
    """Return the number of the counter for `micros`: small values have one each, later ones share."""
    if micros < 2 * _STEPS:
        return micros
    doubling = micros.bit_length() - _STEPS.bit_length()
    return doubling * _STEPS + (micros >> doubling)


def _most(bucket: int) -> int:
    """Return the highest duration that is counted in `bucket`."""
    if bucket < 2 * _STEPS:
        return bucket
    doubling = bucket // _STEPS - 1
    return ((bucket - doubling * _STEPS + 1) << doubling) - 1
