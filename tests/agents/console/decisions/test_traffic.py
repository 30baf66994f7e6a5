"""The map of the last minute: what is counted, for how long, and where each agent stands."""

from __future__ import annotations

from sealbus.agents.console.decisions.traffic import WINDOW, Traffic
from sealbus.agents.console.documents import TrafficDocument

NOW = 1_800_000_000


def drawn(traffic: Traffic, second: int = NOW, **states: str) -> TrafficDocument:
    return traffic.document(second, states, ["edge"])


def columns(document: TrafficDocument) -> dict[str, int]:
    return {one["name"]: one["column"] for one in document["agents"]}


def test_counts_the_last_minute_and_forgets_it() -> None:
    traffic = Traffic()
    for _ in range(30):
        traffic.add("shop", "inventory", allow=True, second=NOW)
    traffic.add("shop", "inventory", allow=False, second=NOW + 1, count=3)
    document = drawn(traffic, NOW + 1)
    assert document["edges"] == [{"from": "shop", "to": "inventory", "rate": 0.55, "denied": 3}]
    assert (document["decided"], document["denied_minute"]) == (0.55, 3)
    assert drawn(traffic, NOW + WINDOW)["edges"] == [{"from": "shop", "to": "inventory", "rate": 0.05, "denied": 3}]
    assert drawn(traffic, NOW + WINDOW + 1)["edges"] == []


def test_agents_stand_by_their_distance_from_where_requests_come_in() -> None:
    traffic = Traffic()
    for sender, decider in (
        ("edge", "planner"),
        ("planner", "inventory"),
        ("inventory", "pricing"),
        ("edge", "pricing"),
    ):
        traffic.add(sender, decider, allow=True, second=NOW)
    assert columns(drawn(traffic)) == {"edge": 0, "planner": 1, "pricing": 1, "inventory": 2}


def test_a_circle_of_agents_has_columns_too() -> None:
    traffic = Traffic()
    for sender, decider in (("a", "b"), ("b", "c"), ("c", "a")):
        traffic.add(sender, decider, allow=True, second=NOW)
    assert set(columns(drawn(traffic))) == {"a", "b", "c"}


def test_agents_that_the_broker_knows_are_there_without_traffic() -> None:
    document = drawn(Traffic(), pricing="away")
    assert document["agents"] == [{"name": "pricing", "kind": "agent", "column": 0, "rate": 0.0, "state": "away"}]


def test_the_pairs_are_bounded() -> None:
    traffic = Traffic(pairs=3)
    for number in range(10):
        traffic.add(f"s{number}", "d", allow=True, second=NOW)
    assert [one["from"] for one in drawn(traffic)["edges"]] == ["s7", "s8", "s9"]


def test_a_clock_that_is_behind_counts_now() -> None:
    traffic = Traffic()
    traffic.add("a", "b", allow=True, second=NOW)
    traffic.add("a", "b", allow=True, second=NOW - 1_000)
    assert drawn(traffic)["edges"][0]["rate"] == round(2 / WINDOW, 2)
