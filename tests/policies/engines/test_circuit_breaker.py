"""The circuit breaker: its states, and what moves it from one to the next."""

from __future__ import annotations

import pytest

from sealbus.policies.engines.circuit_breaker import AFTER, PAUSES, Breaker, Passage

PAUSE = PAUSES.initial_interval
PAUSE_MOST = PAUSES.maximum_interval


def admitted(breaker: Breaker, now: float) -> Passage:
    passage = breaker.admit(now)
    assert passage is not None
    return passage


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(AFTER):
        admitted(breaker, now).failed(now)
    return breaker


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(AFTER - 1):
        admitted(breaker, 0).failed(0)
    admitted(breaker, 0).succeeded()
    for _ in range(AFTER - 1):
        admitted(breaker, 0).failed(0)
    assert breaker.seconds_left(0) == 0
    admitted(breaker, 0).failed(7)
    assert breaker.admit(7) is None
    assert breaker.seconds_left(7) == pytest.approx(PAUSE)


def test_after_the_pause_one_may_try_and_its_success_closes() -> None:
    breaker = opened()
    assert breaker.admit(PAUSE - 0.01) is None
    trial = admitted(breaker, PAUSE)
    assert breaker.admit(PAUSE) is None
    assert breaker.seconds_left(PAUSE) == 0
    trial.succeeded()
    admitted(breaker, PAUSE)
    admitted(breaker, PAUSE)


def test_each_failed_trial_doubles_the_pause_up_to_the_most() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(10):
        pauses.append(breaker.seconds_left(now))
        now += pauses[-1]
        admitted(breaker, now).failed(now)
    assert pauses[:4] == pytest.approx([PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE])
    assert pauses[-1] == pytest.approx(PAUSE_MOST)
    admitted(breaker, now + PAUSE_MOST).succeeded()
    for _ in range(AFTER):
        admitted(breaker, now).failed(now)
    assert breaker.seconds_left(now) == pytest.approx(PAUSE)


def test_what_passed_before_it_opened_moves_nothing_by_failing() -> None:
    breaker = Breaker()
    late = [admitted(breaker, 0) for _ in range(4)]
    for _ in range(AFTER):
        admitted(breaker, 0).failed(0)
    late[0].failed(0.1)
    assert breaker.seconds_left(0.1) == pytest.approx(PAUSE - 0.1)
    trial = admitted(breaker, PAUSE)
    late[1].failed(PAUSE)
    late[2].released()
    assert breaker.admit(PAUSE) is None
    late[3].succeeded()
    admitted(breaker, PAUSE)
    trial.failed(PAUSE)
    admitted(breaker, PAUSE)


def test_a_trial_that_showed_nothing_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    admitted(breaker, PAUSE).released()
    admitted(breaker, PAUSE).failed(PAUSE)
    assert breaker.seconds_left(PAUSE) == pytest.approx(2 * PAUSE)


def test_the_first_word_about_a_passage_counts() -> None:
    breaker = opened()
    trial = admitted(breaker, PAUSE)
    trial.succeeded()
    trial.released()
    for _ in range(AFTER):
        trial.failed(PAUSE)
    passage = admitted(breaker, PAUSE)
    passage.released()
    passage.succeeded()
    assert breaker.seconds_left(PAUSE) == 0


def test_it_may_be_closed_from_outside() -> None:
    breaker = opened()
    breaker.close()
    admitted(breaker, 0)
