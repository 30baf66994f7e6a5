"""A circuit breaker: a failing server is not asked for a while, and then gets a single question as a trial."""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.backoff import Backoff

AFTER: Final = 3
"""Failures in a row that open the breaker. One slow answer among good ones does not open it."""
PAUSES: Final = Backoff(initial_interval=0.2, maximum_interval=10.0)
"""Seconds that an open breaker blocks, longer after each failed trial."""


class Breaker:
    """A circuit breaker. Closed, it lets all requests pass; open, none during a pause; then half open, one as a trial.

    `now` is in seconds by any monotonic clock.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self._trial: Passage | None = None

    def admit(self, now: float) -> Passage | None:
        """Let one request pass at `now`, if allowed. The caller must report the result to the passage."""
        if self._openings and (self._trial is not None or now < self._until):
            return None
        passage = Passage(self)
        if self._openings:
            self._trial = passage
        return passage

    def close(self) -> None:
        """Let all requests pass from now on, because the server has answered."""
        self._failures = 0
        self._openings = 0
        self._trial = None

    def seconds_left(self, now: float) -> float:
        """Return the seconds from `now` in which no request may pass; 0 if the next one may, or during a trial."""
        return max(0.0, self._until - now) if self._openings else 0.0

    def _failed(self, passage: Passage, now: float) -> None:
        if passage is self._trial:
            self._open(now)
        elif not self._openings:
            self._failures += 1
            if self._failures >= AFTER:
                self._open(now)
        # Otherwise the request passed before the breaker opened, and does not count.

    def _released(self, passage: Passage) -> None:
        if passage is self._trial:
            self._trial = None

    def _open(self, now: float) -> None:
        self._openings += 1
        self._until = now + PAUSES.interval(self._openings)
        self._trial = None


class Passage:
    """One request that a breaker let pass. The caller reports one of three results; the first report counts."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker: Breaker | None = breaker

    def succeeded(self) -> None:
        """Close the breaker."""
        if (breaker := self._take()) is not None:
            breaker.close()

    def failed(self, now: float) -> None:
        """Count a failure. The third in a row opens the breaker; a failed trial opens it for twice as long."""
        if (breaker := self._take()) is not None:
            breaker._failed(self, now)

    def released(self) -> None:
        """Report that there is no result, for instance after a cancellation. Another request may then be the trial."""
        if (breaker := self._take()) is not None:
            breaker._released(self)

    def _take(self) -> Breaker | None:
        breaker, self._breaker = self._breaker, None
        return breaker
