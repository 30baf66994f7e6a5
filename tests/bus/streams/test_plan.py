from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import cast

import pytest

from sealbus.bus.nats.api import StreamState
from sealbus.bus.ports import JsonObject
from sealbus.bus.stream_names import SUBJECTS
from sealbus.bus.streams.declared import Stream, declared_streams, stream_named
from sealbus.bus.streams.plan import Create, Refuse, Update, apply, plan, read_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

STREAMS = declared_streams({"TASKS": 1_000, "AUDIT": 2_000})
TASKS = stream_named(STREAMS, "TASKS")
AUDIT = stream_named(STREAMS, "AUDIT")
SECOND = 1_000_000_000


def state(
    stream: Stream, changes: Mapping[str, object] | None = None, *, messages: int = 0, size: int = 0
) -> StreamState:
    config = {**stream.config(), "metadata": {"_nats.ver": "2.15.1"}, "sealed": False, **(changes or {})}
    return StreamState(name=stream.name, config=config, created=0, messages=messages, bytes=size)


def test_nothing_there_means_create_everything() -> None:
    assert plan(STREAMS, {}) == [Create(stream=stream) for stream in STREAMS]
    assert str(plan([TASKS], {"TASKS": None})[0]) == "create TASKS: task.>, control.>, 1000 bytes"


def test_everything_as_declared_means_no_change() -> None:
    assert plan(STREAMS, {stream.name: state(stream) for stream in STREAMS}) == []


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("max_age", 7 * 86_400 * SECOND, "update TASKS: max_age 604800 s -> 86700 s"),
        ("max_bytes", 10, "update TASKS: max_bytes 10 -> 1000"),
        ("max_msgs", 10, "update TASKS: max_msgs 10 -> -1"),
        ("max_msg_size", 10, "update TASKS: max_msg_size 10 -> -1"),
        ("max_consumers", -1, "update TASKS: max_consumers -1 -> 10000"),
        ("max_consumers", 9_999, "update TASKS: max_consumers 9999 -> 10000"),
        ("max_consumers", None, "update TASKS: max_consumers absent -> 10000"),
        ("max_msgs_per_subject", 1, "update TASKS: max_msgs_per_subject 1 -> -1"),
        ("discard", "old", "update TASKS: discard old -> new"),
        ("retention", "interest", "update TASKS: retention interest -> limits"),
        ("subjects", ["task.a"], "update TASKS: subjects task.a -> task.>, control.>"),
        ("description", "", "update TASKS: description  -> sealbus: durable work"),
        ("num_replicas", 3, "update TASKS: num_replicas 3 -> 1"),
        ("duplicate_window", 5 * SECOND, "update TASKS: duplicate_window 5 s -> 120 s"),
        ("duplicate_window", 600 * SECOND, "update TASKS: duplicate_window 600 s -> 120 s"),
        ("sources", [{"name": "X"}], "update TASKS: sources set -> absent"),
        ("subject_transform", {"src": "a", "dest": "b"}, "update TASKS: subject_transform set -> absent"),
        ("republish", {"src": "a", "dest": "b"}, "update TASKS: republish set -> absent"),
        ("allow_rollup_hdrs", True, "update TASKS: allow_rollup_hdrs true -> absent"),
        ("no_ack", True, "update TASKS: no_ack true -> absent"),
        ("allow_batched", True, "update TASKS: allow_batched true -> absent"),
        ("discard_new_per_subject", True, "update TASKS: discard_new_per_subject true -> absent"),
    ],
)
def test_what_the_server_can_change_is_an_update(field: str, value: object, line: str) -> None:
    (change,) = plan([TASKS], {"TASKS": state(TASKS, {field: value})})
    assert isinstance(change, Update)
    assert (change.field, change.found, change.needed) == (field, value, TASKS.config().get(field))
    assert str(change) == line


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("storage", "memory", "the server cannot change it; delete and create TASKS again"),
        ("persist_mode", "async", "the server cannot change it; delete and create TASKS again"),
        ("retention", "workqueue", "the server cannot change it from workqueue; delete and create TASKS again"),
        ("mirror", {"name": "X"}, "stored without the replay guard; delete and create TASKS again"),
        ("allow_msg_ttl", True, "cannot switch it off; delete and create TASKS again"),
        ("subject_delete_marker_ttl", SECOND, "cannot switch it off; delete and create TASKS again"),
        ("allow_msg_schedules", True, "cannot switch it off; delete and create TASKS again"),
        ("allow_msg_counter", True, "the server cannot change it; delete and create TASKS again"),
        ("sealed", True, "cannot unseal"),
        ("something_new", True, "does not know it"),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(field: str, value: object, reason: str) -> None:
    (change,) = plan([TASKS], {"TASKS": state(TASKS, {field: value})})
    assert isinstance(change, Refuse)
    assert (change.stream, change.field, change.found) == ("TASKS", field, value)
    assert reason in change.reason
    assert str(change).startswith(f"refuse TASKS: {field} ")


