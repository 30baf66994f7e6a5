from __future__ import annotations

import pytest

from sealbus.bus.stream_names import SUBJECTS
from sealbus.bus.streams.declared import (
    HELD_SECONDS,
    KEPT_SECONDS,
    Guard,
    approval_durable,
    control_durable,
    declared_streams,
    schedule_durable,
    stream_named,
)
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.spiffe_id import SpiffeId

SIZES = {"TASKS": 1_000, "AUDIT": 2_000}


def own(subject: str, kind: Kind) -> OwnSubject:
    return OwnSubject(subject=subject, kind=kind, owner=SpiffeId("spiffe://example.org/agent/orders"), action="a.b")


def test_the_streams_are_declared_in_order() -> None:
    streams = declared_streams({**SIZES, "PEOPLE": 1})
    assert tuple(stream.name for stream in streams) == tuple(SUBJECTS)
    assert [stream.subjects for stream in streams] == [
        ("task.>", "control.>"),
        ("event.>",),
        ("status.>",),
        ("dead.>",),
        ("audit.>",),
        ("refused.>",),
        ("state.>",),
        ("held.>",),
        ("people.>",),
    ]


def test_people_has_a_stream_only_where_its_size_is_said() -> None:
    assert declared_streams(SIZES) == declared_streams({**SIZES, "PEOPLE": 3})[:-1]
    people = stream_named(declared_streams({**SIZES, "PEOPLE": 3}), "PEOPLE")
    assert (people.guard, people.discard, people.max_age, people.max_bytes) == (Guard.PEOPLE, "new", 0, 3)
    assert (people.per_subject, people.direct, people.deny_delete) == (1, True, False)


def test_tasks_keeps_what_was_acknowledged_for_24_h_5_min_and_refuses_when_full() -> None:
    tasks = stream_named(declared_streams(SIZES), "TASKS")
    assert tasks.guard is Guard.LIVE
    assert tasks.config() == {
        "name": "TASKS",
        "description": "sealbus: durable work",
        "subjects": ["task.>", "control.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": 86_700_000_000_000,
        "max_bytes": 1_000,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": 10_000,
        "duplicate_window": 120_000_000_000,
        "deny_delete": True,
        "deny_purge": True,
        "num_replicas": 1,
    }


def test_audit_keeps_everything_for_ever() -> None:
    audit = stream_named(declared_streams(SIZES, replicas=3), "AUDIT")
    assert audit.guard is Guard.EVIDENCE
    assert (audit.max_age, audit.discard, audit.deny_delete, audit.deny_purge) == (0, "new", True, True)
    assert (audit.max_bytes, audit.replicas, audit.duplicate_window) == (2_000, 3, 120)


def test_dead_letters_and_refusals_drop_the_oldest_and_are_bounded() -> None:
    streams = declared_streams(SIZES)
    for name in ("DEAD", "REFUSALS"):
        stream = stream_named(streams, name)
        assert (stream.discard, stream.guard) == ("old", Guard.NONE)
        assert 0 < stream.max_bytes <= 256 * 1_048_576
        assert stream.max_age > KEPT_SECONDS


def test_state_keeps_the_last_of_each_subject_for_as_long_as_a_copy_may_come() -> None:
    state = stream_named(declared_streams(SIZES), "STATE")
    assert (state.discard, state.guard, state.max_age) == ("new", Guard.STATE, KEPT_SECONDS)
    config = state.config()
    assert (config["max_msgs_per_subject"], config["allow_direct"]) == (1, True)
    assert "allow_direct" not in stream_named(declared_streams(SIZES), "TASKS").config()


def test_held_keeps_every_version_for_longer_than_anything_may_wait() -> None:
    held = stream_named(declared_streams(SIZES), "HELD")
    assert (held.discard, held.guard, held.max_age) == ("new", Guard.HELD, HELD_SECONDS)
    assert (held.per_subject, held.deny_delete, held.deny_purge) == (-1, True, True)
    assert HELD_SECONDS > 30 * 86_400
    assert stream_named(declared_streams({**SIZES, "HELD": 7}), "HELD").max_bytes == 7


def test_cancels_approvals_and_schedules_have_each_a_consumer_that_no_agent_is_named_as() -> None:
    kinds = (control_durable, approval_durable, schedule_durable)
    names = {durable(token) for durable in kinds for token in ("stock", "shop")}
    assert len(names) == 6
    assert all(name.startswith("id-") and set(name[3:]) - set("0123456789abcdef") for name in names)


def test_own_subjects_join_the_stream_of_their_kind_and_calls_none() -> None:
    streams = declared_streams(
        SIZES,
        own=[own("orders.paid", Kind.EVENT), own("orders.ship", Kind.TASK), own("orders.ask", Kind.CALL)],
    )
    assert stream_named(streams, "TASKS").subjects == ("task.>", "control.>", "orders.ship")
    assert stream_named(streams, "EVENTS").subjects == ("event.>", "orders.paid")
    assert all("orders.ask" not in stream.subjects for stream in streams)


@pytest.mark.parametrize(("missing", "key"), [("TASKS", "tasks"), ("AUDIT", "audit")])
def test_the_sizes_of_tasks_and_audit_must_be_said(missing: str, key: str) -> None:
    sizes = {name: size for name, size in SIZES.items() if name != missing}
    with pytest.raises(ConfigurationError, match=f"streams.max_bytes.{key} is not set"):
        declared_streams(sizes)


def test_a_size_for_no_stream_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"streams.max_bytes.task: no such stream"):
        declared_streams({**SIZES, "TASK": 5})


@pytest.mark.parametrize("size", [0, -1])
def test_a_stream_without_a_bound_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="stream AUDIT: max_bytes must be at least 1"):
        declared_streams({**SIZES, "AUDIT": size})


def test_replicas_are_odd_and_few() -> None:
    with pytest.raises(ConfigurationError, match="replicas must be 1, 3 or 5, not 2"):
        declared_streams(SIZES, replicas=2)


def test_only_declared_streams_have_a_declaration() -> None:
    with pytest.raises(ConfigurationError, match="stream JOBS: not declared; the streams are TASKS, EVENTS"):
        stream_named(declared_streams(SIZES), "JOBS")
