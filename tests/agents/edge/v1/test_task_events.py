from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from support.edge import Door, door
from support.engines import ScriptedEngine
from support.shop import Shop

from sealbus import Agent, Context
from sealbus.agents.edge.event_streams import COMMENT, OpenStreams
from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.task_routes import TaskEvents, Tasks
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.policies.bundle.revocations import Revocations


def _agent(gate: asyncio.Event) -> Agent:
    agent = Agent("absent")

    @agent.task("work")
    async def work(body: dict[str, int], ctx: Context) -> int:
        await ctx.progress("begun")
        await gate.wait()
        return body["n"]

    return agent


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def edge(gate: asyncio.Event) -> AsyncIterator[Door]:
    limits = {"event_pause_seconds": 0.05, "event_streams_of_user": 1}
    async with door(_agent(gate), engine=ScriptedEngine(), limits=limits) as running:
        yield running
        gate.set()


async def _submitted(edge: Door) -> str:
    answer = await edge.post("/v1/tasks/absent/work", {"n": 1})
    return f"{answer.json()['status_url']}/events"


async def _events(lines: AsyncIterator[str]) -> list[tuple[int, dict[str, object]]]:
    found, number = [], 0
    async for line in lines:
        if line.startswith("id: "):
            number = int(line[4:])
        if line.startswith("data: "):
            found.append((number, json.loads(line[6:])))
    return found


async def test_states_come_as_they_are_made_and_the_last_one_ends_the_stream(edge: Door, gate: asyncio.Event) -> None:
    url = await _submitted(edge)
    async with edge.http.stream("GET", url, headers=edge.authorized()) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        told = [line async for line in _until(lines, "data: ")]
        assert json.loads(told[-1][6:])["state"] == "working"
        # A silence is filled with comments.
        comments = [line async for line in _until(lines, ":")]
        assert comments[-1] == ":"
        gate.set()
        rest = await _events(lines)
    assert [one["state"] for _, one in rest] == ["completed"]
    assert rest[0][1]["result_url"] == url.replace("/events", "/result")


async def _until(lines: AsyncIterator[str], start: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line.startswith(start):
            return


async def test_last_event_id_leaves_out_what_was_seen(edge: Door, gate: asyncio.Event) -> None:
    url = await _submitted(edge)
    gate.set()
    async with edge.http.stream("GET", url, headers=edge.authorized()) as stream:
        (first, _), (last, _) = await _events(stream.aiter_lines())
    headers = {**edge.authorized(), "Last-Event-ID": str(first)}
    async with edge.http.stream("GET", url, headers=headers) as stream:
        assert [number for number, _ in await _events(stream.aiter_lines())] == [last]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 16])
async def test_a_last_event_id_of_no_event_is_refused(edge: Door, number: str) -> None:
    answer = await edge.get(await _submitted(edge), headers={"Last-Event-ID": number})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


async def test_who_leaves_before_the_first_line_was_sent_leaves_nothing_behind(edge: Door, gate: asyncio.Event) -> None:
    url = await _submitted(edge)
    front = edge.edge.front
    scope = {
        "type": "http",
        "method": "GET",
        "path": url,
        "path_params": {"task": url.split("/")[3]},
        "headers": [(b"authorization", edge.authorized()["Authorization"].encode())],
        REQUEST_ID: bytes(16),
    }

    answer = await TaskEvents(front, Tasks(front), OpenStreams(front.limits)).follow(Request(scope))
    assert isinstance(answer, StreamingResponse)
    before = asyncio.all_tasks()
    events = answer.body_iterator
    assert isinstance(events, AsyncGenerator)
    assert await anext(events) == COMMENT
    await events.aclose()
    waiting = [one.get_coro() for one in asyncio.all_tasks() - before]
    assert [one for one in waiting if "wait" in str(one)] == []


async def test_one_user_has_so_many_streams_and_leaving_one_makes_room(edge: Door, gate: asyncio.Event) -> None:
    url = await _submitted(edge)
    async with edge.http.stream("GET", url, headers=edge.authorized()) as stream:
        async for line in stream.aiter_lines():
            assert line == ":"
            break
        held = await edge.get(url)
        assert (held.status_code, held.json()["code"]) == (429, "rate_limited")
    gate.set()
    async with asyncio.timeout(60):
        while (await edge.get(url)).status_code == 429:  # noqa: ASYNC110  the server tells nobody that a stream ended
            await asyncio.sleep(0)


async def test_streams_that_are_asked_for_at_once_are_no_more_than_allowed(
    edge: Door, gate: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await _submitted(edge)
    found, together, looked = Tasks.requested_task, asyncio.Event(), 0

    async def at_once(self: Tasks, request: Request) -> tuple[AccessToken, TaskHandle]:
        nonlocal looked
        answer = await found(self, request)
        looked += 1
        if looked == 8:
            together.set()
        await together.wait()
        return answer

    monkeypatch.setattr(Tasks, "requested_task", at_once)
    fields = edge.authorized()
    statuses: list[int] = []
    all_began = asyncio.Event()

    async def follow() -> None:
        async with edge.http.stream("GET", url, headers=fields) as stream:
            statuses.append(stream.status_code)
            if len(statuses) == 8:
                all_began.set()
            await all_began.wait()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(follow())
    assert sorted(statuses) == [200, *[429] * 7]
    gate.set()


async def test_who_is_revoked_is_told_nothing_more(edge: Door, gate: asyncio.Event) -> None:
    url = await _submitted(edge)
    async with asyncio.timeout(60), edge.http.stream("GET", url, headers=edge.authorized(sid="s-1")) as stream:
        lines = stream.aiter_lines()
        assert json.loads([line async for line in _until(lines, "data: ")][-1][6:])["state"] == "working"
        revoked = Revocations(sessions=frozenset({(edge.issuer.issuer, "s-1")}))
        edge.edge.front.node.revocations = lambda: revoked
        gate.set()
        [(_, told)] = await _events(lines)
    assert (told["code"], "result_url" in told) == ("revoked", False)


@pytest.mark.slow
async def test_a_stream_ends_with_its_token(edge: Door) -> None:
    url = await _submitted(edge)
    async with (
        asyncio.timeout(60),
        edge.http.stream("GET", url, headers=edge.authorized(life=5)) as stream,
    ):
        assert {one["state"] for _, one in await _events(stream.aiter_lines())} == {"working"}


async def test_open_streams_end_when_the_edge_stops() -> None:
    gate = asyncio.Event()
    async with door(_agent(gate), engine=ScriptedEngine()) as edge:
        url = await _submitted(edge)
        async with edge.http.stream("GET", url, headers=edge.authorized()) as stream:
            lines = stream.aiter_lines()
            assert (await anext(lines)) == ":"
            edge.edge.front.stopping.set()
            assert all("completed" not in line for line in [line async for line in lines])
        gate.set()


async def test_a_failed_task_ends_the_stream_with_its_code() -> None:
    shop = Shop()
    async with door(shop.inventory, engine=ScriptedEngine()) as edge:
        answer = await edge.post("/v1/tasks/inventory/hang", {"item_id": "42"})
        url = f"{answer.json()['status_url']}/events"
        async with edge.http.stream("GET", url, headers=edge.authorized()) as stream:
            events = await _events(stream.aiter_lines())
        result = await edge.get(url.replace("/events", "/result"))
    assert (events[-1][1]["state"], events[-1][1]["code"]) == ("failed", "handler_timeout")
    assert (result.status_code, result.json()["code"]) == (504, "handler_timeout")
