"""Streams as code against a real nats-server: what is applied passes the check, and each hostile variation does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from support.nats_server import NatsServer, User
from support.raw_nats import RawNats
from support.x509 import ThrowawayCa

from sealbus.bus.ports import JsonObject
from sealbus.bus.streams.check import FORBIDDEN, check_streams, violations
from sealbus.bus.streams.declared import declared_streams, stream_named
from sealbus.bus.streams.plan import Create, Refuse, Update, apply, plan, read_streams
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import SECOND

pytestmark = pytest.mark.nats

OPERATOR = "spiffe://example.org/agent/operator"
STREAMS = declared_streams({"TASKS": 8 * 1_048_576, "AUDIT": 8 * 1_048_576})
NANO = 1_000_000_000


@pytest_asyncio.fixture
async def operator(tmp_path: Path) -> AsyncIterator[RawNats]:
    ca = ThrowawayCa("example.org")
    async with (
        NatsServer(tmp_path / "nats", ca, [User(id=OPERATOR)]) as server,
        RawNats(server.port, ca, ca.issue(OPERATOR), tmp_path) as client,
    ):
        yield client


async def publish(client: RawNats, subject: str, message_id: str) -> JsonObject:
    """Publish one message with `message_id` and return the PubAck."""
    block = f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\n\r\n".encode()
    return cast("JsonObject", json.loads(await client.request(subject, b"x", block=block)))


async def test_what_is_applied_passes_the_check_and_is_applied_once(operator: RawNats) -> None:
    assert await apply(STREAMS, operator.request) == [Create(stream=stream) for stream in STREAMS]
    states = await check_streams(STREAMS, operator.request)
    assert tuple(states) == tuple(stream.name for stream in STREAMS)
    assert all(abs(state.created - states["TASKS"].created) < 10 * SECOND for state in states.values())
    assert await apply(STREAMS, operator.request) == []


async def test_a_changed_declaration_is_applied_in_place_and_keeps_the_messages(operator: RawNats) -> None:
    await apply(STREAMS, operator.request)
    assert (await publish(operator, "task.a.b", "1"))["seq"] == 1
    larger = declared_streams({"TASKS": 16 * 1_048_576, "AUDIT": 8 * 1_048_576})
    assert [str(change) for change in await apply(larger, operator.request)] == [
        "update TASKS: max_bytes 8388608 -> 16777216"
    ]
    state = (await check_streams(larger, operator.request))["TASKS"]
    assert (state.config["max_bytes"], state.messages) == (16 * 1_048_576, 1)


async def test_more_consumers_than_the_servers_own_limit_once_applied(operator: RawNats) -> None:
    await apply(STREAMS, operator.request)
    config = stream_named(STREAMS, "TASKS").config()
    # As it was declared before, which is the server's default.
    await operator.request("$JS.API.STREAM.UPDATE.TASKS", json.dumps(config | {"max_consumers": -1}).encode())

    async def add(name: str) -> object:
        made = {"name": name, "ack_policy": "none", "mem_storage": True, "inactive_threshold": 3_600 * NANO}
        body = json.dumps({"stream_name": "TASKS", "config": made}).encode()
        answer = json.loads(await operator.request(f"$JS.API.CONSUMER.CREATE.TASKS.{name}", body))
        return answer.get("error", {}).get("err_code")

    assert {await add(f"c{number}") for number in range(1_000)} == {None}
    assert await add("more") == 10_026
    assert [str(change) for change in await apply(STREAMS, operator.request)] == [
        "update TASKS: max_consumers -1 -> 10000"
    ]
    assert await add("more") is None
    assert await apply(STREAMS, operator.request) == []


async def test_a_full_stream_refuses_and_the_window_holds_across_subjects(operator: RawNats) -> None:
    small = declared_streams({"TASKS": 4_000, "AUDIT": 4_000})
    await apply(small, operator.request)
    await publish(operator, "task.a.b", "1")
    assert (await publish(operator, "task.c.d", "1"))["duplicate"] is True
    answers = [await publish(operator, "audit.a", str(number)) for number in range(100)]
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert errors
    assert cast("Mapping[str, object]", errors[0])["err_code"] == 10_077


HOSTILE: list[tuple[str, dict[str, object], str]] = [
    ("TASKS", {"retention": "workqueue"}, "retention"),
    ("TASKS", {"retention": "interest"}, "retention"),
    ("TASKS", {"discard": "old"}, "discard"),
    ("TASKS", {"storage": "memory"}, "storage"),
    ("TASKS", {"persist_mode": "async"}, "persist_mode"),
    ("TASKS", {"max_age": 3_600 * NANO}, "max_age"),
    ("TASKS", {"duplicate_window": 5 * NANO}, "duplicate_window"),
    ("TASKS", {"max_msgs_per_subject": 1}, "max_msgs_per_subject"),
    ("TASKS", {"discard_new_per_subject": True, "max_msgs_per_subject": 9}, "discard_new_per_subject"),
    ("TASKS", {"subjects": ["task.inventory.>"]}, "subjects"),
    ("TASKS", {"sources": [{"name": "ELSEWHERE"}]}, "sources"),
    ("TASKS", {"mirror": {"name": "ELSEWHERE"}, "subjects": None}, "mirror"),
    ("TASKS", {"subject_transform": {"src": "task.a.>", "dest": "task.b.>"}}, "subject_transform"),
    ("TASKS", {"republish": {"src": "task.>", "dest": "open.>"}}, "republish"),
    ("TASKS", {"allow_rollup_hdrs": True, "deny_purge": False}, "allow_rollup_hdrs"),
    ("TASKS", {"allow_msg_ttl": True}, "allow_msg_ttl"),
    ("TASKS", {"allow_msg_ttl": True, "subject_delete_marker_ttl": 60 * NANO}, "subject_delete_marker_ttl"),
    ("TASKS", {"allow_msg_schedules": True, "discard": "old"}, "allow_msg_schedules"),
    ("TASKS", {"allow_msg_counter": True, "discard": "old"}, "allow_msg_counter"),
    ("TASKS", {"allow_batched": True}, "allow_batched"),
    ("TASKS", {"no_ack": True}, "no_ack"),
    ("TASKS", {"deny_delete": False}, "deny_delete"),
    ("TASKS", {"deny_purge": False}, "deny_purge"),
    ("EVENTS", {"deny_purge": False}, "deny_purge"),
    ("AUDIT", {"max_age": 365 * 86_400 * NANO}, "max_age"),
    ("AUDIT", {"deny_delete": False}, "deny_delete"),
    ("AUDIT", {"deny_purge": False}, "deny_purge"),
    ("AUDIT", {"duplicate_window": 60 * NANO}, "duplicate_window"),
    ("AUDIT", {"discard": "old"}, "discard"),
    ("HELD", {"max_age": 86_700 * NANO}, "max_age"),
    ("HELD", {"max_msgs_per_subject": 1}, "max_msgs_per_subject"),
    ("HELD", {"deny_delete": False}, "deny_delete"),
    ("HELD", {"deny_purge": False}, "deny_purge"),
    ("HELD", {"discard": "old"}, "discard"),
    ("RESULTS", {"retention": "workqueue"}, "retention"),
    ("RESULTS", {"allow_msg_schedules": True, "discard": "old"}, "allow_msg_schedules"),
    ("DEAD", {"allow_msg_counter": True}, "allow_msg_counter"),
]


@pytest.mark.parametrize(("name", "changes", "field"), HOSTILE)
async def test_each_hostile_variation_is_refused_and_planned(
    operator: RawNats, name: str, changes: dict[str, object], field: str
) -> None:
    stream = stream_named(STREAMS, name)
    config = {key: value for key, value in {**stream.config(), **changes}.items() if value is not None}
    answer = await operator.ask(f"$JS.API.STREAM.CREATE.{name}", config)
    assert "error" not in answer, answer
    with pytest.raises(ConfigurationError, match=f"stream {name}: .* is .*; run `sealbus streams plan`$"):
        await check_streams([stream], operator.request)

    states = await read_streams([name], operator.request)
    state = states[name]
    assert state is not None
    assert field in {violation.field for violation in violations(stream, state)}
    changes_needed = plan([stream], states)
    assert changes_needed
    if any(isinstance(change, Refuse) for change in changes_needed):
        with pytest.raises(ConfigurationError, match="nothing applied: refuse"):
            await apply([stream], operator.request)
    else:
        # What the plan calls an update is one that this server really makes.
        assert all(isinstance(change, Update) for change in await apply([stream], operator.request))
        await check_streams([stream], operator.request)
        assert await apply([stream], operator.request) == []


async def test_what_the_plan_calls_impossible_is_refused_by_the_server_or_by_us_on_purpose(operator: RawNats) -> None:
    stream = stream_named(STREAMS, "TASKS")
    for changes in (
        {"storage": "memory"},
        {"persist_mode": "async"},
        {"retention": "workqueue"},
        {"allow_msg_ttl": True},
        {"allow_msg_schedules": True, "discard": "old"},
        {"allow_msg_counter": True, "discard": "old"},
    ):
        await operator.ask("$JS.API.STREAM.CREATE.TASKS", {**stream.config(), **changes})
        refusal = await operator.ask("$JS.API.STREAM.UPDATE.TASKS", stream.config())
        assert cast("Mapping[str, object]", refusal["error"])["err_code"] == 10_052, changes
        await operator.ask("$JS.API.STREAM.DELETE.TASKS")


async def test_an_atomic_batch_keeps_ids_so_that_it_may_stay_allowed(operator: RawNats) -> None:
    stream = stream_named(STREAMS, "TASKS")
    await operator.ask("$JS.API.STREAM.CREATE.TASKS", {**stream.config(), "allow_atomic": True})
    await check_streams([stream], operator.request)

    def block(batch: str, number: int, message_id: str, *, commit: bool) -> bytes:
        lines = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\nNats-Msg-Id: {message_id}\r\n"
        return f"NATS/1.0\r\n{lines}{'Nats-Batch-Commit: 1' + chr(13) + chr(10) if commit else ''}\r\n".encode()

    for batch, ids in (("good", ("1", "2")), ("twice", ("3", "3")), ("again", ("1", "4"))):
        operator.publish("task.a.b", b"x", block=block(batch, 1, ids[0], commit=False))
        answer = json.loads(await operator.request("task.a.b", b"x", block=block(batch, 2, ids[1], commit=True)))
        assert ("error" in answer) is (batch != "good"), answer
    assert (await publish(operator, "task.a.b", "2"))["duplicate"] is True


async def test_no_such_stream_is_told_by_the_check(operator: RawNats) -> None:
    await apply([one for one in STREAMS if one.name != "EVENTS"], operator.request)
    with pytest.raises(ConfigurationError, match="stream EVENTS: does not exist"):
        await check_streams(STREAMS, operator.request)


def test_every_forbidden_setting_is_tried_but_the_one_that_no_new_stream_can_have() -> None:
    assert {field for _, _, field in HOSTILE} >= FORBIDDEN.keys() - {"sealed"}
