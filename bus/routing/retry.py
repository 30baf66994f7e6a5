"""Retry policies per handler, and the exceptions by which a handler ends an attempt. Pure.

An attempt is a delivery whose handler ran. The broker counts the deliveries, so that the count survives a restart of the
worker. Deliveries that this process deferred before the handler ran do not count (`bus.work.places`).
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

_OURS: Final = frozenset(str(code) for code in Code)


class Retry(Exception):
    """Raise it in a handler to retry its task or event `after` so many seconds, in place of the policy's interval.

    It ends and counts as an attempt like any failure: the policy's `maximum_attempts`, the handler's `total_timeout` and the
    message's end hold. The requester of a task gets the status `working` with `note`. A call is never retried. Raises
    `ValueError` for more seconds than a message may live, and for an invalid note.
    """

    def __init__(self, *, after: float, note: str = "") -> None:
        if not 0 < after <= DEFAULT_LIMITS.live_seconds:
            raise ValueError(f"after is over 0 and at most {DEFAULT_LIMITS.live_seconds} s, not {after}")
        super().__init__(after)
        self.after = after
        self.note = _checked_note(note)


class Reject(Exception):
    """Raise it in a handler to end its message without retry or dead letter.

    A task is then `failed` with the handler's `code` and `note`; the requester of the task or call gets `RemoteError` with
    both. Raises `ValueError` for an invalid code, and for codes of sealbus, which keep their meaning.
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
    """A `Reject` with a code of sealbus, which an endpoint of sealbus raises to refuse a message; no handler raises it."""

    def __init__(self, code: Code, *, note: str = "") -> None:
        Exception.__init__(self, code)
        self.code = str(code)
        self.note = _checked_note(note)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy(Backoff):
    """How often and at what intervals one handler is attempted, with Temporal's parameters.

    `initial_interval` and `maximum_interval` are seconds. Each wait is shortened at random, by the share `jitter` at most.
    `maximum_attempts` includes the first attempt; None allows as many as the message's life does. `non_retryable` has types
    of exceptions, and codes (of `RemoteError`, or such as `handler_timeout`), that are not retried. Raises `ValueError` for
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
        """Return whether a failed attempt may be retried, by its failure and the causes.

        One retryable error of an exception group is enough.
        """
        if self._is_named(failure):
            return False
        cause = failure.__cause__
        return cause is None or not all(self._is_named(error) for error in leaves(cause))

    def delay(self, attempt: int, *, random: float, now: int, until: float, after: float | None = None) -> float | None:
        """Return the seconds to wait after the failed `attempt` (counted from 1), or `None` if it was the last.

        `random` is from [0, 1); `after` replaces the interval. There is no attempt at or after `until` (the message's
        `exp`, in microseconds like `now`), because it would be refused as expired.
        """
        if attempt < 1:
            raise ValueError("attempts are counted from 1")
        if self.is_last(attempt):
            return None
        pause = self.interval(attempt, random) if after is None else after
        return pause if now + pause * SECOND < until else None

    def _is_named(self, error: BaseException) -> bool:
        code = str(error.code) if isinstance(error, SealbusError) else None
        return any(
            code == entry if isinstance(entry, str) else isinstance(error, entry) for entry in self.non_retryable
        )


def _is_nameable(entry: object) -> bool:
    if isinstance(entry, str):
        return CODE_FORM.fullmatch(entry) is not None
    return isinstance(entry, type) and issubclass(entry, Exception)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, or the error itself if it is not a group."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def _checked_note(note: str) -> str:
    if not is_text(note, NOTE_BYTES):
        raise ValueError(f"a note is a text of at most {NOTE_BYTES} bytes without control characters")
    return note


UNTIL_EXPIRY = RetryPolicy(maximum_attempts=None)
"""For failures outside message and handler: an engine, a bundle or the audit stream is unavailable. They are retried until
`exp` (SPEC.md section 7, the codes in `errors.RETRIED_CODES`)."""

KEY_AWAITED = RetryPolicy(maximum_interval=2.0, maximum_attempts=None)
"""For an unknown key or trust domain, whose bundle may come a moment later. Pauses stay short, so that a retry comes soon
after the bundle changes; `Limits.key_awaited` bounds the total time."""

VERB_AWAITED = RetryPolicy(initial_interval=0.02, backoff_coefficient=1.3, maximum_interval=30.0, maximum_attempts=None)
"""For a verb that another version may have: many short pauses, then long ones. With two versions every second try meets the
right version. If one replica of five has the verb, the 28 tries of the first 80 s find it with probability 0.998. If many
messages wait, the pace of `bus.work.verb_room` makes the pauses longer."""
