"""Agents as their consumers at the broker show them."""

from __future__ import annotations

import pytest

from sealbus.bus.inspection.agents import AgentSeen, Queue, actions_of, agents_seen
from sealbus.bus.nats.api import ConsumerState
from sealbus.bus.streams.declared import approval_durable, control_durable, own_durable
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, OwnSubjects
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))
OWN: OwnSubjects = {
    "legacy.stock.update": OwnSubject(
        subject="legacy.stock.update", kind=Kind.TASK, owner=NAMES.id_of("stock"), action="stock.update"
    )
}


def consumer(name: str, *subjects: str, pulls: int = 0, **counts: int) -> ConsumerState:
    return ConsumerState(
        name=name,
        subjects=frozenset(subjects),
        pulls=pulls,
        pending=counts.get("pending", 0),
        unacknowledged=counts.get("unacknowledged", 0),
        redelivered=counts.get("redelivered", 0),
        max_unacknowledged=counts.get("most", 8_192),
        active=counts.get("active", 0),
    )


def control(token: str, pulls: int) -> ConsumerState:
    return consumer(control_durable(token), f"control.{token}.cancel", pulls=pulls)


def seen(
    tasks: list[ConsumerState], events: list[ConsumerState] | None = None, actions: dict[str, list[str]] | None = None
) -> list[AgentSeen]:
    return agents_seen(tasks, events or [], actions or {}, names=NAMES, own=OWN)


def test_processes_are_counted_where_little_comes_and_queues_where_work_comes() -> None:
    (one,) = seen(
        [
            control("shop", 3),
            consumer("shop", "task.shop.>", pulls=5, pending=7, unacknowledged=2, redelivered=1, active=9),
        ],
        [consumer("shop", "event.a.x", "event.b.y", pulls=3, pending=4)],
    )
    assert (one.token, one.state, one.processes) == ("shop", "ready", 3)
    assert one.tasks == Queue(waiting=7, in_hand=2, redelivered=1, active=9)
    assert one.events == Queue(waiting=4)
    assert one.listens == ("event.a.x", "event.b.y")


@pytest.mark.parametrize("filtered", ["control.shop.>", "control.shop.cancel"])
def test_the_consumer_of_cancels_counts_processes_whatever_it_took_in_earlier_versions(filtered: str) -> None:
    (one,) = seen([consumer(control_durable("shop"), filtered, pulls=2)])
    assert (one.token, one.processes, one.tasks) == ("shop", 2, Queue())


def test_approvals_are_work_that_waits() -> None:
    approvals = consumer(approval_durable("shop"), "control.shop.approve", pulls=9, pending=2, unacknowledged=1)
    (one,) = seen([control("shop", 1), approvals, consumer("shop", "task.shop.>", pending=3)])
    assert (one.processes, one.tasks) == (1, Queue(waiting=5, in_hand=1))


def test_an_own_subject_counts_for_its_owner() -> None:
    (one,) = seen(
        [
            control("stock", 1),
            consumer("stock", "task.stock.>", pending=1, active=5),
            consumer(own_durable("legacy.stock.update"), "legacy.stock.update", pending=2, active=3),
            consumer("somebodys", "legacy.other", pending=100),
        ]
    )
    assert (one.token, one.tasks) == ("stock", Queue(waiting=3, active=5))


@pytest.mark.parametrize(
    ("pulls", "unacknowledged", "state"), [(1, 8, "full"), (1, 7, "ready"), (0, 8, "away"), (0, 0, "away")]
)
def test_states(pulls: int, unacknowledged: int, state: str) -> None:
    tasks = [control("shop", pulls), consumer("shop", "task.shop.>", unacknowledged=unacknowledged, most=8)]
    assert [one.state for one in seen(tasks)] == [state]


def test_an_agent_that_was_never_there_is_known_by_its_actions() -> None:
    first, second = seen([control("b", 1)], actions={"a": ["a.x"], "b": ["b.y"]})
    assert (first.token, first.state, first.tasks, first.actions) == ("a", "unknown", None, ("a.x",))
    assert (second.token, second.state, second.actions) == ("b", "ready", ("b.y",))


def test_actions_are_those_of_the_starter_policys_registry() -> None:
    declared: dict[str, object] = {
        "shop.buy": {},
        "shop.buy.reply": {},
        "shop.ask": {},
        "mill.grind": {},
        "odd": {},
        ".x": {},
    }
    data: dict[str, object] = {"sealbus": {"registry": {"actions": declared}}}
    assert actions_of(data) == {"shop": ("shop.ask", "shop.buy"), "mill": ("mill.grind",)}


@pytest.mark.parametrize("data", [None, {}, {"sealbus": 1}, {"sealbus": {"registry": {"actions": ["shop.buy"]}}}])
def test_other_policies_declare_none(data: dict[str, object] | None) -> None:
    assert actions_of(data) == {}
