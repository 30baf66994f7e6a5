"""Durations in a fixed number of counters."""

from __future__ import annotations

import math
import random

import pytest

from sealbus.policies.backtest.report import Latencies


def of(*micros: int) -> Latencies:
    latencies = Latencies()
    for one in micros:
        latencies.add(one)
    return latencies


def test_of_none() -> None:
    assert (Latencies().count, Latencies().mean, Latencies().quantile(0.99)) == (0, 0.0, 0)


def test_small_ones_are_exact() -> None:
    latencies = of(*range(16))
    assert (latencies.count, latencies.mean) == (16, 7.5)
    assert [latencies.quantile(share / 16) for share in range(1, 17)] == list(range(16))


@pytest.mark.parametrize("micros", [0, 15, 16, 17, 18, 31, 32, 33, 1_000, 999_999, 2**53 - 1])
def test_a_bound_holds_and_is_at_most_an_eighth_too_high(micros: int) -> None:
    assert micros <= of(micros).quantile(1.0) <= micros * 1.125


def test_quantiles_are_those_of_the_sorted_durations() -> None:
    chance = random.Random(7)  # noqa: S311  the same durations each time
    durations = sorted(int(chance.lognormvariate(4, 2)) for _ in range(5_000))
    latencies = of(*durations)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = durations[math.ceil(share * len(durations)) - 1]
        assert exact <= latencies.quantile(share) <= exact * 1.125


def test_the_number_of_counters_does_not_grow_with_what_is_counted() -> None:
    latencies = of(*(2**power + step for power in range(53) for step in (0, 1, 2)))
    assert len(latencies._buckets) < 53 * 8 + 16
