"""Retry policies, and how a handler itself asks for a retry: exponential backoff with jitter per handler, pure.

An attempt is a delivery whose handler ran. The broker counts the deliveries, which survives a restart of the worker; those
that this process put off before the handler ran are taken off (`bus.work.places`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealbus.bus.sending.status import NOTE_BYTES
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import CODE_FORM, Code, SealbusError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

__all__ = ["KEY_AWAITED", "UNTIL_EXPIRY", "VERB_AWAITED", "Refused", "Reject", "Retry", "RetryPolicy", "leaves"]

_OURS: Final = frozenset(str(code) for code in Code)


class Retry(Exception):
    """Raise it in a handler to have its task or event tried again `after` so many seconds, in place of the policy's interval.

    It ends an attempt like any failure, and counts as one: the policy's `maximum_attempts`, the handler's `total_timeout`
    and the message's own end hold. The requester of a task is told `working` with `note`. A call is never tried again.
    Raises `ValueError` for seconds that no message lives for, or what no note can be.
    """

    def __init__(self, *, after: float, note: str = "") -> None:
        if not 0 < after <= DEFAULT_LIMITS.live_seconds:
            raise ValueError(f"after is over 0 and at most {DEFAULT_LIMITS.live_seconds} s, not {after}")
        super().__init__(after)
        self.after = after
        self.note = _checked_note(note)


class Reject(Exception):
    """Raised in a handler to end its message for good: no retry, no dead letter.

    A task has `failed` with `code`, the handler's own, and `note`; the requester of the task or call gets `RemoteError` with
    both. Codes of sealbus keep their meaning and are refused. Raises `ValueError` for an invalid code.
    """

    def __init__(self, code: str, *, note: str = "") -> None:
        if not CODE_FORM.fullmatch(code):
            raise ValueError("a code is a lower-case letter, then at most 63 of a-z, 0-9 and _")
        if code in _OURS:
            raise ValueError(f"{code} is a code of sealbus and keeps its meaning: take another")
        super().__init__(code)
        self.code = code
        self.note = _checked_note(note)


class Refused(Reject):
    """A `Reject` with a code of sealbus, by which an endpoint of its own refuses what it is told; no handler raises it."""

    def __init__(self, code: Code, *, note: str = "") -> None:
        Exception.__init__(self, code)
        self.code = str(code)
        self.note = _checked_note(note)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy(Backoff):
    """How often and at what intervals one handler is attempted, with Temporal's parameters.

    `initial_interval` and `maximum_interval` are seconds; up to the share `jitter` of each wait is taken off at random.
    `maximum_attempts` includes the first; None is as many as the message's life allows. `non_retryable` are types of
    exceptions and codes (of `RemoteError`, or `handler_timeout` and the like) that are not retried. Raises `ValueError` for
    an invalid policy.
    """

    initial_interval: float = 0.5
    maximum_interval: float = 60.0
    jitter: float = 0.5
    maximum_attempts: int | None = 6
    non_retryable: tuple[type[Exception] | str, ...] = ()

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        most = self.maximum_attempts
        if most is not None and (type(most) is not int or most < 1):
            raise ValueError("maximum_attempts is 1 or more, or None for as many as the message's life allows")
        if type(self.non_retryable) is not tuple or not all(map(_is_nameable, self.non_retryable)):
            raise ValueError(f"non_retryable is a tuple of exception types and codes, not {self.non_retryable!r}")

    def is_last(self, attempt: int) -> bool:
        """Return whether `attempt`, counted from 1, is the last that this policy allows."""
        return self.maximum_attempts is not None and attempt >= self.maximum_attempts

    def is_retryable(self, failure: BaseException) -> bool:
        """Return whether a failed attempt may be retried, by the failure itself and its causes.

        For an exception group, one retryable error is enough.
        """
        if self._is_named(failure):
            return False
        cause = failure.__cause__
        return cause is None or not all(self._is_named(one) for one in leaves(cause))

    def delay(self, attempt: int, *, random: float, now: int, until: float, after: float | None = None) -> float | None:
        """Return the seconds to wait after the failed `attempt` (counted from 1), or `None` if it was the last one.

        `random` is from [0, 1); `after` stands in place of the interval. An attempt that could only begin at or after
        `until` (the message's `exp`, microseconds like `now`) is not granted: it would be refused as expired.
        """
        if attempt < 1:
            raise ValueError("attempts are counted from 1")
        if self.is_last(attempt):
            return None
        pause = self.interval(attempt, random) if after is None else after
        return pause if now + pause * SECOND < until else None

    def _is_named(self, error: BaseException) -> bool:
        code = str(error.code) if isinstance(error, SealbusError) else None
        return any(code == one if isinstance(one, str) else isinstance(error, one) for one in self.non_retryable)


def _is_nameable(one: object) -> bool:
    if isinstance(one, str):
        return CODE_FORM.fullmatch(one) is not None
    return isinstance(one, type) and issubclass(one, Exception)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, or the error itself if it is not a group."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _checked_note(note: str) -> str:
    if not is_text(note, NOTE_BYTES):
        raise ValueError(f"a note is a text of at most {NOTE_BYTES} bytes without control characters")
    return note


UNTIL_EXPIRY = RetryPolicy(maximum_attempts=None)
"""For failures that are not due to the message or the handler: an engine, a bundle or the audit stream is unavailable.
Retried until `exp` (SPEC.md section 7, the codes in `errors.RETRIED_CODES`)."""

KEY_AWAITED = RetryPolicy(maximum_interval=2.0, maximum_attempts=None)
"""For an unknown key or trust domain: the bundle lags a moment, or it never comes. Pauses stay short, so that a retry comes
soon after the bundle has changed; `Limits.key_awaited` bounds the total time."""

VERB_AWAITED = RetryPolicy(initial_interval=0.02, backoff_coefficient=1.3, maximum_interval=30.0, maximum_attempts=None)
"""For a verb that another version may have: many short pauses, then long ones. With two versions every second try meets the
right one, and the 28 tries of the first 80 s find the one replica of five that has the verb with probability 0.998. Where
many wait, the pace of `bus.work.verb_room` makes the pauses longer."""
