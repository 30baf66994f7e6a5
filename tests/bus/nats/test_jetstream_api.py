from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

import pytest

from sealbus.bus.nats.api import (
    ConsumerState,
    StreamState,
    api,
    api_errors,
    consumer_states,
    create_stream,
    existing_stream,
    parse_time,
    stream_state,
    stream_states,
    update_stream,
)
from sealbus.bus.ports import Request, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

INFO = "STREAM.INFO.TASKS"

GOOD = {
    "config": {"name": "TASKS", "subjects": ["task.>"]},
    "created": "2026-11-24T16:42:57.975307669Z",
    "state": {"messages": 3, "bytes": 42},
}


def only(stream: object, **more: object) -> dict[str, object]:
    """A list that holds this one stream."""
    return {"total": 1, "offset": 0, "limit": 256, "streams": [stream], **more}


class Server:
    """Answers every request with the same bytes and keeps what it was asked."""

    def __init__(self, answer: object) -> None:
        self.answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.asked: list[tuple[str, bytes]] = []

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        self.asked.append((subject, payload))
        return self.answer


async def test_a_listed_stream_is_read_into_a_state() -> None:
    server = Server(only(GOOD))
    state = await stream_state(server, "TASKS")
    assert state == StreamState(
        name="TASKS",
        config={"name": "TASKS", "subjects": ["task.>"]},
        created=1_795_538_577_975_307,
        messages=3,
        bytes=42,
    )
    # Not by STREAM.INFO, whose permission would be that to ask for every subject of the stream.
    assert server.asked == [("$JS.API.STREAM.LIST", b"")]


@pytest.mark.parametrize(
    ("told", "found"),
    [({"first_seq": 7, "last_seq": 9}, (7, 9)), ({"first_seq": 0, "last_seq": 0}, (1, 0)), ({}, (1, 0))],
)
async def test_what_a_stream_holds_is_from_its_first_to_its_last(told: dict[str, int], found: tuple[int, int]) -> None:
    state = await stream_state(Server(only({**GOOD, "state": {"messages": 3, "bytes": 42, **told}})), "TASKS")
    assert state is not None
    assert (state.first, state.last) == found


async def test_a_stream_is_found_on_a_further_page() -> None:
    asked = []

    async def server(subject: str, payload: bytes) -> bytes:
        asked.append(json.loads(payload or b"{}"))
        offset = asked[-1].get("offset", 0)
        page = [{"config": {"name": f"S{number}"}} for number in range(offset, min(offset + 2, 4))]
        return json.dumps({"total": 5, "streams": page or [GOOD]}).encode()

    found = await stream_state(server, "TASKS")
    assert found is not None
    assert found.messages == 3
    assert asked == [{}, {"offset": 2}, {"offset": 4}]
    assert await stream_state(Server({"total": 9, "streams": []}), "TASKS") is None


async def test_only_the_streams_of_a_subject_are_asked_for_on_every_page() -> None:
    asked = []

    async def server(subject: str, payload: bytes) -> bytes:
        asked.append(json.loads(payload))
        streams = [GOOD] if "offset" in asked[-1] else [{"config": {"name": "OTHER"}}]
        return json.dumps({"total": 2, "streams": streams}).encode()

    assert (await existing_stream(server, "TASKS", subject="task.>")).messages == 3
    assert asked == [{"subject": "task.>"}, {"subject": "task.>", "offset": 1}]


async def test_a_stream_whose_servers_do_not_answer_is_not_said_to_be_gone() -> None:
    with pytest.raises(BusUnavailable, match="stream TASKS: none of its servers answers"):
        await stream_state(Server({"total": 0, "streams": None, "missing": ["TASKS"]}), "TASKS")
    assert await stream_state(Server({"total": 0, "streams": None, "missing": ["OTHER"]}), "TASKS") is None


async def test_a_stream_that_is_not_there_is_none() -> None:
    missing = {"total": 0, "streams": None}
    assert await stream_state(Server(missing), "TASKS") is None
    with pytest.raises(ConfigurationError, match="stream TASKS does not exist; run `sealbus streams apply`"):
        await existing_stream(Server(missing), "TASKS")


async def test_who_reads_a_stream_learns_where_it_ends() -> None:
    with_last = GOOD | {"state": {"messages": 3, "bytes": 42, "last_seq": 17}}
    assert (await existing_stream(Server(only(with_last)), "TASKS")).last == 17


async def test_the_time_of_an_answer_is_the_servers() -> None:
    told = GOOD | {"ts": "2026-11-24T16:42:58.5Z"}
    assert (await existing_stream(Server(only(told)), "TASKS")).answered == 1_795_538_578_500_000
    assert (await existing_stream(Server(only(GOOD)), "TASKS")).answered == 0


