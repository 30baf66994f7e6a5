from __future__ import annotations

import math

import pytest

from sealbus.bus.routing.retry import UNTIL_EXPIRY, RetrySchedule
from sealbus.envelopes.limits import SECOND

NEVER = 10**18


def test_pauses_grow_to_the_longest_and_stop_after_the_retries() -> None:
    schedule = RetrySchedule(retries=5, first=1.0, factor=2.0, longest=6.0, jitter=0.0)
    delays = [schedule.delay(n, random=0.7, now=0, until=NEVER) for n in range(1, 8)]
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0, None, None]
    assert [schedule.is_last(n) for n in (5, 6)] == [False, True]


def test_jitter_takes_off_its_share_and_no_more() -> None:
    schedule = RetrySchedule(first=8.0, jitter=0.25)
    assert schedule.delay(1, random=0.0, now=0, until=NEVER) == 8.0
    assert schedule.delay(1, random=0.5, now=0, until=NEVER) == 7.0
    nearly_one = math.nextafter(1.0, 0.0)
    assert schedule.delay(1, random=nearly_one, now=0, until=NEVER) == pytest.approx(6.0)


def test_a_try_that_could_only_begin_after_the_message_expired_is_not_granted() -> None:
    schedule = RetrySchedule(first=2.0, jitter=0.0)
    assert schedule.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND) is None
    assert schedule.delay(1, random=0.0, now=10 * SECOND, until=12 * SECOND + 1) == 2.0


def test_without_a_count_the_message_is_tried_until_it_expires_and_the_pause_stays_finite() -> None:
    assert not UNTIL_EXPIRY.is_last(10**9)
    assert UNTIL_EXPIRY.delay(10**9, random=0.0, now=0, until=NEVER) == UNTIL_EXPIRY.longest


def test_no_retries_means_the_first_delivery_is_the_last() -> None:
    assert RetrySchedule(retries=0).delay(1, random=0.0, now=0, until=NEVER) is None


def test_deliveries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        RetrySchedule().delay(0, random=0.0, now=0, until=NEVER)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries", -1),
        ("first", 0.0),
        ("first", 61.0),
        ("longest", float("inf")),
        ("longest", float("nan")),
        ("factor", 0.9),
        ("factor", float("inf")),
        ("jitter", 1.0),
        ("jitter", -0.1),
    ],
)
def test_a_schedule_that_makes_no_sense_cannot_exist(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        RetrySchedule(**{field: value})  # type: ignore[arg-type]
