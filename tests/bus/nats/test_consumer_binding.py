"""A consumer of one replica whose server is away is moved by one process, after what is stored, and by nobody otherwise."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sealbus.bus.nats import durable_consumer
from sealbus.bus.nats.api import StreamState, filters_of
from sealbus.bus.nats.consumer_binding import STORE_TRIES, ConsumerBinding
from sealbus.bus.nats.durable_consumer import ConsumerSilent, DurableSpec
from sealbus.bus.ports import MOST_LISTENED, NotPermitted, StoredFloor, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

CREATED, LAST = 1_000, 100
STREAM = StreamState(
    name="TASKS", config={"num_replicas": 3}, created=CREATED, messages=LAST, bytes=LAST, last=LAST, answered=CREATED
)
SPEC = DurableSpec(
    stream="TASKS", name="shop", subjects=("task.shop.>",), ack_wait=30.0, max_ack_pending=8, one_replica=True
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_consumer, "INFO_SECONDS", 0.01)
    monkeypatch.setattr(durable_consumer, "CREATE_AGAIN", (0.01, 0.01))


@dataclass
class Server:
    """A cluster with at most one consumer, whose server may be away."""

    config: dict[str, Any] | None = None
    away: bool = False
    says_so: bool = False
    """Whether others say of its server that it is away."""
    keeps: bool = False
    """Whether it ignores deletions."""
    replicas: int = 1
    floor: int = 0
    deletes: int = 0

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        if ".CONSUMER.DELETE." in subject:
            self.deletes += 1
            if not self.keeps:
                self.config = None
                self.away = False
            if not self.says_so:
                await asyncio.Event().wait()
            return b'{"success": true}'
        if ".CONSUMER.INFO." in subject:
            if self.away and self.says_so:
                return self._error(10_119)
            if self.away:
                await asyncio.Event().wait()
            return self._info() if self.config is not None else self._error(10_014)
        asked = json.loads(payload)
        if asked["action"] == "create" and self.config is not None:
            return self._error(10_148)
        self.config = asked["config"]
        self.replicas = asked["config"]["num_replicas"] or 3
        return self._info()

    @property
    def start(self) -> int:
        assert self.config is not None
        begins: int = self.config.get("opt_start_seq", 0)
        return begins

    def _info(self) -> bytes:
        found: dict[str, object] = {
            "config": self.config,
            "num_ack_pending": 7,
            "ack_floor": {"stream_seq": self.floor},
            "cluster": {"leader": "n1", "replicas": [{"name": "n2"}] * (self.replicas - 1)},
        }
        return json.dumps(found).encode()

    def _error(self, code: int) -> bytes:
        return json.dumps({"error": {"code": 400, "err_code": code, "description": "no"}}).encode()


@dataclass
class Floors:
    """What the processes of an agent have stored."""

    stored: StoredFloor = field(default_factory=StoredFloor)
    reads: list[StoredFloor] = field(default_factory=list)
    lost: bool = False
    """Whether another process writes first."""
    writes: int = 0

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _ in self.stored.listened]

    async def read(self, stream: str, consumer: str) -> StoredFloor:
        assert consumer == "shop"
        return self.reads.pop(0) if self.reads else self.stored

    async def replace(self, stream: str, consumer: str, floor: StoredFloor) -> StoredFloor | None:
        assert consumer == "shop"
        self.writes += 1
        if self.lost or floor.last != self.stored.last:
            return None
        self.stored = floor._replace(last=self.stored.last + 1)
        return self.stored


async def bound(server: Server, floors: Floors) -> ConsumerBinding:
    """Return a process that has bound the consumer."""
    binding = ConsumerBinding(server, SPEC, floors)
    await binding.bind(STREAM, 5)
    return binding


async def consumer(**named: Any) -> Server:
    server = Server()
    await ConsumerBinding(server, SPEC, Floors()).bind(STREAM, 0)
    for name, value in named.items():
        setattr(server, name, value)
    return server


@pytest.mark.parametrize("says_so", [False, True])
async def test_a_consumer_whose_server_is_away_begins_again_after_the_stored_floor(says_so: bool) -> None:
    server, floors = await consumer(away=True, says_so=says_so), Floors(StoredFloor(CREATED, 41, 0, 9))
    await bound(server, floors)
    assert (server.deletes, server.start) == (1, 42)
    assert floors.stored == StoredFloor(CREATED, 41, 1, 10)


async def test_a_server_that_answers_the_second_request_keeps_its_consumer() -> None:
    server, floors = await consumer(away=True), Floors()

    async def slow(subject: str, payload: bytes) -> bytes:
        try:
            return await server(subject, payload)
        finally:
            server.away = False

    await ConsumerBinding(slow, SPEC, floors).bind(STREAM, 5)
    assert (server.deletes, floors.writes) == (0, 0)


@pytest.mark.parametrize("floors", [None, Floors(StoredFloor(CREATED, 41, 0, 9))])
async def test_a_consumer_of_several_replicas_stays_where_it_is(floors: Floors | None) -> None:
    server = await consumer(away=True)
    binding = ConsumerBinding(server, replace(SPEC, one_replica=False), floors)
    for _ in range(3):
        with pytest.raises(ConsumerSilent):
            await binding.bind(STREAM, 5)
    assert server.deletes == 0


@pytest.mark.parametrize("config", [{}, {"num_replicas": 1}, {"num_replicas": "3"}])
async def test_a_consumer_of_a_stream_with_one_replica_stays_where_it_is(config: dict[str, object]) -> None:
    server, floors = await consumer(away=True), Floors()
    for _ in range(3):
        with pytest.raises(ConsumerSilent):
            await ConsumerBinding(server, SPEC, floors).bind(replace(STREAM, config=config), 5)
    assert (server.deletes, floors.writes) == (0, 0)


def test_a_consumer_of_one_replica_needs_a_place_for_its_floor() -> None:
    with pytest.raises(ConfigurationError):
        ConsumerBinding(Server(), SPEC, None)


async def test_a_floor_beyond_the_end_of_the_stream_is_its_end() -> None:
    """The stream has lost its last messages; a server would pass over those that take their place."""
    server, floors = await consumer(away=True), Floors(StoredFloor(CREATED, LAST + 11, 0, 9))
    await bound(server, floors)
    assert server.start == LAST + 1


async def test_a_floor_of_another_stream_counts_for_nothing() -> None:
    server, floors = await consumer(away=True), Floors(StoredFloor(CREATED - 1, 41, 3, 9))
    floors.reads = [floors.stored]
    binding = ConsumerBinding(server, SPEC, floors)
    with pytest.raises(BusUnavailable):
        await binding.bind(STREAM, 5)
    # It knew of none of the three moves, and looked again.
    assert server.deletes == 0
    await binding.bind(STREAM, 5)
    assert (server.deletes, server.start) == (1, 1)
    assert floors.stored == StoredFloor(CREATED, 0, 4, 10)


async def test_a_consumer_that_another_process_has_moved_is_left_alone() -> None:
    server, floors = await consumer(away=True), Floors(StoredFloor(CREATED, 41, 0, 9))
    others = StoredFloor(CREATED, 41, 1, 10)
    binding = ConsumerBinding(server, SPEC, floors)
    floors.stored = others
    with pytest.raises(BusUnavailable, match="another process moves it"):
        await binding.bind(STREAM, 5)
    assert (server.deletes, floors.stored) == (0, others)
    # That process has died before it came to the end.
    await binding.bind(STREAM, 5)
    assert (server.deletes, floors.stored.moves) == (1, 2)


async def test_of_processes_that_see_it_at_the_same_moment_one_moves_the_consumer() -> None:
    server, floors = await consumer(away=True), Floors(StoredFloor(CREATED, 41, 0, 9), lost=True)
    binding = ConsumerBinding(server, SPEC, floors)
    with pytest.raises(BusUnavailable, match="another process moves it"):
        await binding.bind(STREAM, 5)
    assert (server.deletes, floors.writes) == (0, 1)


@pytest.mark.parametrize("one_replica", [True, False])
async def test_a_consumer_that_does_not_exist_begins_after_the_stored_floor_whatever_a_process_knows(
    one_replica: bool,
) -> None:
    """Another process has deleted it and is about to create it, or an operator has deleted it."""
    spec = replace(SPEC, one_replica=one_replica)
    for stored, start in ((StoredFloor(CREATED, 2, 1, 9), 3), (StoredFloor(), 1)):
        server = Server()
        await ConsumerBinding(server, spec, Floors(stored)).bind(STREAM, 5)
        assert server.start == start


async def test_a_shared_consumer_that_does_not_exist_begins_at_what_the_process_knows() -> None:
    server = Server()
    await ConsumerBinding(server, replace(SPEC, one_replica=False), None).bind(STREAM, 5)
    assert server.start == 5


async def test_the_deletion_is_sent_first_and_not_waited_for() -> None:
    server, floors, asked = await consumer(away=True), Floors(), list[str]()

    async def noted(subject: str, payload: bytes) -> bytes:
        asked.append(subject.split(".")[3])
        return await server(subject, payload)

    await ConsumerBinding(noted, SPEC, floors).bind(STREAM, 5)
    assert asked == ["INFO", "INFO", "DELETE", "CREATE"]


async def test_a_consumer_that_another_process_has_created_meanwhile_is_left_alone() -> None:
    server, floors = await consumer(away=True, keeps=True), Floors()
    binding = ConsumerBinding(server, SPEC, floors)
    with pytest.raises(BusUnavailable, match="is still there"):
        await binding.bind(STREAM, 5)
    server.away = False
    await binding.bind(STREAM, 5)
    assert server.deletes == 1


async def test_a_deletion_that_is_not_permitted_is_named() -> None:
    server, floors = await consumer(away=True), Floors()

    async def refusing(subject: str, payload: bytes) -> bytes:
        if ".CONSUMER.DELETE." in subject:
            raise NotPermitted(f"{subject}: not permitted to publish")
        return await server(subject, payload)

    with pytest.raises(BusUnavailable, match=r"is still there: \$JS.API.CONSUMER.DELETE.TASKS.shop: not permitted"):
        await ConsumerBinding(refusing, SPEC, floors).bind(STREAM, 5)


async def test_the_floor_is_stored_when_it_has_changed() -> None:
    server, floors = await consumer(floor=12), Floors()
    binding = await bound(server, floors)
    await binding.keep_floor()
    assert floors.stored == StoredFloor(CREATED, 12, 0, 1)
    await binding.keep_floor()
    assert floors.writes == 1
    # A server that has lost acknowledgements says a lower one, which counts.
    server.floor = 9
    await binding.keep_floor()
    assert floors.stored == StoredFloor(CREATED, 9, 0, 2)
    # Another process has moved the consumer, or stored the same floor.
    floors.stored = StoredFloor(CREATED, 30, 1, 8)
    server.floor = 31
    await binding.keep_floor()
    assert floors.stored == StoredFloor(CREATED, 31, 1, 9)
    floors.stored, floors.writes, server.floor = StoredFloor(CREATED, 32, 1, 20), 0, 32
    await binding.keep_floor()
    assert (floors.stored.last, floors.writes) == (20, 1)


async def test_a_process_that_was_started_again_stores_the_floor_at_once() -> None:
    server, floors = await consumer(floor=50), Floors(StoredFloor(CREATED, 10, 2, 5))
    await (await bound(server, floors)).keep_floor()
    assert floors.stored == StoredFloor(CREATED, 50, 2, 6)


async def test_nothing_is_stored_of_a_consumer_that_is_not_bound() -> None:
    floors = Floors()
    await ConsumerBinding(await consumer(floor=12), SPEC, floors).keep_floor()
    assert floors.writes == 0


async def test_a_consumer_that_is_not_there_is_not_created_for_its_floor() -> None:
    server, floors = await consumer(floor=12), Floors()
    binding = await bound(server, floors)
    server.config = None
    with pytest.raises(StreamRefused):
        await binding.keep_floor()
    assert server.config is None


FORMER, LATER = ("event.stock.low",), ("event.stock.low", "event.stock.out")
EVENTS = replace(SPEC, stream="EVENTS", subjects=FORMER, shared=True)


def listens(server: Server) -> set[str]:
    assert server.config is not None
    return filters_of(server.config)


async def test_versions_that_share_a_consumer_store_what_it_listens_to_before_they_take_from_it() -> None:
    server, floors = Server(), Floors()
    former, later = (ConsumerBinding(server, replace(EVENTS, subjects=own), floors) for own in (FORMER, LATER))
    await former.bind(STREAM, 0)
    assert floors.subjects == list(FORMER)
    server.floor = 12
    await later.bind(STREAM, 0)
    assert floors.subjects == list(LATER)
    assert floors.stored.floor == 12
    # Bound again with nothing new it finds what it would write; and the floor is stored with what the consumer listens to.
    writes = floors.writes
    await former.bind(STREAM, 0)
    server.floor = 13
    await later.keep_floor()
    assert (floors.writes, floors.stored.floor, floors.subjects) == (writes + 1, 13, list(LATER))


async def test_a_floor_that_is_stored_late_takes_no_subject_of_another_version_away() -> None:
    """The former version has looked at the consumer, and stores what it saw after the later version has bound it."""
    server, floors = Server(), Floors()
    former, later = (ConsumerBinding(server, replace(EVENTS, subjects=own), floors) for own in (FORMER, LATER))
    await former.bind(STREAM, 0)
    server.floor = 11
    seen = await durable_consumer.look(server, EVENTS)
    await later.bind(STREAM, 0)
    assert await former._store(floors, CREATED, seen)
    assert floors.subjects == list(LATER)
    # What was lost in the consumer comes back from what is stored.
    assert server.config is not None
    server.config = {**server.config, "filter_subject": FORMER[0], "filter_subjects": None, "metadata": {}}
    await ConsumerBinding(server, EVENTS, floors).bind(STREAM, 0)
    assert listens(server) == set(LATER)


async def test_a_consumer_that_listens_to_more_than_is_stored_is_not_moved() -> None:
    server, floors = Server(), Floors()
    several = [
        replace(EVENTS, subjects=tuple(f"event.{one}.e{number}" for number in range(300))) for one in ("stock", "money")
    ]
    await ConsumerBinding(server, several[0], floors).bind(STREAM, 0)
    assert server.replicas == 1
    await ConsumerBinding(server, several[1], floors).bind(STREAM, 0)
    assert (server.replicas, len(listens(server)), floors.subjects) == (3, 600, [])
    server.away = True
    with pytest.raises(ConsumerSilent):
        await ConsumerBinding(server, several[1], floors).bind(STREAM, 0)
    assert server.deletes == 0


@pytest.mark.parametrize("moved", [True, False])
async def test_a_shared_consumer_listens_to_the_subjects_of_all_versions_wherever_it_begins_again(moved: bool) -> None:
    """Its server is away, or an operator has deleted it. The process that creates it never heard of the other version."""
    server, floors = Server(), Floors()
    await ConsumerBinding(server, replace(EVENTS, subjects=LATER), floors).bind(STREAM, 0)
    floors.stored = floors.stored._replace(floor=41)
    server.away, server.config = moved, server.config if moved else None
    await ConsumerBinding(server, EVENTS, floors).bind(STREAM, 5)
    assert listens(server) == set(LATER)
    assert (server.start, server.deletes, floors.stored.moves) == (42, int(moved), int(moved))
    assert floors.subjects == list(LATER)


async def test_nothing_is_taken_from_a_shared_consumer_while_what_it_listens_to_is_not_stored() -> None:
    server, floors = Server(), Floors(lost=True)
    with pytest.raises(BusUnavailable, match="others bind it at the same time"):
        await ConsumerBinding(server, EVENTS, floors).bind(STREAM, 0)
    assert floors.writes == STORE_TRIES
    floors.lost = False
    await ConsumerBinding(server, EVENTS, floors).bind(STREAM, 0)
    assert floors.subjects == list(FORMER)


async def test_too_many_subjects_are_not_stored() -> None:
    server, floors = Server(), Floors()
    many = tuple(f"event.stock.e{number}" for number in range(MOST_LISTENED + 1))
    await ConsumerBinding(server, replace(EVENTS, subjects=many, one_replica=False), floors).bind(STREAM, 0)
    assert (floors.stored.listened, floors.stored.created) == ((), CREATED)
