"""When ticks are, and which one is caught up on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.bus.work.schedules.cron import Cron
from sealbus.bus.work.schedules.rule import (
    GRACE,
    At,
    Every,
    Missed,
    When,
    newest_missed,
    next_tick,
    parse_when,
    shown_when,
    when_json,
)
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import SECOND

FOREVER = 10**15
RULES: tuple[When, ...] = (
    Cron(expression="*/5 * * * *", zone="Europe/Berlin"),
    Every(seconds=600, start=17 * SECOND),
    At(time=5_000 * SECOND),
)


def every(seconds: int) -> Every:
    return Every(seconds=seconds, start=0)


@pytest.mark.parametrize("when", RULES)
def test_json_says_it(when: When) -> None:
    assert parse_when(when_json(when)) == when
    assert shown_when(when)


@pytest.mark.parametrize(
    "said",
    [
        None, [], "daily", {}, {"cron": "* * * * *"}, {"cron": "* * * * *", "zone": "UTC", "x": 1}, {"every": 10},
        {"every": 9, "from": 0}, {"every": True, "from": 0}, {"every": 10.0, "from": 0}, {"every": 10, "from": -1},
        {"every": 10, "from": 2**53}, {"at": "now"}, {"at": True}, {"at": 1, "every": 10, "from": 0},
        {"every": 31_622_401, "from": 0},
        {"cron": "0 0 30 2 *", "zone": "UTC"}, {"cron": "* * * * *", "zone": "Mars"},
    ],
)  # fmt: skip
def test_json_that_says_nothing_is_refused(said: Json) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_when(said)


def test_an_interval_is_counted_from_its_start() -> None:
    rule = Every(seconds=60, start=7 * SECOND)
    assert [rule.after(time * SECOND) for time in (0, 6, 7, 66, 67)] == [one * SECOND for one in (7, 7, 67, 67, 127)]


@given(st.integers(10, 100_000), st.integers(0, 10**12), st.integers(0, 10**15))
def test_the_next_of_an_interval_is_the_first_after(seconds: int, start: int, time: int) -> None:
    tick = Every(seconds=seconds, start=start).after(time)
    assert tick is not None
    assert tick > time
    assert (tick - start) % (seconds * SECOND) == 0
    assert tick == start or tick - seconds * SECOND <= time


def test_a_schedule_ticks_after_it_was_made_and_before_its_end() -> None:
    assert next_tick(every(10), after=0, since=25 * SECOND, until=FOREVER) == 30 * SECOND
    assert next_tick(every(10), after=25 * SECOND, since=0, until=31 * SECOND) == 30 * SECOND
    assert next_tick(every(10), after=25 * SECOND, since=0, until=30 * SECOND) is None


def test_once_is_once_and_what_had_passed_when_it_was_asked_for_is_now() -> None:
    at = At(time=50 * SECOND)
    assert next_tick(at, after=0, since=0, until=FOREVER) == 50 * SECOND
    assert next_tick(at, after=50 * SECOND, since=0, until=FOREVER) is None
    assert next_tick(at, after=0, since=60 * SECOND, until=FOREVER) == 60 * SECOND
    assert next_tick(at, after=60 * SECOND, since=60 * SECOND, until=FOREVER) is None


def test_the_newest_of_those_missed_is_caught_up_on_and_the_others_are_counted() -> None:
    def missed(*, after: int, now: int, catchup: int) -> Missed:
        found = newest_missed(
            every(10), after=after * SECOND, since=0, until=FOREVER, now=now * SECOND, catchup=catchup * SECOND
        )
        return found._replace(tick=found.tick // SECOND if found.tick is not None else None)

    assert missed(after=0, now=9, catchup=60) == (None, 0)
    assert missed(after=0, now=10, catchup=60) == (10, 0)
    assert missed(after=0, now=59, catchup=60) == (50, 4)
    assert missed(after=0, now=1_000, catchup=60) == (1_000, 99)
    assert missed(after=0, now=50_000, catchup=60) == (50_000, 100)
    # On time, give or take what a busy process is late.
    assert missed(after=0, now=15, catchup=0) == (10, 0)
    assert missed(after=0, now=16, catchup=0) == (None, 1)


def test_one_that_is_too_old_is_given_up() -> None:
    rule = Every(seconds=3_600, start=0)
    now = 3_600 * SECOND + 60 * SECOND + GRACE
    assert newest_missed(rule, after=1, since=0, until=FOREVER, now=now, catchup=60 * SECOND) == (3_600 * SECOND, 0)
    assert newest_missed(rule, after=1, since=0, until=FOREVER, now=now + 1, catchup=60 * SECOND) == (None, 1)


@given(
    st.sampled_from([*RULES, every(10), every(90)]),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 5_000),
)
def test_catching_up_is_what_a_walk_over_all_ticks_finds(
    when: When, after: int, since: int, now: int, catchup: int
) -> None:
    ticks, time = [], after * SECOND
    while (tick := next_tick(when, after=time, since=since * SECOND, until=15_000 * SECOND)) is not None:
        if tick > now * SECOND:
            break
        ticks.append(tick)
        time = tick
    good = [one for one in ticks if one >= (now - catchup) * SECOND - GRACE]
    found = newest_missed(
        when,
        after=after * SECOND,
        since=since * SECOND,
        until=15_000 * SECOND,
        now=now * SECOND,
        catchup=catchup * SECOND,
    )
    assert found == (good[-1] if good else None, min(len(ticks) - bool(good), 100))
