"""The edge's limits: they fit each other, or there are none."""

from __future__ import annotations

from typing import Any

import pytest

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits


def test_the_defaults_are_limits() -> None:
    assert EdgeLimits() == DEFAULT_EDGE_LIMITS


def test_times_may_meet() -> None:
    EdgeLimits(keys_fresh_least_seconds=9, keys_fresh_seconds=9, keys_fresh_most_seconds=9)
    EdgeLimits(context_start_seconds=86_400, context_end_seconds=86_400)


@pytest.mark.parametrize(
    "change",
    [
        {"token_bytes": 0},
        {"fetch_seconds": -1.0},
        {"keys_fresh_least_seconds": 301},
        {"keys_fresh_most_seconds": 299},
        {"context_end_seconds": 899},
        {"context_end_seconds": 86_401},
    ],
)
def test_limits_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        EdgeLimits(**change)
