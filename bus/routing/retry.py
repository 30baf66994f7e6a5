"""When a delivery is tried again: exponential backoff with jitter, pure, per handler.

The number of the delivery is the broker's own count, so a schedule needs no memory and survives a restarted worker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.limits import SECOND

__all__ = ["KEY_AWAITED", "UNTIL_EXPIRY", "VERB_AWAITED", "RetrySchedule"]

_HANDLER = Backoff(initial_interval=0.5, maximum_interval=60.0, jitter=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """How often and how far apart one handler's deliveries are tried again.

    `retries` is the number of tries after the first, `None` for as many as the message's life allows. Raises `ValueError`
    for a number below 0.
    """

    retries: int | None = 5
    backoff: Backoff = _HANDLER

    def __post_init__(self) -> None:
        if self.retries is not None and self.retries < 0:
            raise ValueError("retries must be 0 or more")

    def is_last(self, delivery: int) -> bool:
        """Tell whether the broker's `delivery`, counted from 1, is the last that this schedule grants."""
        return self.retries is not None and delivery > self.retries

    def delay(self, delivery: int, *, random: float, now: int, until: int) -> float | None:
        """Return the seconds to wait after the failed `delivery` (counted from 1), or `None` if it was the last one.

        `random` is from [0, 1). A try that could only begin at or after `until` (the message's `exp`, microseconds like
        `now`) is not granted: it would be refused as expired.
        """
        if delivery < 1:
            raise ValueError("deliveries are counted from 1")
        if self.is_last(delivery):
            return None
        pause = self.backoff.interval(delivery, random)
        return pause if now + pause * SECOND < until else None


UNTIL_EXPIRY = RetrySchedule(retries=None)
"""For what is no fault of the message or the handler: an engine, a bundle or the audit stream that does not answer.
Tried again until `exp` (SPEC.md section 7, the codes in `errors.RETRIED_CODES`)."""

KEY_AWAITED = RetrySchedule(retries=None, backoff=replace(_HANDLER, maximum_interval=2.0))
"""For a key or trust domain that is not known: the bundle is a moment behind, or it never comes. Pauses stay short, so that
it is tried soon after the bundle has changed; how long in all, `Limits.key_awaited` says."""

VERB_AWAITED = RetrySchedule(
    retries=None, backoff=Backoff(initial_interval=0.02, coefficient=1.3, maximum_interval=30.0, jitter=0.5)
)
"""For a verb that another version may have: many short pauses, then long ones. Of two versions every second try meets the
right one, and the shorter a message waits, the more of them a sender's places are good for: the 28 tries of the first 80 s
find one replica of five that has the verb with a chance of 0.998."""
