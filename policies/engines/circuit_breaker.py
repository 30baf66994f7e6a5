"""A circuit breaker: what keeps failing is left alone for a while, then tried with one question before any others."""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.backoff import Backoff

__all__ = ["AFTER", "PAUSES", "Breaker", "Passage"]

AFTER: Final = 3
"""Failures in a row that open the breaker: one slow answer among good ones takes nobody's OPA away."""
PAUSES: Final = Backoff(initial_interval=0.2, maximum_interval=10.0)
"""For how long an open breaker lets nothing through: longer with each trial that fails."""


class Breaker:
    """Closed: all may pass. Open: nothing may, until a pause is over. Then half open: one may pass, as a trial.

    `now` is in seconds by any clock that never goes back.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self._trial: Passage | None = None

    def admit(self, now: float) -> Passage | None:
        """Let one pass at `now`, if it may; whoever gets the passage says what became of it."""
        if self._openings and (self._trial is not None or now < self._until):
            return None
        passage = Passage(self)
        if self._openings:
            self._trial = passage
        return passage

    def close(self) -> None:
        """Let all pass from now on: what is behind the breaker was seen to work."""
        self._failures = 0
        self._openings = 0
        self._trial = None

    def seconds_left(self, now: float) -> float:
        """Return for how long nothing passes from `now` on; 0 where the next may, or where a trial is under way."""
        return max(0.0, self._until - now) if self._openings else 0.0

    def _failed(self, passage: Passage, now: float) -> None:
        if passage is self._trial:
            self._open(now)
        elif not self._openings:
            self._failures += 1
            if self._failures >= AFTER:
                self._open(now)
        # Otherwise it passed before the breaker opened, and says nothing new.

    def _released(self, passage: Passage) -> None:
        if passage is self._trial:
            self._trial = None

    def _open(self, now: float) -> None:
        self._openings += 1
        self._until = now + PAUSES.interval(self._openings)
        self._trial = None


class Passage:
    """One that a breaker let pass. Exactly one of the three is said of it, and the first counts."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker: Breaker | None = breaker

    def succeeded(self) -> None:
        """Close the breaker."""
        if (breaker := self._take()) is not None:
            breaker.close()

    def failed(self, now: float) -> None:
        """Count a failure: the third in a row opens the breaker, that of a trial opens it for twice as long."""
        if (breaker := self._take()) is not None:
            breaker._failed(self, now)

    def released(self) -> None:
        """Say that nothing was seen, by a cancellation for instance: the next may be the trial in its place."""
        if (breaker := self._take()) is not None:
            breaker._released(self)

    def _take(self) -> Breaker | None:
        breaker, self._breaker = self._breaker, None
        return breaker
