from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from sealbus.bus.nats.api import StreamState
from sealbus.bus.stream_names import SUBJECTS
from sealbus.bus.streams.check import (
    FORBIDDEN,
    INERT,
    Violation,
    check_stream,
    check_streams,
    covers,
    is_unset,
    shown,
    violations,
)
from sealbus.bus.streams.declared import declared_streams, stream_named
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

STREAMS = declared_streams({"TASKS": 1_000, "AUDIT": 2_000, "PEOPLE": 3_000})
SECOND = 1_000_000_000
GUARDED = ("TASKS", "EVENTS", "AUDIT")
# What nats-server 2.15.1 adds to a configuration that leaves everything else out.
SERVER_DEFAULTS: Mapping[str, object] = {
    "max_consumers": -1,
    "compression": "none",
    "allow_direct": False,
    "mirror_direct": False,
    "sealed": False,
    "allow_rollup_hdrs": False,
    "consumer_limits": {},
    "allow_msg_ttl": False,
    "metadata": {"_nats.level": "5", "_nats.ver": "2.15.1"},
}
GONE = object()


def state(name: str, **changes: object) -> StreamState:
    config = {**SERVER_DEFAULTS, **stream_named(STREAMS, name).config(), **changes}
    kept = {field: value for field, value in config.items() if value is not GONE}
    return StreamState(name=name, config=kept, created=7, messages=0, bytes=0)


@pytest.mark.parametrize("name", tuple(SUBJECTS))
def test_a_stream_as_declared_is_accepted(name: str) -> None:
    stream = stream_named(STREAMS, name)
    found = state(name)
    assert check_stream(stream, found) is found
    assert not [*violations(stream, found)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_age", 0),
        ("max_age", GONE),
        ("max_age", 7 * 86_400 * SECOND),
        ("duplicate_window", 600 * SECOND),
        ("subjects", [">"]),
        ("subjects", ["task.>", "control.>", "more.>"]),
        ("max_msgs_per_subject", GONE),
        ("max_msgs_per_subject", 0),
        ("persist_mode", "default"),
        ("max_msgs", 10),
        ("max_bytes", -1),
        ("deny_delete", True),
        ("placement", {"tags": ["ssd"]}),
        ("compression", "s2"),
        ("num_replicas", 3),
        ("allow_atomic", True),
        ("allow_direct", True),
        ("sources", []),
        ("mirror", None),
        ("something_new", False),
        ("something_new", 0),
        ("something_new", ""),
    ],
)
def test_what_does_not_weaken_the_guard_is_the_operators_choice(field: str, value: object) -> None:
    assert not [*violations(stream_named(STREAMS, "TASKS"), state("TASKS", **{field: value}))]


