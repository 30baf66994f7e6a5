"""Answers in parts over HTTP: the chunks of a call and the parts of a task as events, in order, with resume and cancel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from support.edge import Door, door
from support.engines import ScriptedEngine, allow, deny
from support.lab import until

from sealbus import Agent, Context


@dataclass
class Writer:
    """An agent whose task and calls answer in parts; each waits for `leave` after its second part."""

    canceled: int = 0
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("inventory")

        @self.agent.call("tell", chunks=True, timeout=50.0)
        async def tell(body: dict[str, int], ctx: Context) -> AsyncIterator[dict[str, int]]:
            async for number in self.numbers(body):
                yield {"n": number}

        @self.agent.call("octets", chunks=True)
        async def octets(body: dict[str, int], ctx: Context) -> AsyncIterator[bytes]:
            yield b"\x00"

        @self.agent.call("wait", timeout=50.0)
        async def wait(body: dict[str, int], ctx: Context) -> str:
            self.asked.set()
            try:
                await self.leave.wait()
            except asyncio.CancelledError:
                self.canceled += 1
                raise
            return "one"

        @self.agent.call("one")
        async def one(body: dict[str, int], ctx: Context) -> str:
            return "one"

        @self.agent.task("write", retry=0)
        async def write(body: dict[str, int], ctx: Context) -> AsyncIterator[dict[str, int]]:
            async for number in self.numbers(body):
                yield {"n": number}

        @self.agent.task("scan", retry=0)
        async def scan(body: dict[str, int], ctx: Context) -> AsyncIterator[bytes]:
            yield b"\x00"

    async def numbers(self, body: dict[str, int]) -> AsyncIterator[int]:
        try:
            for number in range(body.get("parts", 3)):
                if number == 2:
                    await self.leave.wait()
                    if body.get("fails"):
                        raise ValueError
                yield number
        except asyncio.CancelledError:
            self.canceled += 1
            raise


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def edge(writer: Writer, engine: ScriptedEngine) -> AsyncIterator[Door]:
    async with door(writer.agent, engine=engine, limits={"call_seconds": 30.0}) as running:
        yield running
        writer.leave.set()


Event = tuple[str, str, dict[str, Any]]


async def events(answer: httpx2.Response) -> AsyncIterator[Event]:
    """Yield each event of a stream as it comes: its name, its id and its data."""
    name = number = ""
    async for line in answer.aiter_lines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "id":
            number = value
        elif key == "data":
            yield name, number, json.loads(value)
            name = number = ""


@asynccontextmanager
async def called(edge: Door, verb: str, body: dict[str, int], accept: str = "text/event-stream") -> AsyncIterator[Any]:
    headers = {"Content-Type": "application/json", "Accept": accept, **edge.authorized()}
    content = json.dumps(body).encode()
    async with edge.http.stream("POST", f"/v1/calls/inventory/{verb}", content=content, headers=headers) as answer:
        yield answer


async def test_the_chunks_of_a_call_are_events_as_they_come(edge: Door, writer: Writer) -> None:
    async with called(edge, "tell", {}, "text/html, text/event-stream;q=0.9") as answer:
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        found = events(answer)
        assert await anext(found) == ("part", "", {"number": 0, "value": {"n": 0}})
        assert await anext(found) == ("part", "", {"number": 1, "value": {"n": 1}})
        writer.leave.set()
        assert [one async for one in found] == [
            ("part", "", {"number": 2, "value": {"n": 2}}),
            ("end", "", {"parts": 3}),
        ]


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("octets", {}, [("part", "", {"number": 0, "type": "application/octet-stream", "base64": "AA=="})]),
        ("one", {}, [("part", "", {"number": 0, "value": "one"})]),
        ("tell", {"parts": 0}, []),
    ],
)
async def test_bytes_one_answer_and_none(edge: Door, verb: str, body: dict[str, int], expected: list[Event]) -> None:
    async with called(edge, verb, body) as answer:
        assert [one async for one in events(answer)] == [*expected, ("end", "", {"parts": len(expected)})]


async def test_a_failure_after_the_first_chunk_is_an_event(edge: Door, writer: Writer) -> None:
    writer.leave.set()
    async with called(edge, "tell", {"fails": 1}) as answer:
        *_, (name, _, problem) = [one async for one in events(answer)]
    assert (name, problem["code"], problem["status"]) == ("problem", "handler_failed", 502)


async def test_a_denial_is_one_in_http(edge: Door, engine: ScriptedEngine) -> None:
    engine.verdict = lambda asked: deny("no") if asked["action"]["name"] == "inventory.tell" else allow()
    async with called(edge, "tell", {}) as answer:
        assert (answer.status_code, json.loads(await answer.aread())["code"]) == (403, "denied")


async def test_who_does_not_take_events_gets_none(edge: Door, writer: Writer) -> None:
    async with called(edge, "tell", {}, "application/json") as answer:
        assert (answer.status_code, json.loads(await answer.aread())["code"]) == (406, "not_acceptable")


async def test_whoever_leaves_early_cancels_the_call(edge: Door, writer: Writer) -> None:
    async with called(edge, "tell", {}) as answer:
        await anext(events(answer))
    await until(lambda: writer.canceled == 1)
    assert len([one for one in edge.bus.stored("TASKS") if one.subject == "control.inventory.cancel"]) == 1


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_whoever_leaves_before_anything_comes_cancels_the_call(edge: Door, writer: Writer, accept: str) -> None:
    asking = asyncio.create_task(
        edge.post("/v1/calls/inventory/wait", {}, headers={**edge.authorized(), "Accept": accept})
    )
    await writer.asked.wait()
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: writer.canceled == 1)


async def test_streams_of_calls_are_bounded_as_those_of_tasks(writer: Writer, engine: ScriptedEngine) -> None:
    async with door(writer.agent, engine=engine, limits={"event_streams_of_user": 1}) as edge:
        async with called(edge, "tell", {}) as first:
            assert first.status_code == 200
            async with called(edge, "tell", {}) as second:
                assert second.status_code == 429
        writer.leave.set()


async def follow_task(edge: Door, url: str, after: str = "") -> list[Event]:
    headers = {**edge.authorized(), **({"Last-Event-ID": after} if after else {})}
    async with edge.http.stream("GET", f"{url}/events", headers=headers) as answer:
        return [one async for one in events(answer)]


async def test_the_parts_of_a_task_are_events_that_one_can_come_back_to(edge: Door, writer: Writer) -> None:
    url = (await edge.post("/v1/tasks/inventory/write", {})).json()["status_url"]
    async with edge.http.stream("GET", f"{url}/events", headers=edge.authorized()) as answer:
        found = events(answer)
        first = await anext(found)
        assert (first[0], first[2]) == ("part", {"number": 0, "value": {"n": 0}})
    status = (await edge.get(f"{url}/result")).status_code
    assert status == 202
    writer.leave.set()
    rest = await follow_task(edge, url, first[1])
    assert [(name, data.get("value")) for name, _, data in rest[:-1]] == [("part", {"n": 1}), ("part", {"n": 2})]
    assert (rest[-1][0], rest[-1][2]["state"]) == ("status", "completed")
    # Leaving the stream of a task cancels nothing.
    assert writer.canceled == 0
    whole = await follow_task(edge, url)
    assert [data["number"] for name, _, data in whole if name == "part"] == [0, 1, 2]
    result = await edge.get(f"{url}/result")
    assert (result.status_code, result.json()) == (200, [{"n": 0}, {"n": 1}, {"n": 2}])


async def test_parts_that_are_no_json_have_their_type_and_no_json_result(edge: Door) -> None:
    url = (await edge.post("/v1/tasks/inventory/scan", {})).json()["status_url"]
    [(_, _, part), (_, _, last)] = await follow_task(edge, url)
    assert (part["base64"], last["state"]) == ("AA==", "completed")
    result = await edge.get(f"{url}/result")
    assert (result.status_code, result.json()["code"]) == (502, "bad_result")


async def test_a_missing_part_ends_the_stream_with_a_problem(edge: Door, writer: Writer) -> None:
    writer.leave.set()
    url = (await edge.post("/v1/tasks/inventory/write", {})).json()["status_url"]
    await follow_task(edge, url)
    stream = edge.bus.broker.streams["RESULTS"]
    with suppress(StopIteration):
        stream.remove(next(one.sequence for one in stream.stored if b'{"n":1}' in one.payload))
    found = await follow_task(edge, url)
    assert [name for name, _, _ in found] == ["part", "problem"]
    assert found[-1][2]["code"] == "bad_result"
    assert (await edge.get(f"{url}/result")).status_code == 502
