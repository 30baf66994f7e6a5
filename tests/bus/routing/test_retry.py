from __future__ import annotations

import pytest

from sealbus.bus.routing.retry import UNTIL_EXPIRY, RetrySchedule
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.limits import SECOND

NEVER = 10**18


def test_pauses_grow_to_the_longest_and_stop_after_the_retries() -> None:
    schedule = RetrySchedule(retries=5, backoff=Backoff(initial_interval=1.0, maximum_interval=6.0))
    delays = [schedule.delay(n, random=0.7, now=0, until=NEVER) for n in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0, None, None]
    assert [schedule.is_last(n) for n in (5, 6)] == [False, True]


def test_jitter_takes_off_its_share() -> None:
    schedule = RetrySchedule(backoff=Backoff(initial_interval=8.0, maximum_interval=60.0, jitter=0.25))
    assert schedule.delay(1, random=0.5, now=0, until=NEVER) == 7.0


def test_a_try_that_could_only_begin_after_the_message_expired_is_not_granted() -> None:
    schedule = RetrySchedule(backoff=Backoff(initial_interval=2.0, maximum_interval=60.0))
    assert schedule.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND) is None
    assert schedule.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND + 1) == 2.0


def test_without_a_count_the_message_is_tried_until_it_expires_and_the_pause_stays_finite() -> None:
    assert not UNTIL_EXPIRY.is_last(10**9)
    assert UNTIL_EXPIRY.delay(10**9, random=0.0, now=0, until=NEVER) == 60.0


def test_no_retries_means_the_first_delivery_is_the_last() -> None:
    assert RetrySchedule(retries=0).delay(1, random=0.0, now=0, until=NEVER) is None


def test_deliveries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        RetrySchedule().delay(0, random=0.0, now=0, until=NEVER)


def test_there_are_never_fewer_than_no_retries() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        RetrySchedule(retries=-1)
