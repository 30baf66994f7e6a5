"""Where a message to a moved agent is, by the time in its id."""

from __future__ import annotations

import pytest

from sealbus.policies.decision.placement import Placement

SINCE = 1_764_748_800_000_000
MOVED = Placement("east", "west", SINCE)
REST = "7" * 20


@pytest.mark.parametrize(
    ("identifier", "cell"),
    [
        (f"{SINCE // 1_000 - 1:012x}{REST}", "west"),
        (f"{SINCE // 1_000:012x}{REST}", "east"),
        (f"{0:012x}{REST}", "west"),
        ("f" * 32, "east"),
        ("", "east"),
        ("0" * 31, "east"),
        ("0" * 33, "east"),
        (f"{0:012x}{'A' * 20}", "east"),
        (f"{0:012x}{'g' * 20}", "east"),
    ],
)
def test_a_message_is_in_the_cell_of_its_time(identifier: str, cell: str) -> None:
    assert MOVED.cell_at(identifier) == cell
    assert Placement("east").cell_at(identifier) == "east"


def test_a_time_within_a_millisecond_is_of_the_next_one() -> None:
    within = Placement("east", "west", SINCE + 1)
    assert within.cell_at(f"{SINCE // 1_000:012x}{REST}") == "west"
    assert within.cell_at(f"{SINCE // 1_000 + 1:012x}{REST}") == "east"


def test_something_of_it_may_be_in_two_cells() -> None:
    assert MOVED.cells == ("east", "west")
    assert Placement("east").cells == ("east",)
