from __future__ import annotations

import math

import pytest

from sealbus.envelopes.backoff import Backoff


def test_waits_grow_by_the_coefficient_to_the_longest() -> None:
    doubling = Backoff(initial_interval=0.05, maximum_interval=5.0)
    assert [doubling.interval(n) for n in range(1, 10)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    slow = Backoff(initial_interval=1.0, maximum_interval=60.0, backoff_coefficient=1.01)
    assert slow.interval(2) == pytest.approx(1.01)
    assert slow.interval(1_000) == 60.0
    assert Backoff(initial_interval=3.0, maximum_interval=9.0, backoff_coefficient=1.0).interval(50) == 3.0
    assert Backoff(initial_interval=3.0, maximum_interval=3.0).interval(1) == 3.0


def test_no_count_of_failures_is_too_many() -> None:
    assert Backoff(initial_interval=1.0, maximum_interval=60.0, backoff_coefficient=1e308).interval(10**9) == 60.0


def test_jitter_takes_off_its_share_and_no_more() -> None:
    backoff = Backoff(initial_interval=8.0, maximum_interval=60.0, jitter=0.25)
    assert backoff.interval(1, 0.0) == 8.0
    assert backoff.interval(1, 0.5) == 7.0
    assert backoff.interval(1, math.nextafter(1.0, 0.0)) == pytest.approx(6.0)
    assert backoff.interval(9, 0.5) == 52.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("initial_interval", 0.0),
        ("initial_interval", 61.0),
        ("maximum_interval", math.inf),
        ("maximum_interval", math.nan),
        ("backoff_coefficient", 0.9),
        ("backoff_coefficient", math.inf),
        ("jitter", 1.0),
        ("jitter", -0.1),
    ],
)
def test_a_backoff_that_makes_no_sense_cannot_exist(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        Backoff(**{"initial_interval": 1.0, "maximum_interval": 60.0, field: value})
