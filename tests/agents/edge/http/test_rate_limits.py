from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.http.rate_limits import TokenBuckets, address_key, network_key


def test_a_burst_at_once_then_the_rate() -> None:
    now = 100.0
    buckets = TokenBuckets(rate=2.0, burst=3, entries=10, clock=lambda: now)
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == 0.5
    assert buckets.take("b") == 0.0
    now = 100.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == 0.5
    now = 200.0
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_the_longest_unused_is_forgotten() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1, entries=2, clock=lambda: 0.0)
    assert buckets.take("a") == buckets.take("b") == 0.0
    assert buckets.take("a") > 0
    buckets.take("c")
    assert len(buckets) == 2
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 5)), max_size=60))
def test_nobody_gets_more_than_the_burst_and_the_rate(steps: list[tuple[int, float]]) -> None:
    now = 0.0
    buckets = TokenBuckets(rate=2.0, burst=3, entries=4, clock=lambda: now)
    taken: dict[int, int] = {}
    for key, pause in steps:
        now += pause
        if not buckets.take(key):
            taken[key] = taken.get(key, 0) + 1
    assert all(count <= 3 + 2.0 * now + 1e-6 for count in taken.values())


def test_one_request_of_one_client_is_the_least() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1, entries=1, clock=lambda: 0.0)
    assert buckets.take("a") == 0.0
    assert buckets.take("b") == 0.0
    assert len(buckets) == 1


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"burst": 0}, {"entries": 0}])
def test_bounds_that_bound_nothing_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="rate must be over 0"):
        TokenBuckets(**{"rate": 1.0, "burst": 1, "entries": 1, **bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_network_counts_as_one(host: str, key: str) -> None:
    assert address_key(host) == key


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:192.0.2.7", "192.0.2.0/24"),
        ("unix", "unix"),
    ],
)
def test_a_site_counts_as_one(host: str, key: str) -> None:
    assert network_key(host) == key
