"""The arithmetic of sizes; whether the measured bytes are right is for `tests/integration/test_stream_sizes.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sealbus.bus.streams import estimate
from sealbus.bus.streams.estimate import ExpectedAgents, ExpectedLoad, bytes_held, room_for, seconds_until_full
from sealbus.envelopes.errors import ConfigurationError

GIB = 1 << 30


def test_audit_grows_with_the_days_and_the_others_keep_a_day() -> None:
    load = ExpectedLoad(tasks=10, calls=5, denied=0.1, once=0.5, body=1_000, result=100)
    week, month = bytes_held(load, days=7), bytes_held(load, days=28)
    assert (
        month["AUDIT"]
        == 4 * week["AUDIT"]
        == round(28 * 86_400 * 15 * (0.9 * estimate.DECIDED + 0.1 * estimate.DENIED))
    )
    assert {name: week[name] for name in ("TASKS", "RESULTS", "STATE")} == {
        "TASKS": 867_000 * (estimate.TASK + 1_000),
        "RESULTS": round(86_700 * (9 * (estimate.RESULT + 100) + estimate.REFUSAL)),
        "STATE": round(86_700 * 4.5 * estimate.CLAIM),
    }
    assert all(month[name] == week[name] for name in ("TASKS", "RESULTS", "STATE"))


def test_settings_leave_a_fifth_free_and_never_less_than_the_default() -> None:
    assert room_for("AUDIT", 100 * GIB) == 125 * GIB
    assert room_for("AUDIT", 100 * GIB + 1) == 125 * GIB + (64 << 20)
    assert room_for("TASKS", 0) == 64 << 20
    assert room_for("RESULTS", 1) == GIB
    assert room_for("RESULTS", 4 * GIB) == 5 * GIB


def test_when_the_audit_stream_is_full() -> None:
    load = ExpectedLoad(tasks=2)
    full = seconds_until_full(load, estimate.DECIDED * 2_000)
    assert full == 1_000
    assert bytes_held(load, days=1_000 / 86_400)["AUDIT"] == estimate.DECIDED * 2_000
    assert seconds_until_full(ExpectedLoad(tasks=0), GIB) is None


@pytest.mark.parametrize("wrong", [{"denied": 1.1}, {"once": -0.1}, {"calls": -1.0}, {"body": -1}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ExpectedLoad(**{"tasks": 1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        bytes_held(ExpectedLoad(tasks=1), days=0)


@pytest.mark.parametrize(
    ("replicas", "replicated", "assets"),
    [(1, False, 0), (1, True, 0), (3, False, 10), (3, True, 1_310), (5, True, 1_310)],
)
def test_agents_take_consumers_and_on_a_cluster_replicated_assets(replicas: int, replicated: bool, assets: int) -> None:
    agents = ExpectedAgents(agents=300, listening=100, replicas=replicas, replicated_consumers=replicated)
    assert agents.consumers == 1_200
    assert agents.replicated_assets == assets
    groups = max(assets - estimate.SHARED_ASSETS, 0)
    assert agents.memory == (1_300 - groups) * estimate.CONSUMER_MEMORY + groups * estimate.REPLICATED_MEMORY


def test_the_limits_of_agents_are_said() -> None:
    assert list(ExpectedAgents(agents=2_500, replicas=3).warnings()) == []
    assert list(ExpectedAgents(agents=2_501).warnings()) == ["TASKS may have 10,000 consumers, for 10,004"]
    assert list(ExpectedAgents(agents=247, replicas=3, replicated_consumers=True).warnings()) == []
    [warning] = ExpectedAgents(agents=248, replicas=3, replicated_consumers=True).warnings()
    assert warning.startswith("1,002 replicated assets on a server")
    listening = ExpectedAgents(agents=198, listening=198, replicas=3, replicated_consumers=True)
    assert list(listening.warnings()) == []
    assert len(list(replace(listening, agents=199, listening=199).warnings())) == 1


@pytest.mark.parametrize(("agents", "listening"), [(-1, 0), (1, -1), (1, 2)])
def test_agents_that_cannot_be_are_refused(agents: int, listening: int) -> None:
    with pytest.raises(ConfigurationError):
        ExpectedAgents(agents=agents, listening=listening)


def test_each_cell_has_the_readers_of_all_and_the_former_one_who_was_moved() -> None:
    one = ExpectedAgents(agents=2_000, listening=100, replicas=3, processes=500)
    four = replace(one, cells=4, moved=40)
    assert (one.consumers, four.consumers) == (8_000, 4 * (500 + 10))
    assert (one.replicated_assets, four.replicated_assets) == (10, 10 + 3 * 9)
    assert one.memory == (8_000 + 100 + 500) * estimate.CONSUMER_MEMORY
    assert four.memory == 4 * (2_040 + 100 + 500) * estimate.CONSUMER_MEMORY
    replicated = replace(four, replicated_consumers=True)
    assert replicated.replicated_assets == 10 + 3 * 9 + 4 * 2_140
    assert replicated.memory == 4 * (500 * estimate.CONSUMER_MEMORY + 2_140 * estimate.REPLICATED_MEMORY)
    # What does not divide evenly is in one cell more.
    assert replace(four, agents=2_001, moved=41).consumers == 4 * (501 + 11)


def test_the_limits_of_each_cell_are_said() -> None:
    most = ExpectedAgents(agents=10_000, listening=10_000, processes=10_000, cells=4)
    assert list(most.warnings()) == []
    assert list(replace(most, agents=10_001, listening=10_001, processes=10_001).warnings()) == [
        "TASKS may have 10,000 consumers, for 10,004",
        "EVENTS may have 10,000 consumers, for 10,001",
        "STATE may have 10,000 consumers, for 10,001",
    ]
    assert list(replace(most, moved=1).warnings()) == ["TASKS may have 10,000 consumers, for 10,004"]


@pytest.mark.parametrize(
    "wrong", [{"cells": 0}, {"cells": 18}, {"processes": -1}, {"moved": -1}, {"moved": 11, "cells": 2}, {"moved": 1}]
)
def test_cells_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    ExpectedAgents(agents=10, cells=17, processes=0, moved=10)
    with pytest.raises(ConfigurationError):
        ExpectedAgents(**{"agents": 10, **wrong})  # type: ignore[arg-type]