@pytest.mark.parametrize("name", ["", "A.B", "*", "A B", "A>"])
async def test_what_cannot_be_a_name_is_not_asked_about(name: str) -> None:
    server = Server(GOOD)
    with pytest.raises(ConfigurationError):
        await existing_stream(server, name)
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        ({"error": {"code": 503, "description": "no"}}, r"cannot tell: no \(503\)"),
        ({"error": {"err_code": "x"}}, r"no reason given \(0\)"),
        ({"error": "x"}, r"no reason given \(0\)"),
        ({}, "not a list of streams"),
        ({"total": 1, "streams": ""}, "not a list of streams"),
        ({"total": 1, "streams": {}}, "not a list of streams"),
        ({"total": 1, "streams": "TASKS"}, "not a list of streams"),
        ({"total": None, "streams": []}, "not a list of streams"),
        ({"total": 0, "streams": [], "missing": "TASKS"}, "not a list of streams"),
        (only(GOOD | {"created": 5}), "no config"),
        (only(GOOD | {"state": None}), "no config"),
        (only(GOOD | {"state": {"messages": 1}}), "no counts"),
        (only(GOOD | {"state": {"bytes": 1}}), "no counts"),
        (only(GOOD | {"created": "yesterday"}), "a malformed time"),
        (only(GOOD | {"ts": "now"}), "a malformed time"),
    ],
)
async def test_an_answer_that_says_nothing_is_no_answer(answer: object, text: str) -> None:
    with pytest.raises(BusUnavailable, match=text):
        await stream_state(Server(answer), "TASKS")


@pytest.mark.parametrize("other", [5, {}, {"config": []}, {"config": {"name": ["TASKS"]}}])
async def test_what_is_listed_under_no_name_is_passed_over(other: object) -> None:
    found = await stream_state(Server({"total": 2, "streams": [other, GOOD]}), "TASKS")
    assert found is not None


async def test_streams_are_written_under_their_name() -> None:
    server = Server(GOOD)
    config = {"name": "TASKS", "subjects": ["task.>"], "metadata": {"owner": "ops"}}
    assert (await create_stream(server, config)).messages == 3
    # What the server wrote there itself is not sent back.
    told = {**config, "metadata": {"owner": "ops", "_nats.ver": "2.15.1"}}
    assert (await update_stream(server, told)).name == "TASKS"
    assert [(subject, json.loads(payload)) for subject, payload in server.asked] == [
        ("$JS.API.STREAM.CREATE.TASKS", config),
        ("$JS.API.STREAM.UPDATE.TASKS", config),
    ]


async def test_a_refused_write_gives_the_reason_of_the_server() -> None:
    server = Server({"error": {"code": 500, "err_code": 10052, "description": "can not change storage type"}})
    with pytest.raises(ConfigurationError, match=r"stream TASKS: .*: can not change storage type \(10052\)"):
        await update_stream(server, {"name": "TASKS"})


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01T00:00:00.000001999Z", 1),
        ("2026-11-24T17:00:00+01:00", 1_795_536_000_000_000),
        ("2026-11-24T10:30:00-05:30", 1_795_536_000_000_000),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
    ],
)
def test_times_become_microseconds(text: str, micros: int) -> None:
    assert parse_time(text) == micros


@pytest.mark.parametrize(
    "text", ["", "2026-11-24", "2026-11-24T17:00:00", "2026-13-24T17:00:00Z", "x2026-11-24T17:00:00Z"]
)
def test_other_texts_are_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|month"):
        parse_time(text)


async def test_an_answer_is_a_json_object() -> None:
    assert await api(Server(b'{"config":{}}'), INFO) == {"config": {}}
    assert await api(Server(b'{"error":null}'), INFO) == {"error": None}
    for junk in (b"", b"[1]", b"7", b"\xff", b"{"):
        with pytest.raises(BusUnavailable, match="the answer is not"):
            await api(Server(junk), INFO)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (b'{"code":404,"err_code":10059,"description":"stream not found"}', 10059),
        (b'{"code":503}', 503),
        (b"{}", 0),
        (b'{"err_code":"x"}', 0),
        (b'"a text"', 0),
    ],
)
async def test_an_error_in_the_answer_is_a_refusal_with_its_code(error: bytes, code: int) -> None:
    with pytest.raises(StreamRefused) as raised:
        await api(Server(b'{"error":%b}' % error), INFO)
    assert raised.value.err_code == code


DURABLE = {
    "stream_name": "TASKS",
    "name": "shop",
    "config": {"durable_name": "shop", "filter_subject": "task.shop.>", "max_ack_pending": 8_192},
    "delivered": {"consumer_seq": 5, "stream_seq": 9, "last_active": "2026-11-24T16:42:57.975307669Z"},
    "num_pending": 7,
    "num_ack_pending": 2,
    "num_redelivered": 1,
    "num_waiting": 3,
}
READER = {**DURABLE, "name": "read-1", "config": {"filter_subject": "task.>"}}


def consumers(*listed: object, total: int | None = None) -> dict[str, object]:
    return {"total": len(listed) if total is None else total, "offset": 0, "limit": 256, "consumers": listed}


