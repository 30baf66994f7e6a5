"""The vectors of cron: we and the independent reader find the same instants, and refuse the same expressions and zones."""

from __future__ import annotations

from itertools import islice

import pytest
from independent import cron_times as independent
from independent.verify_export import Bad
from support.vectors import Given, load

from sealbus.bus.work.schedules.cron import Cron

VECTORS = load("cron.json")


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
def test_instants(case: Given) -> None:
    rule = Cron(expression=case["cron"], zone=case["zone"])
    time: int | None = case["after"]
    found: list[int | None] = []
    for _ in case["instants"]:
        assert time is not None
        time = rule.after(time)
        found.append(time)
    assert found == case["instants"]


@pytest.mark.parametrize("case", VECTORS["accept"], ids=lambda case: case["name"])
def test_instants_of_the_independent_reader(case: Given) -> None:
    read = independent.read_cron(case["cron"], case["zone"])
    assert list(islice(independent.instants_after(read, case["after"]), len(case["instants"]))) == case["instants"]


@pytest.mark.parametrize("case", VECTORS["reject"], ids=lambda case: f"{case['cron']} {case['zone']}")
def test_refused(case: Given) -> None:
    with pytest.raises(ValueError, match=r"cron|zone|date"):
        Cron(expression=case["cron"], zone=case["zone"])
    with pytest.raises(Bad):
        independent.read_cron(case["cron"], case["zone"])
