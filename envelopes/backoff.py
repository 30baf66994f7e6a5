"""Exponential backoff: how long to wait before a retry. Pure; the names are those of Temporal."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Intervals in seconds. The first is `initial_interval`; each next interval is `backoff_coefficient` times as long.

    No interval exceeds `maximum_interval`. A random part of each, up to the share `jitter`, is taken off, so that
    simultaneous failures are not retried simultaneously. Raises `ValueError` for intervals that would be zero, would shrink,
    or would be infinite.
    """

    initial_interval: float
    maximum_interval: float
    backoff_coefficient: float = 2.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.initial_interval <= self.maximum_interval < math.inf:
            raise ValueError("initial_interval must be over 0 and at most maximum_interval, in seconds")
        if not 1 <= self.backoff_coefficient < math.inf:
            raise ValueError("backoff_coefficient must be 1 or more")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter must be from 0 to under 1")

    def interval(self, failures: int, random: float = 0.0) -> float:
        """Return the seconds to wait after failure number `failures`, counted from 1; `random` is from [0, 1)."""
        # Logarithms are compared, because a power could overflow for a large count of failures.
        steps = failures - 1
        if steps * math.log(self.backoff_coefficient) < math.log(self.maximum_interval / self.initial_interval):
            whole = self.initial_interval * self.backoff_coefficient**steps
        else:
            whole = self.maximum_interval
        return whole * (1.0 - self.jitter * random)
