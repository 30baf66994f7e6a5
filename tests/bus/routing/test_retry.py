from __future__ import annotations

import math
from typing import Any

import pytest

from sealbus.bus.routing.retry import UNTIL_EXPIRY, Reject, Retry, RetryPolicy
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.limits import SECOND

NEVER = 10**18


def test_intervals_grow_to_the_longest_and_stop_after_the_attempts() -> None:
    policy = RetryPolicy(initial_interval=1.0, maximum_interval=6.0, jitter=0.0, maximum_attempts=6)
    delays = [policy.delay(n, random=0.7, now=0, until=NEVER) for n in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0, None, None]
    assert [policy.is_last(n) for n in (5, 6)] == [False, True]


def test_jitter_takes_off_its_share() -> None:
    policy = RetryPolicy(initial_interval=8.0, jitter=0.25)
    assert policy.delay(1, random=0.5, now=0, until=NEVER) == 7.0


def test_a_try_that_could_only_begin_after_the_message_expired_is_not_granted() -> None:
    policy = RetryPolicy(initial_interval=2.0)
    assert policy.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND) is None
    assert policy.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND + 1) == 2.0


def test_what_the_handler_asks_for_stands_in_place_of_the_interval_and_of_nothing_else() -> None:
    policy = RetryPolicy(maximum_attempts=2)
    assert policy.delay(1, random=0.9, now=0, until=NEVER, after=30.0) == 30.0
    assert policy.delay(1, random=0.9, now=0, until=30 * SECOND, after=30.0) is None
    assert policy.delay(2, random=0.9, now=0, until=NEVER, after=30.0) is None


def test_without_a_count_the_message_is_tried_until_it_expires_and_the_pause_stays_finite() -> None:
    assert not UNTIL_EXPIRY.is_last(10**9)
    assert UNTIL_EXPIRY.delay(10**9, random=0.0, now=0, until=NEVER) == 60.0


def test_one_attempt_means_that_the_first_is_the_last() -> None:
    assert RetryPolicy(maximum_attempts=1).delay(1, random=0.0, now=0, until=NEVER) is None


def test_attempts_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        RetryPolicy().delay(0, random=0.0, now=0, until=NEVER)


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ({"maximum_attempts": 0}, "1 or more, or None"),
        ({"maximum_attempts": -1}, "1 or more, or None"),
        ({"maximum_attempts": True}, "1 or more, or None"),
        ({"maximum_attempts": 2.0}, "1 or more, or None"),
        ({"initial_interval": 0.0}, "over 0 and at most maximum_interval"),
        ({"initial_interval": -1.0}, "over 0 and at most maximum_interval"),
        ({"initial_interval": math.nan}, "over 0 and at most maximum_interval"),
        ({"maximum_interval": math.nan}, "over 0 and at most maximum_interval"),
        ({"maximum_interval": math.inf}, "over 0 and at most maximum_interval"),
        ({"initial_interval": 61.0}, "over 0 and at most maximum_interval"),
        ({"backoff_coefficient": 0.5}, "1 or more"),
        ({"backoff_coefficient": math.nan}, "1 or more"),
        ({"jitter": 1.0}, "from 0 to under 1"),
        ({"non_retryable": ValueError}, "a tuple of exception types and codes"),
        ({"non_retryable": [ValueError]}, "a tuple of exception types and codes"),
        ({"non_retryable": (ValueError("x"),)}, "a tuple of exception types and codes"),
        ({"non_retryable": (KeyboardInterrupt,)}, "a tuple of exception types and codes"),
        ({"non_retryable": ("Bad item",)}, "a tuple of exception types and codes"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_where_it_is_made(said: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        RetryPolicy(**said)


def failed(cause: BaseException | None, code: Code = Code.HANDLER_FAILED) -> HandlingError:
    failure = HandlingError(code)
    failure.__cause__ = cause
    return failure


@pytest.mark.parametrize(
    ("failure", "again"),
    [
        (failed(KeyError()), True),
        (failed(None), True),
        (failed(ValueError()), False),
        (failed(UnicodeError()), False),  # a ValueError, too
        (failed(RemoteError("bad_item")), False),
        (failed(RemoteError("other_item")), True),
        (failed(None, Code.HANDLER_TIMEOUT), False),
        (failed(ExceptionGroup("", [ValueError(), ExceptionGroup("", [RemoteError("bad_item")])])), False),
        (failed(ExceptionGroup("", [ValueError(), ExceptionGroup("", [KeyError()])])), True),
    ],
)
def test_types_and_codes_that_are_named_are_not_retried(failure: HandlingError, again: bool) -> None:
    policy = RetryPolicy(non_retryable=(ValueError, "bad_item", "handler_timeout"))
    assert policy.is_retryable(failure) is again
    assert RetryPolicy().is_retryable(failure)


@pytest.mark.parametrize("after", [math.nan, math.inf, -1.0, 0.0, 86_400.1])
def test_a_retry_that_no_message_lives_for_is_refused(after: float) -> None:
    with pytest.raises(ValueError, match="over 0 and at most 86400 s"):
        Retry(after=after)


@pytest.mark.parametrize("note", ["n" * 257, "two\nlines"])
def test_what_no_note_can_be_is_refused(note: str) -> None:
    with pytest.raises(ValueError, match="at most 256 bytes"):
        Retry(after=1.0, note=note)
    with pytest.raises(ValueError, match="at most 256 bytes"):
        Reject("sold_out", note=note)


@pytest.mark.parametrize("code", ["", "Sold_out", "1st", "a" * 65, "sold out", "sold_out\n"])
def test_what_no_code_can_be_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="lower-case letter"):
        Reject(code)


@pytest.mark.parametrize("code", list(Code))
def test_a_code_of_sealbus_is_not_a_handlers(code: Code) -> None:
    with pytest.raises(ValueError, match="is a code of sealbus"):
        Reject(str(code))