async def test_durable_consumers_are_read_and_those_of_readers_are_not() -> None:
    server = Server(consumers(DURABLE, READER))
    assert await consumer_states(server, "TASKS") == [
        ConsumerState(
            name="shop",
            subjects=frozenset({"task.shop.>"}),
            pending=7,
            unacknowledged=2,
            redelivered=1,
            pulls=3,
            max_unacknowledged=8_192,
            active=1_795_538_577_975_307,
        )
    ]
    assert server.asked == [("$JS.API.CONSUMER.LIST.TASKS", b"")]
    never = {**DURABLE, "delivered": {"consumer_seq": 0, "stream_seq": 0}}
    assert [one.active for one in await consumer_states(Server(consumers(never)), "TASKS")] == [0]
    assert await consumer_states(Server(consumers()), "TASKS") == []


async def test_errors_of_the_account_are_read_and_an_answer_without_them_is_none() -> None:
    server = Server({"memory": 0, "api": {"total": 9, "errors": 2}})
    assert await api_errors(server) == 2
    assert server.asked == [("$JS.API.INFO", b"")]
    wrong: list[object] = [{}, {"api": []}, {"api": {}}, {"api": {"errors": "2"}}, {"error": {"code": 503}}]
    for answer in wrong:
        with pytest.raises(BusUnavailable):
            await api_errors(Server(answer))


async def test_consumers_on_further_pages_are_read_and_a_server_that_promises_more_ends_it() -> None:
    asked = []

    async def server(subject: str, payload: bytes) -> bytes:
        asked.append(payload)
        return json.dumps(consumers(*([DURABLE] if len(asked) < 3 else []), total=9)).encode()

    assert len(await consumer_states(server, "TASKS")) == 2
    assert asked == [b"", b'{"offset": 1}', b'{"offset": 2}']


async def test_consumers_whose_servers_are_away_are_passed_over_and_no_other_is_read_twice() -> None:
    """As nats-server 2.15.1 answers: a page begins after as many consumers, of which some were missing."""
    names, away = [f"c{number}" for number in range(9)], {"c0", "c2", "c6"}

    async def server(subject: str, payload: bytes) -> bytes:
        page = names[json.loads(payload or b"{}").get("offset", 0) :][:4]
        listed = [{**DURABLE, "config": {"durable_name": name}} for name in page if name not in away]
        missing = [name for name in page if name in away]
        return json.dumps({**consumers(*listed, total=9), "missing": missing}).encode()

    found = [one.name for one in await consumer_states(server, "TASKS")]
    assert found == [name for name in names if name not in away]


async def test_streams_whose_servers_are_away_are_passed_over_and_no_other_is_read_twice() -> None:
    names, away = ["A", "B", "C", "D", "E"], {"A", "D"}

    async def server(subject: str, payload: bytes) -> bytes:
        page = names[json.loads(payload or b"{}").get("offset", 0) :][:2]
        listed = [{**GOOD, "config": {"name": name}} for name in page if name not in away]
        missing = [name for name in page if name in away]
        return json.dumps({"total": 5, "streams": listed, "missing": missing}).encode()

    assert [one.name for one in await stream_states(server)] == ["B", "C", "E"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {**consumers(), "total": "1"},
        {**consumers(), "missing": "shop"},
        consumers(7),
        consumers({}),
        consumers({**DURABLE, "config": None}),
        consumers({**DURABLE, "delivered": 7}),
        consumers({**DURABLE, "num_waiting": "3"}),
        consumers({**DURABLE, "delivered": {"last_active": "yesterday"}}),
    ],
)
async def test_another_answer_about_consumers_is_the_servers_fault(answer: dict[str, object]) -> None:
    with pytest.raises(BusUnavailable):
        await consumer_states(Server(answer), "TASKS")


@pytest.mark.parametrize("write", [create_stream, update_stream])
async def test_an_account_that_allows_fewer_consumers_keeps_its_limit_and_the_rest_is_written(
    write: Callable[[Request, Mapping[str, object]], Awaitable[StreamState]], caplog: pytest.LogCaptureFixture
) -> None:
    written: list[dict[str, object]] = []
    standing = {**GOOD, "config": {"name": "TASKS", "max_consumers": 500}}
    over = {"error": {"err_code": 10_026, "description": "maximum consumers limit reached"}}

    async def server(subject: str, payload: bytes) -> bytes:
        if "LIST" in subject:
            return json.dumps(only(standing)).encode()
        written.append(json.loads(payload))
        return json.dumps(over if written[-1]["max_consumers"] == 10_000 else GOOD).encode()

    config = {"name": "TASKS", "subjects": ["task.>"]}
    assert (await write(server, config | {"max_consumers": 10_000})).name == "TASKS"
    kept = 500 if write is update_stream else -1
    assert written == [config | {"max_consumers": 10_000}, config | {"max_consumers": kept}]
    assert "the account allows fewer than 10000 consumers" in caplog.text


async def test_a_limit_that_was_not_asked_for_is_a_refusal() -> None:
    server = Server({"error": {"err_code": 10_026, "description": "maximum consumers limit reached"}})
    for config in ({"name": "TASKS"}, {"name": "TASKS", "max_consumers": -1}):
        with pytest.raises(ConfigurationError, match="10026"):
            await create_stream(server, config)
    assert len(server.asked) == 2
