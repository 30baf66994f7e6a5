"""The pull consumer on a real server: each delivery settled once, nothing forgotten, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from support.lab import Lab, make_stream, outgoing, running, until

from sealbus.bus.nats.api import api, existing_stream, update_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.consumer import NatsPull
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, PubAck, Pull, StoredFloor, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", "a", "b") as started:
        yield started


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection("a") as entered:
        await make_stream(entered)
        yield entered


def pull_of(
    connection: Connection,
    *,
    batch: int = 50,
    ack_wait: float = 30.0,
    max_ack_pending: int = 1000,
    subjects: Sequence[str] = ("task.a.>",),
) -> Pull:
    return NatsTransport(connection).pull(
        "TASKS", "a", subjects, batch=batch, ack_wait=ack_wait, max_ack_pending=max_ack_pending
    )


async def publish(connection: Connection, *numbers: int, size: int = 0, subject: str = "task.a.run") -> None:
    answers = await NatsTransport(connection).publish(
        [outgoing(number, subject, size=size) for number in numbers], deadline=60.0
    )
    assert all(isinstance(answer, PubAck) for answer in answers)


async def consumer(connection: Connection) -> dict[str, object]:
    return await api(connection.jetstream, "CONSUMER.INFO.TASKS.a")


async def until_settled(connection: Connection) -> None:
    """Wait until the server has counted every acknowledgement, which it does in its own time."""
    async with asyncio.timeout(60):
        info = await consumer(connection)
        while info["num_ack_pending"] or info["num_pending"]:
            info = await consumer(connection)


class Worker:
    """Takes batches in a task of its own, does with each delivery what `handle` says, acknowledges where it says so."""

    def __init__(self, pull: Pull, handle: Callable[[Pull, Delivery], bool] | None = None) -> None:
        self.seen: list[int] = []
        self.deliveries: list[Delivery] = []
        self._pull = pull
        self._handle = handle
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        async with contextlib.aclosing(self._pull.batches()) as batches:
            async for batch in batches:
                self.deliveries += batch
                self.seen += [int(delivery.payload) for delivery in batch]
                self._pull.ack([one for one in batch if self._handle is None or self._handle(self._pull, one)])

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_everything_comes_once_and_in_order(connection: Connection) -> None:
    worker = Worker(pull_of(connection))
    await publish(connection, *range(2_000))
    await publish(connection, 5, subject="task.b.run")
    await until(lambda: len(worker.seen) >= 2_000)
    assert worker.seen == list(range(2_000))
    first = worker.deliveries[0]
    assert first.subject == "task.a.run"
    assert first.header_block == b"NATS/1.0\r\nNats-Msg-Id: " + b"0" * 32 + b"\r\n\r\n"
    position = first.arrival
    assert position is not None
    assert (position.stream, position.sequence, position.delivery) == ("TASKS", 1, 1)
    assert abs(position.stored - time.time() * 1e6) < 60e6
    assert position.created == await NatsTransport(connection).created("TASKS")
    await until_settled(connection)
    await worker.stop()
    assert connection._attachments == []


async def test_batches_are_bounded_and_so_is_what_waits(connection: Connection) -> None:
    await publish(connection, *range(1_000))
    pull = pull_of(connection, batch=20)
    assert isinstance(pull, NatsPull)
    batches = pull.batches()
    taken = [await anext(batches)]
    for _ in range(20):
        await connection.link.flush(60.0)
    assert len(taken[0]) <= 20
    # One batch in hand, three that wait or are on their way, and never more.
    assert 20 <= pull.unsettled <= 80
    while sum(map(len, taken)) < 1_000:
        taken.append(await anext(batches))
        assert 0 < len(taken[-1]) <= 20
        assert pull.unsettled <= sum(map(len, taken)) + 60
    assert [int(one.payload) for batch in taken for one in batch] == list(range(1_000))
    await batches.aclose()


async def test_retry_term_and_working(connection: Connection) -> None:
    begin = time.monotonic()
    times: dict[int, list[float]] = {}

    def handle(pull: Pull, delivery: Delivery) -> bool:
        number = int(delivery.payload)
        times.setdefault(number, []).append(time.monotonic() - begin)
        again = delivery.arrival is not None and delivery.arrival.delivery > 1
        if number == 1 and not again:
            pull.retry(delivery, 0.5)
        elif number == 2:
            pull.term(delivery)
            pull.retry(delivery, 0.0)  # it was settled: nothing happens
        elif number == 3 and not again:
            pull.working(delivery)
            return False
        else:
            return True
        return False

    worker = Worker(pull_of(connection, ack_wait=4.0), handle)
    await publish(connection, 1, 2, 3, 4)
    await until(lambda: len(worker.seen) == 6)
    assert sorted(worker.seen) == [1, 1, 2, 3, 3, 4]
    assert times[1][1] - times[1][0] >= 0.5
    assert times[3][1] - times[3][0] >= 3.75
    assert [one.arrival.delivery for one in worker.deliveries if one.arrival and one.payload == b"1"] == [1, 2]
    await until_settled(connection)
    await worker.stop()


async def test_working_holds_redelivery_off(connection: Connection) -> None:
    held: list[Delivery] = []
    pull = pull_of(connection, ack_wait=5.0)

    def hold(_: Pull, delivery: Delivery) -> bool:
        held.append(delivery)
        return False

    worker = Worker(pull, hold)
    await publish(connection, 1)
    await until(lambda: len(held) == 1)
    for _ in range(12):
        pull.working(held[0])
        await asyncio.sleep(0.5)
    assert worker.seen == [1]
    pull.ack(held)
    await until_settled(connection)
    await worker.stop()


async def test_two_replicas_share(lab: Lab, connection: Connection) -> None:
    async with lab.connection("a") as other:
        workers = [Worker(pull_of(connection)), Worker(pull_of(other))]
        await publish(connection, *range(3_000))
        await until(lambda: sum(len(worker.seen) for worker in workers) >= 3_000)
        assert sorted([*workers[0].seen, *workers[1].seen]) == list(range(3_000))
        assert all(worker.seen for worker in workers)
        for worker in workers:
            await worker.stop()


async def test_killed_and_restarted(lab: Lab, connection: Connection) -> None:
    worker = Worker(pull_of(connection))
    await publish(connection, *range(500))
    await until(lambda: len(worker.seen) >= 200)
    await lab.server.kill9()
    await lab.server.restart()
    await publish(connection, *range(500, 1_000))
    await until(lambda: set(worker.seen) == set(range(1_000)))
    await worker.stop()


async def test_acknowledged_while_disconnected(connection: Connection) -> None:
    """What was handled while there was no connection is acknowledged over the next one, and does not come again."""
    pull = pull_of(connection)
    batches = pull.batches()
    await publish(connection, *range(10))
    taken = list(await anext(batches))
    while len(taken) < 10:
        taken += await anext(batches)
    # Not by killing the server: that may forget what it has delivered, and then acknowledgements of it mean nothing.
    connection.link.cut("as if the network failed")
    pull.ack(taken)
    pull.working(taken[0])
    await connection.ready(60)
    await publish(connection, 10)
    assert [int(one.payload) for one in await anext(batches)] == [10]
    assert connection.counters.value("sealbus_bus_reconnects_total") == 1
    # The server counts acknowledgements in its own time; without ours nothing would come again for 30 s.
    async with asyncio.timeout(60):
        while (await consumer(connection))["num_ack_pending"] != 1:
            await connection.link.flush(60.0)
    await batches.aclose()


async def test_what_waits_too_long_here_is_left_to_the_server(connection: Connection) -> None:
    """A worker that is busy for longer than `ack_wait` must not handle what another may have got meanwhile."""
    await publish(connection, *range(30))
    pull = pull_of(connection, batch=10, ack_wait=3.0)
    batches = pull.batches()
    first = await anext(batches)
    pull.ack(first)
    await until(lambda: isinstance(pull, NatsPull) and pull.unsettled >= 10)
    await asyncio.sleep(3.2)
    seen: list[Delivery] = []
    while len({one.payload for one in seen}) < 30 - len(first):
        batch = await anext(batches)
        pull.ack(batch)
        seen += batch
    assert connection.counters.value("sealbus_bus_dropped_total", reason="stale") > 0
    assert sorted(int(one.payload) for one in (*first, *seen)) == list(range(30))
    await batches.aclose()


async def test_a_deleted_consumer_is_made_anew_where_it_was(connection: Connection) -> None:
    retried: list[int] = []

    def handle(pull: Pull, delivery: Delivery) -> bool:
        if int(delivery.payload) == 150 and not retried:
            retried.append(150)
            pull.retry(delivery, 60.0)
            return False
        return True

    worker = Worker(pull_of(connection), handle)
    await publish(connection, *range(200))
    await until(lambda: len(worker.seen) == 200)
    await api(connection.jetstream, "CONSUMER.DELETE.TASKS.a")
    await publish(connection, *range(200, 300))
    await until(lambda: 299 in worker.seen)
    # Nothing below the retried message comes again, and that one does: its redelivery was the deleted consumer's.
    assert worker.seen[:200] == list(range(200))
    assert worker.seen[200:] == list(range(150, 300))
    await worker.stop()


async def test_a_stream_made_anew(connection: Connection) -> None:
    worker = Worker(pull_of(connection))
    await publish(connection, *range(20))
    await until(lambda: len(worker.seen) == 20)
    await api(connection.jetstream, "STREAM.DELETE.TASKS")
    await make_stream(connection)
    created = await NatsTransport(connection).created("TASKS")
    await publish(connection, *range(100, 110))
    await until(lambda: len(worker.seen) == 30)
    assert worker.seen[20:] == list(range(100, 110))
    assert all(one.arrival and one.arrival.created == created for one in worker.deliveries[20:])
    await worker.stop()


async def test_large_messages_come_in_small_portions(connection: Connection) -> None:
    await publish(connection, *range(40), size=900_000)
    worker = Worker(pull_of(connection, batch=500))
    await until(lambda: len(worker.seen) == 40)
    assert worker.seen == list(range(40))
    await worker.stop()


async def test_leaving_gives_back_what_was_not_handed_out(lab: Lab, connection: Connection) -> None:
    await publish(connection, *range(60))
    pull = pull_of(connection, batch=10)
    batches = pull.batches()
    first = await anext(batches)
    pull.ack(first)
    await until(lambda: isinstance(pull, NatsPull) and pull.unsettled >= 20)
    await batches.aclose()
    async with lab.connection("a") as other:
        worker = Worker(pull_of(other))
        await until(lambda: len(worker.seen) == 60 - len(first))
        await worker.stop()


async def test_the_durable_is_brought_up_to_date(connection: Connection) -> None:
    for ack_wait, subjects in ((5.0, ("task.a.>",)), (7.0, ("task.a.>", "task.b.>")), (7.0, ("task.a.>",))):
        pull = pull_of(connection, ack_wait=ack_wait, subjects=subjects)
        first = asyncio.ensure_future(anext(pull.batches()))
        await until(lambda: waits(connection))
        await publish(connection, int(ack_wait * 10) + len(subjects))
        pull.ack(await first)
        config = (await consumer(connection))["config"]
        assert isinstance(config, dict)
        assert config["ack_wait"] == ack_wait * 1e9
        assert config.get("filter_subjects", [config.get("filter_subject")]) == list(subjects)
        assert config["max_deliver"] == -1
        connection._attachments.clear()
    assert (await consumer(connection))["num_pending"] == 0


def waits(connection: Connection) -> bool:
    return any(isinstance(one, NatsPull) and one._pulls.busy(connection.link) for one in connection._attachments)


async def test_another_kind_of_consumer_of_that_name_is_refused(connection: Connection) -> None:
    body = {"stream_name": "TASKS", "config": {"durable_name": "a", "name": "a", "ack_policy": "none"}}
    await api(connection.jetstream, "CONSUMER.CREATE.TASKS.a", body)
    with pytest.raises(ConfigurationError, match="explicit acknowledgement"):
        await anext(pull_of(connection).batches())
    assert connection._attachments == []


async def test_a_consumer_for_which_the_stream_has_no_room_is_refused(connection: Connection) -> None:
    state = await existing_stream(connection.jetstream, "TASKS")
    await update_stream(connection.jetstream, {**state.config, "max_consumers": 1})
    body = {"stream_name": "TASKS", "config": {"durable_name": "other", "name": "other", "ack_policy": "explicit"}}
    await api(connection.jetstream, "CONSUMER.CREATE.TASKS.other", body)
    with pytest.raises(ConfigurationError, match="max_consumers"):
        await anext(pull_of(connection).batches())
    assert connection._attachments == []


async def test_no_such_stream(connection: Connection) -> None:
    pull = NatsTransport(connection).pull("NONE", "a", ["x.>"], batch=1, ack_wait=1.0, max_ack_pending=1)
    with pytest.raises(ConfigurationError, match="sealbus streams apply"):
        await anext(pull.batches())


@pytest.mark.parametrize(
    ("name", "subjects", "batch", "ack_wait"),
    [("a.b", ["x"], 1, 1.0), ("a b", ["x"], 1, 1.0), ("a", [], 1, 1.0), ("a", ["x..y"], 1, 1.0), ("a", ["x"], 0, 1.0)],
)
async def test_what_no_consumer_can_be(
    connection: Connection, name: str, subjects: list[str], batch: int, ack_wait: float
) -> None:
    with pytest.raises(ConfigurationError):
        NatsTransport(connection).pull("TASKS", name, subjects, batch=batch, ack_wait=ack_wait, max_ack_pending=1)


async def test_pulling_ends_with_the_connection(lab: Lab) -> None:
    async with lab.connection("a") as connection:
        await make_stream(connection)
        worker = Worker(pull_of(connection))
        await until(lambda: waits(connection))
    await worker.task


async def test_more_than_max_ack_pending_waits(connection: Connection) -> None:
    await publish(connection, *range(30))
    pull = pull_of(connection, max_ack_pending=10)
    batches = pull.batches()
    taken = list(await anext(batches))
    while len(taken) < 10:
        taken += await anext(batches)
    following = asyncio.ensure_future(anext(batches))
    await connection.link.flush(60.0)
    assert not following.done()
    pull.ack(taken[:5])
    assert len(await following) <= 5
    await batches.aclose()


async def test_the_load_is_what_others_have_and_what_waits_and_a_lowered_bound_is_raised_again(
    connection: Connection,
) -> None:
    await publish(connection, *range(4))
    pull = pull_of(connection)
    batches = pull.batches()
    taken = list(await anext(batches))
    while len(taken) < 4:
        taken += await anext(batches)
    assert (await pull.load()).unsettled == 0
    for delivery in taken[:3]:
        pull.retry(delivery, 60.0)
    async with asyncio.timeout(10.0):
        while (await pull.load()).unsettled != 3:
            pass
    config = (await consumer(connection))["config"]
    assert isinstance(config, dict)
    # As a version does that knows nothing of ours when it connects.
    older = {"stream_name": "TASKS", "action": "update", "config": config | {"max_ack_pending": 2}}
    await api(connection.jetstream, "CONSUMER.CREATE.TASKS.a.task.a.>", older)
    assert (await pull.load()).most == 1_000
    await publish(connection, 4)
    [following] = await anext(batches)
    assert following.payload.startswith(b"4")
    await batches.aclose()


async def test_answers_from_elsewhere_are_not_deliveries(connection: Connection) -> None:
    """Whoever learned an inbox could send there; a reply subject like JetStream's is refused by the server itself."""
    pull = pull_of(connection)
    assert isinstance(pull, NatsPull)
    worker = Worker(pull)
    await until(lambda: waits(connection))
    inbox = pull._pulls._pulls[0]._inbox
    for reply in ("x", "$JS.ACK.TASKS.a.1.1.1.1.0"):
        connection.link.write(f"PUB {inbox} {reply} 1\r\n7\r\n".encode())
    await publish(connection, 1)
    await until(lambda: worker.seen == [1])
    assert connection.counters.value("sealbus_bus_dropped_total", reason="stray") == 1
    assert connection.counters.value("sealbus_bus_dropped_total", reason="permissions") == 1
    await worker.stop()