HOSTILE = [
    (GUARDED, "retention", "workqueue", "workqueue", "limits, which keeps what was acknowledged"),
    (GUARDED, "retention", "interest", "interest", "limits, which keeps what was acknowledged"),
    (GUARDED, "discard", "old", "old", "new"),
    (GUARDED, "discard", GONE, "absent", "new"),
    (GUARDED, "storage", "memory", "memory", "file"),
    (GUARDED, "persist_mode", "async", "async", "default, stored before PubAck"),
    (GUARDED, "max_msgs_per_subject", 1, "1", "none"),
    (GUARDED, "duplicate_window", 120 * SECOND - 1, "119.999999999 s", "120 s or more"),
    (GUARDED, "duplicate_window", 10 * SECOND, "10 s", "120 s or more"),
    (GUARDED, "duplicate_window", GONE, "absent", "120 s or more"),
    (GUARDED, "duplicate_window", "120s", "120s", "120 s or more"),
    (GUARDED, "subjects", ["elsewhere.>"], "elsewhere.>", "to include"),
    (GUARDED, "subjects", [], "none", "to include"),
    (GUARDED, "subjects", GONE, "absent", "to include"),
    (GUARDED, "subjects", [5], "set", "to include"),
    (("TASKS", "EVENTS"), "max_age", 86_699 * SECOND, "86699 s", "none, or 86700 s (24 h 5 min) or more"),
    (("TASKS", "EVENTS"), "max_age", "1d", "1d", "none, or 86700 s (24 h 5 min) or more"),
    (("AUDIT",), "max_age", 365 * 86_400 * SECOND, "31536000 s", "none"),
    (("AUDIT",), "deny_delete", False, "false", "true"),
    (("AUDIT",), "deny_purge", GONE, "absent", "true"),
    (("STATE",), "discard", "old", "old", "new"),
    (("STATE",), "storage", "memory", "memory", "file"),
    (("STATE",), "max_age", 3_600 * SECOND, "3600 s", "none, or 86700 s (24 h 5 min) or more"),
    (("STATE",), "allow_direct", False, "false", "true, or no process can read its values"),
    (("STATE",), "allow_direct", GONE, "absent", "true, or no process can read its values"),
    (("HELD",), "discard", "old", "old", "new"),
    (("HELD",), "storage", "memory", "memory", "file"),
    (("HELD",), "persist_mode", "async", "async", "default, stored before PubAck"),
    (("HELD",), "max_msgs_per_subject", 1, "1", "none"),
    (("HELD",), "max_age", 2_764_799 * SECOND, "2764799 s", "none, or 2764800 s (32 days) or more"),
    (("HELD",), "max_age", 86_700 * SECOND, "86700 s", "none, or 2764800 s (32 days) or more"),
    (("HELD",), "deny_delete", False, "false", "true, or the newest version can be removed"),
    (("HELD",), "deny_delete", GONE, "absent", "true, or the newest version can be removed"),
    (("HELD",), "deny_purge", False, "false", "true, or newer versions can be removed"),
    (("HELD",), "subjects", ["held.notary.>"], "held.notary.>", "to include"),
    (("PEOPLE",), "max_age", 2_764_800 * SECOND, "2764800 s", "none"),
    (("PEOPLE",), "discard", "old", "old", "new"),
    (("PEOPLE",), "storage", "memory", "memory", "file"),
    (("PEOPLE",), "allow_direct", False, "false", "true, or no process can read its values"),
    (("PEOPLE",), "subjects", ["people.a.>"], "people.a.>", "to include"),
    (tuple(SUBJECTS), "retention", "workqueue", "workqueue", "limits"),
    (tuple(SUBJECTS), "sources", [{"name": "ELSEWHERE"}], "set", "stores copies from elsewhere"),
    (tuple(SUBJECTS), "mirror", {"name": "ELSEWHERE"}, "set", "is filled from elsewhere"),
    (tuple(SUBJECTS), "subject_transform", {"src": "a", "dest": "b"}, "set", "under another subject"),
    (tuple(SUBJECTS), "republish", {"src": ">", "dest": "b.>"}, "set", "gives copies"),
    (tuple(SUBJECTS), "allow_rollup_hdrs", True, "true", "remove others"),
    (tuple(SUBJECTS), "allow_msg_ttl", True, "true", "before a copy of it expires"),
    (tuple(SUBJECTS), "subject_delete_marker_ttl", 100 * SECOND, "100000000000", "messages of the server"),
    (tuple(SUBJECTS), "allow_msg_schedules", True, "true", "later than they were sent"),
    (tuple(SUBJECTS), "allow_msg_counter", True, "true", "rewrites bodies"),
    (tuple(SUBJECTS), "discard_new_per_subject", True, "true", "limit per subject"),
    (tuple(SUBJECTS), "no_ack", True, "true", "acknowledges nothing"),
    (tuple(SUBJECTS), "sealed", True, "true", "stores nothing"),
    (tuple(SUBJECTS), "allow_batched", True, "true", "not shown to keep ids"),
    (tuple(SUBJECTS), "something_new", True, "true", "does not know it"),
    (tuple(SUBJECTS), "something_new", {"x": 1}, "set", "does not know it"),
]