def test_a_short_window_is_not_mended_under_messages_that_may_be_there_twice() -> None:
    short = {"duplicate_window": 5 * SECOND}
    (change,) = plan([TASKS], {"TASKS": state(TASKS, short, messages=3)})
    assert isinstance(change, Refuse)
    assert change.reason == "TASKS holds 3 messages that may include duplicates; delete and create TASKS again"
    # Calls are in no stream: the audit stream's window guards them from now on.
    (mended,) = plan([AUDIT], {"AUDIT": state(AUDIT, short, messages=3)})
    assert isinstance(mended, Update)
    # A window that was long enough all the time may be set to what is declared.
    (shortened,) = plan([TASKS], {"TASKS": state(TASKS, {"duplicate_window": 600 * SECOND}, messages=3)})
    assert isinstance(shortened, Update)


def test_a_bound_is_not_put_below_what_is_stored_where_nothing_may_be_lost() -> None:
    (change,) = plan([AUDIT], {"AUDIT": state(AUDIT, {"max_bytes": 5_000}, size=2_001)})
    assert isinstance(change, Refuse)
    assert "holds 2001 bytes" in change.reason
    assert isinstance(plan([AUDIT], {"AUDIT": state(AUDIT, {"max_bytes": 5_000}, size=2_000)})[0], Update)
    dead = stream_named(STREAMS, "DEAD")
    assert isinstance(plan([dead], {"DEAD": state(dead, {"max_bytes": 2**41}, size=2**40)})[0], Update)


def test_a_stream_that_protects_more_than_declared_stays() -> None:
    assert plan([TASKS], {"TASKS": state(TASKS, {"deny_delete": True, "deny_purge": True})}) == []
    (change,) = plan([AUDIT], {"AUDIT": state(AUDIT, {"deny_purge": False})})
    assert str(change) == "update AUDIT: deny_purge false -> true"


async def test_a_stream_that_allows_more_consumers_stays() -> None:
    assert plan([TASKS], {"TASKS": state(TASKS, {"max_consumers": 20_000})}) == []
    server = Server(state(TASKS, {"max_consumers": 20_000, "max_msgs": 5}))
    assert [str(change) for change in await apply([TASKS], server)] == ["update TASKS: max_msgs 5 -> -1"]
    assert server.written[0][1]["max_consumers"] == 20_000


def test_the_order_of_subjects_is_no_difference() -> None:
    wide = Stream(
        name="TASKS", description=TASKS.description, subjects=("task.>", "a.b"), guard=TASKS.guard, max_bytes=1_000
    )
    assert plan([wide], {"TASKS": state(wide, {"subjects": ["a.b", "task.>"]})}) == []
    (change,) = plan([wide], {"TASKS": state(wide, {"subjects": None})})
    assert str(change) == "update TASKS: subjects absent -> task.>, a.b"


def test_the_operators_own_choices_are_no_difference() -> None:
    assert plan([TASKS], {"TASKS": state(TASKS, {"compression": "s2", "placement": {"tags": ["ssd"]}})}) == []


