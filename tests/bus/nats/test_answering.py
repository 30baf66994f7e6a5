"""Answering requests on a real server: bounded, each on its link, through rotations, and never ended by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import Lab, running, until
from support.nats_server import User

from sealbus.bus.nats import subscription as answering_module
from sealbus.bus.nats.connection.connection import Connection, ask
from sealbus.bus.nats.subscription import Asked, Responder
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats

Answer = Callable[[Asked], Awaitable[bytes | None]]


async def echo(asked: Asked) -> bytes | None:
    return b"re:" + asked.payload


async def request(connection: Connection, payload: bytes, *, seconds: float = 5.0) -> bytes:
    return (await ask(connection.link, "ask.me", payload, deadline=seconds)).payload


async def unanswered(connection: Connection) -> bool:
    try:
        await request(connection, b"x", seconds=0.5)
    except BusUnavailable:
        return True
    return False


@asynccontextmanager
async def answering(
    lab: Lab, answer: Answer = echo, *, concurrency: int = 4, pending: int = 64
) -> AsyncIterator[tuple[Responder, Connection, list[int]]]:
    over: list[int] = []
    async with (
        lab.connection("a") as connection,
        Responder(
            connection,
            "ask.me",
            queue="q",
            answer=answer,
            concurrency=concurrency,
            pending=pending,
            overloaded=lambda: over.append(1),
        ) as serving,
    ):
        yield serving, connection, over


async def test_each_request_is_answered_once_by_one_of_the_group(tmp_path: Path) -> None:
    async with (
        running(tmp_path, "a", "b") as lab,
        answering(lab, pending=512),
        answering(lab, pending=512),
        lab.connection("b") as client,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(request(client, b"%d" % number)) for number in range(200)]
        assert [await task for task in tasks] == [b"re:%d" % number for number in range(200)]


async def test_no_more_are_answered_at_a_time_than_is_said(tmp_path: Path) -> None:
    now, most, go = 0, 0, asyncio.Event()

    async def slow(asked: Asked) -> bytes | None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await go.wait()
        now -= 1
        return asked.payload

    async with (
        running(tmp_path, "a", "b") as lab,
        answering(lab, slow, concurrency=3, pending=5) as (_, _, over),
        lab.connection("b") as client,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(request(client, b"%d" % number)) for number in range(3)]
        await until(lambda: now == 3)
        tasks += [group.create_task(request(client, b"%d" % number)) for number in range(3, 8)]
        lost = [group.create_task(unanswered(client)) for _ in range(4)]
        await until(lambda: len(over) == 4)
        assert most == 3
        gone = await asyncio.gather(*lost)
        assert gone == [True] * 4
        go.set()
        assert sorted([await task for task in tasks]) == [b"%d" % number for number in range(8)]
        assert most == 3


async def test_one_that_fails_or_has_no_answer_ends_nothing(tmp_path: Path) -> None:
    async def picky(asked: Asked) -> bytes | None:
        if asked.payload == b"raise":
            raise ValueError("a secret")
        return None if asked.payload == b"none" else b"fine"

    async with (
        running(tmp_path, "a", "b") as lab,
        answering(lab, picky, concurrency=1),
        lab.connection("b") as client,
    ):
        for payload in (b"raise", b"none"):
            with pytest.raises(BusUnavailable):
                await request(client, payload, seconds=0.1)
        assert await request(client, b"x") == b"fine"


async def test_nothing_is_lost_while_the_connection_is_replaced(tmp_path: Path) -> None:
    async with (
        running(tmp_path, "a", "b") as lab,
        answering(lab) as (_, connection, _),
        lab.connection("b") as client,
    ):
        first = connection.link
        connection.rotate()
        number = 0
        while connection.link is first or first.alive:
            assert await request(client, b"%d" % number) == b"re:%d" % number
            number += 1
        assert number > 0
        assert await request(client, b"last") == b"re:last"


async def test_a_server_that_comes_back_is_answered_again(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as lab, answering(lab) as (_, connection, _):
        await lab.server.kill9()
        await until(lambda: not connection.connected)
        await lab.server.restart()
        await connection.ready(60)
        async with lab.connection("b") as client:
            assert await request(client, b"x") == b"re:x"


async def test_a_refused_subscription_is_told(tmp_path: Path) -> None:
    user = User(id="spiffe://example.org/agent/a", subscribe=("_INBOX.a.>",))
    async with running(tmp_path, user) as lab, answering(lab) as (serving, _, _):
        await until(lambda: "ask.me" in serving.refused)


async def test_after_its_end_nobody_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as lab, lab.connection("a") as connection, lab.connection("b") as client:
        async with Responder(
            connection, "ask.me", queue="q", answer=echo, concurrency=1, pending=1, overloaded=lambda: None
        ):
            assert await request(client, b"x") == b"re:x"
        await connection.link.flush(60.0)
        with pytest.raises(BusUnavailable):
            await request(client, b"x", seconds=1)


async def test_what_has_arrived_is_answered_before_the_end(tmp_path: Path) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(asked: Asked) -> bytes | None:
        begun.set()
        await go.wait()
        return b"late:" + asked.payload

    async with (
        running(tmp_path, "a", "b") as lab,
        lab.connection("a") as connection,
        lab.connection("b") as client,
        asyncio.TaskGroup() as group,
    ):

        async def serve() -> None:
            async with Responder(
                connection, "ask.me", queue="q", answer=slow, concurrency=1, pending=8, overloaded=lambda: None
            ):
                await asyncio.get_running_loop().create_future()

        serving = group.create_task(serve())
        await until(lambda: bool(connection._attachments))
        tasks = [group.create_task(request(client, b"%d" % number)) for number in range(3)]
        await begun.wait()
        await client.link.flush(60.0)
        serving.cancel()
        await connection.link.flush(60.0)
        go.set()
        assert [await task for task in tasks] == [b"late:0", b"late:1", b"late:2"]
        await asyncio.wait({serving})
        assert serving.cancelled()


async def test_the_end_does_not_wait_for_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering_module, "DRAIN_SECONDS", 0.1)
    hung = asyncio.Event()

    async def hang(asked: Asked) -> bytes | None:
        hung.set()
        await asyncio.Event().wait()
        return None

    async with (
        asyncio.timeout(60),
        running(tmp_path, "a", "b") as lab,
        lab.connection("b") as client,
        answering(lab, hang),
    ):
        client.link.write(b"PUB ask.me _INBOX.b.x 1\r\nx\r\n")
        await hung.wait()


@pytest.mark.parametrize(
    ("subject", "queue", "concurrency", "pending"),
    [("a..b", "q", 1, 1), ("a", "q q", 1, 1), ("a", "q", 0, 1), ("a", "q", 1, 0)],
)
async def test_bad_arguments(tmp_path: Path, subject: str, queue: str, concurrency: int, pending: int) -> None:
    async with running(tmp_path, "a") as lab:
        with pytest.raises(ConfigurationError):
            Responder(
                lab.connection("a"),
                subject,
                queue=queue,
                answer=echo,
                concurrency=concurrency,
                pending=pending,
                overloaded=lambda: None,
            )