async def test_the_api_is_asked_by_the_port_of_streams_too(connection: Connection) -> None:
    with pytest.raises(StreamRefused, match="not found"):
        await api(connection.jetstream, "CONSUMER.INFO.TASKS.none")
    assert json.loads(await connection.jetstream("$JS.API.STREAM.NAMES", b"{}"))["streams"] == ["TASKS"]


async def test_a_narrower_filter_takes_the_place_of_a_wider_one(connection: Connection) -> None:
    """As in an upgrade where what one consumer took is given to two: what was stored before then, it settles itself."""
    wide = Worker(pull_of(connection, ack_wait=5.0), lambda _, one: one.payload != b"3")
    await publish(connection, 1, subject="task.a.cancel")
    await publish(connection, 2, 3, subject="task.a.approve")
    await until(lambda: len(wide.seen) == 3)
    await wide.stop()
    # Answered once the server has seen that nobody reads the wide pull any more.
    await connection.link.flush(5.0)
    await publish(connection, 4, subject="task.a.approve")
    await publish(connection, 5, subject="task.a.cancel")
    narrow = Worker(pull_of(connection, ack_wait=5.0, subjects=("task.a.cancel",)))
    # What was delivered and not acknowledged comes again though it is outside now; what nobody had, does not come.
    await until(lambda: len(narrow.seen) == 2)
    assert sorted(narrow.seen) == [3, 5]
    await publish(connection, 6, subject="task.a.approve")
    await publish(connection, 7, subject="task.a.cancel")
    await until(lambda: 7 in narrow.seen)
    await until_settled(connection)
    await narrow.stop()
    assert sorted(narrow.seen) == [3, 5, 7]
    config = (await consumer(connection))["config"]
    assert isinstance(config, dict)
    assert config["filter_subject"] == "task.a.cancel"