class Server:
    """Keeps stream configurations like a JetStream server, and what it was asked to write."""

    def __init__(self, *states: StreamState) -> None:
        self.states = {one.name: one for one in states}
        self.written: list[tuple[str, JsonObject]] = []
        self.refuse = ""
        self.hang = ""

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        verb, _, name = subject.removeprefix("$JS.API.STREAM.").partition(".")
        if verb == self.hang:
            await asyncio.Event().wait()
        if verb == self.refuse:
            return json.dumps({"error": {"err_code": 10_047, "description": "insufficient storage"}}).encode()
        if verb == "LIST":
            return json.dumps(
                {"total": len(self.states), "streams": [_told(one) for one in self.states.values()]}
            ).encode()
        config = cast("JsonObject", json.loads(payload))
        assert config["name"] == name
        self.written.append((verb, config))
        self.states[name] = StreamState(name=name, config=config, created=0, messages=0, bytes=0)
        return json.dumps(_told(self.states[name])).encode()


def _told(found: StreamState) -> JsonObject:
    counts = {"messages": found.messages, "bytes": found.bytes}
    config = {**found.config, "name": found.name}
    return {"config": config, "created": "2026-01-01T00:00:00Z", "state": counts}


async def test_apply_makes_what_is_missing_and_then_has_nothing_to_do() -> None:
    server = Server()
    assert await apply(STREAMS, server) == [Create(stream=stream) for stream in STREAMS]
    assert [verb for verb, _ in server.written] == ["CREATE"] * len(STREAMS)
    assert await apply(STREAMS, server) == []
    assert len(server.written) == len(STREAMS)


async def test_apply_updates_in_one_write_and_keeps_the_operators_choices() -> None:
    real = state(
        TASKS,
        {
            "discard": "old",
            "max_msgs": 5,
            "deny_delete": True,
            "compression": "s2",
            "republish": {"src": "a", "dest": "b"},
            "metadata": {"owner": "ops", "_nats.ver": "2.15.1"},
        },
    )
    server = Server(real)
    changes = await apply([TASKS], server)
    assert [str(change) for change in changes] == [
        "update TASKS: discard old -> new",
        "update TASKS: max_msgs 5 -> -1",
        "update TASKS: republish set -> absent",
    ]
    assert server.written == [
        (
            "UPDATE",
            {
                **TASKS.config(),
                "deny_delete": True,
                "compression": "s2",
                "sealed": False,
                "metadata": {"owner": "ops"},
            },
        )
    ]


async def test_apply_writes_only_the_streams_that_differ() -> None:
    server = Server(state(TASKS), state(AUDIT, {"max_bytes": 5_000, "metadata": None}))
    assert [str(change) for change in await apply([TASKS, AUDIT], server)] == ["update AUDIT: max_bytes 5000 -> 2000"]
    assert [(verb, config["name"]) for verb, config in server.written] == [("UPDATE", "AUDIT")]


async def test_one_refused_change_means_that_nothing_is_applied() -> None:
    server = Server(state(TASKS, {"storage": "memory"}))
    with pytest.raises(ConfigurationError, match=r"nothing applied: refuse TASKS: storage memory -> file.* again$"):
        await apply(STREAMS, server)
    assert server.written == []
    server = Server(state(TASKS, {"storage": "memory", "sealed": True}))
    with pytest.raises(ConfigurationError, match=r"\(and 1 more: `sealbus streams plan`\)$"):
        await apply(STREAMS, server)


async def test_the_reason_of_the_server_is_passed_on() -> None:
    server = Server()
    server.refuse = "CREATE"
    with pytest.raises(ConfigurationError, match=r"stream TASKS: the server refused: insufficient storage \(10047\)"):
        await apply(STREAMS, server)


async def test_a_server_that_does_not_answer_is_not_waited_for() -> None:
    server = Server()
    server.hang = "CREATE"
    with pytest.raises(BusUnavailable, match=r"streams not applied: .* within 0.05 s"):
        await apply(STREAMS, server, deadline=0.05)
    server.hang = "LIST"
    with pytest.raises(BusUnavailable, match=r"streams not read: .* within 0.05 s"):
        await read_streams(tuple(SUBJECTS), server, deadline=0.05)