@pytest.mark.parametrize(
    ("name", "field", "value", "found", "needed"),
    [(name, *rest) for names, *rest in HOSTILE for name in names],
)
def test_each_weakness_is_refused_by_itself(name: str, field: str, value: object, found: str, needed: str) -> None:
    stream = stream_named(STREAMS, name)
    real = state(name, **{field: value})
    (violation,) = violations(stream, real)
    assert (violation.stream, violation.field) == (name, field)
    assert violation.found.startswith(found)
    assert needed in violation.needed
    with pytest.raises(ConfigurationError) as caught:
        check_stream(stream, real)
    assert caught.value.detail == f"{violation}; run `sealbus streams plan`"
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_age", 0), ("max_age", GONE), ("max_age", 366 * 86_400 * SECOND), ("max_msgs_per_subject", GONE)],
)
def test_held_may_keep_more_than_declared(field: str, value: object) -> None:
    assert not [*violations(stream_named(STREAMS, "HELD"), state("HELD", **{field: value}))]


def test_no_id_is_relied_on_in_held() -> None:
    assert not [*violations(stream_named(STREAMS, "HELD"), state("HELD", duplicate_window=SECOND))]


def test_every_forbidden_setting_is_among_the_hostile_ones() -> None:
    assert {field for _, field, *_ in HOSTILE} >= FORBIDDEN.keys()
    assert not INERT & FORBIDDEN.keys()


def test_all_weaknesses_are_told_to_plan() -> None:
    found = [*violations(stream_named(STREAMS, "AUDIT"), state("AUDIT", discard="old", max_age=5, sealed=True))]
    assert [violation.field for violation in found] == ["discard", "max_age", "sealed"]


def test_the_line_names_stream_field_found_and_needed() -> None:
    violation = Violation(stream="TASKS", field="discard", found="old", needed="new")
    assert str(violation) == "stream TASKS: discard is old, needed: new"


def test_a_stream_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="stream EVENTS: does not exist; run `sealbus streams plan`"):
        check_stream(stream_named(STREAMS, "EVENTS"), None)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("task.>", "task.>", True),
        (">", "task.>", True),
        ("task.*", "task.a", True),
        ("task.*.c", "task.*.c", True),
        ("task.>", "task.*.b", True),
        ("task.*", "task.>", False),
        ("task.a.>", "task.>", False),
        ("task.>", "task", False),
        ("task.a", "task.*", False),
        ("task.a.b", "task.a", False),
        ("task.a", "task.a.b", False),
        ("task.a", "task.b", False),
    ],
)
def test_a_filter_covers_another(wide: str, narrow: str, covered: bool) -> None:
    assert covers(wide, narrow) is covered


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_the_ways_of_the_server_to_say_off(value: object) -> None:
    assert is_unset(value)


@pytest.mark.parametrize("value", [True, 1, -1, "x", [0], {"a": 0}])
def test_everything_else_is_on(value: object) -> None:
    assert not is_unset(value)


def test_durations_and_lists_are_shown_as_an_operator_would_write_them() -> None:
    assert shown("max_age", 86_700 * SECOND) == "86700 s"
    assert shown("max_age", True) == "true"
    assert shown("subjects", ["a.>", "b"]) == "a.>, b"


def listed(**changes: object) -> bytes:
    """All declared streams as the server lists them, the configuration of TASKS changed."""
    times = {"created": "1970-01-01T00:00:00.000007Z", "state": {"messages": 0, "bytes": 0}}
    configs = [{**state(name).config, "name": name, **(changes if name == "TASKS" else {})} for name in SUBJECTS]
    streams = [{"config": config, **times} for config in configs]
    return json.dumps({"total": len(streams), "streams": streams}).encode()


async def test_all_streams_are_read_and_checked() -> None:
    asked = []

    async def request(subject: str, payload: bytes) -> bytes:
        asked.append((subject, payload))
        return listed()

    found = await check_streams(STREAMS, request)
    assert {name: one.created for name, one in found.items()} == dict.fromkeys(tuple(SUBJECTS), 7)
    assert set(asked) == {("$JS.API.STREAM.LIST", b"")}


async def test_the_first_bad_stream_ends_the_check() -> None:
    async def request(subject: str, payload: bytes) -> bytes:
        return listed(discard="old")

    with pytest.raises(ConfigurationError, match="stream TASKS: discard is old"):
        await check_streams(STREAMS, request)


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    async def request(subject: str, payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    with pytest.raises(BusUnavailable, match=r"no answer from the server within 0.01 s"):
        await check_streams(STREAMS, request, deadline=0.01)