class _Floors:
    """Where a floor is stored, unless STATE is away."""

    def __init__(self) -> None:
        self.stored = StoredFloor()
        self.away = False

    async def read(self, stream: str, consumer: str) -> StoredFloor:
        return self.stored

    async def replace(self, stream: str, consumer: str, floor: StoredFloor) -> StoredFloor:
        if self.away:
            raise BusUnavailable("away")
        self.stored = floor._replace(last=floor.last + 1)
        return self.stored


async def test_a_floor_that_could_not_be_stored_is_stored_later_and_each_once(connection: Connection) -> None:
    floors = _Floors()
    await publish(connection, *range(4))
    pull = NatsTransport(connection).pull(
        "TASKS", "a", ["task.a.>"], batch=4, ack_wait=30.0, max_ack_pending=8, floors=floors, one_replica=True
    )
    batches, taken = pull.batches(), list[Delivery]()
    while len(taken) < 4:
        taken += await anext(batches)
    pull.ack([taken[0], taken[1], taken[3]])
    async with asyncio.timeout(10.0):
        while (await consumer(connection))["num_ack_pending"] != 1:
            pass
    floors.away = True
    with pytest.raises(BusUnavailable):
        await pull.keep_floor()
    floors.away = False
    async with asyncio.timeout(10.0):
        while floors.stored.floor != 2:
            await pull.keep_floor()
    pull.ack([taken[2]])
    # The server may count it after the next look.
    await until_settled(connection)
    await pull.keep_floor()
    assert floors.stored.floor == 4
    last = floors.stored.last
    await pull.keep_floor()
    assert floors.stored.last == last
    await batches.aclose()
