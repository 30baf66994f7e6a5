"""What binding a durable consumer asks the JetStream API for, where another version of the agent has bound it before."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from sealbus.bus.nats.durable_consumer import LISTENED, LISTENED_SECONDS, DurableSpec, bind, consumer_load
from sealbus.bus.ports import MOST_LISTENED, ConsumerLoad, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

OWN = ("event.a.one", "event.a.two")


def spec(**changed: Any) -> DurableSpec:
    given: dict[str, Any] = {
        "stream": "EVENTS",
        "name": "shop",
        "subjects": OWN,
        "ack_wait": 30.0,
        "max_ack_pending": 1_000,
        "shared": True,
    }
    return DurableSpec(**(given | changed))


@dataclass
class Server:
    """One consumer, as far as binding asks about it. `allowed` is the most pending deliveries of a consumer."""

    config: dict[str, Any] | None = None
    allowed: int = 1 << 20
    written: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    cluster: dict[str, Any] | None = None

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        if ".CONSUMER.INFO." in subject:
            if self.config is None:
                return self._error(10_014)
            return self._info()
        asked = json.loads(payload)
        if asked["config"]["max_ack_pending"] > self.allowed:
            return self._error(10_121)
        if asked["action"] == "create" and self.config is not None:
            return self._error(10_148)
        self.config = asked["config"]
        self.written.append(asked["action"])
        self.subjects.append(subject)
        return self._info()

    def listened(self) -> dict[str, int]:
        assert self.config is not None
        times: dict[str, int] = json.loads(self.config["metadata"][LISTENED])
        return times

    def note(self, times: dict[str, int]) -> None:
        assert self.config is not None
        self.config["metadata"] = {LISTENED: json.dumps(times)}

    def _info(self) -> bytes:
        found = {"config": self.config, "num_ack_pending": 7, "ack_floor": {"stream_seq": 3}, "cluster": self.cluster}
        return json.dumps(found).encode()

    def _error(self, code: int) -> bytes:
        return json.dumps({"error": {"code": 400, "err_code": code, "description": "no"}}).encode()


def filters(server: Server) -> set[str]:
    assert server.config is not None
    return set(server.config.get("filter_subjects") or [server.config["filter_subject"]])


async def test_binding_twice_changes_nothing() -> None:
    server = Server()
    assert (await bind(server, spec())).load == ConsumerLoad(unsettled=7, most=1_000)
    assert (await bind(server, spec())).ack_floor == 3
    assert server.written == ["create"]
    assert await consumer_load(server, "EVENTS", "shop") == ConsumerLoad(unsettled=7, most=1_000)


async def test_the_pending_deliveries_are_raised_and_never_lowered() -> None:
    server = Server()
    for most in (10, 1_000, 10):
        await bind(server, spec(max_ack_pending=most))
    assert server.config is not None
    assert server.config["max_ack_pending"] == 1_000
    await bind(server, spec(max_ack_pending=10, ack_wait=5.0))
    assert (server.config["max_ack_pending"], server.config["ack_wait"]) == (1_000, 5_000_000_000)
    server.config["max_ack_pending"] = -1
    await bind(server, spec())
    assert server.config["max_ack_pending"] == -1


@pytest.mark.parametrize("before", [None, 20])
async def test_a_server_that_allows_fewer_gives_half_as_often_as_needed(
    before: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(allowed=300)
    if before is not None:
        await bind(server, spec(max_ack_pending=before))
    assert (await bind(server, spec())).load.most == 250
    assert "the server allows 250 pending deliveries, not 1000" in caplog.text
    server.allowed = 100
    # What the consumer has already is not taken from it.
    with pytest.raises(StreamRefused):
        await bind(server, spec(ack_wait=5.0))


async def test_a_version_that_knows_fewer_events_takes_none_from_one_that_knows_more() -> None:
    server = Server()
    await bind(server, spec(subjects=(*OWN, "event.a.new")))
    await bind(server, spec())
    assert filters(server) == {*OWN, "event.a.new"}
    assert server.written == ["create"]
    await bind(server, spec(subjects=("event.a.one",)))
    assert filters(server) == {*OWN, "event.a.new"}


async def test_an_event_to_which_no_version_listens_any_more_leaves_the_filter_a_day_later() -> None:
    server, now = Server(), int(time.time())
    await bind(server, spec(subjects=(*OWN, "event.a.new", "event.a.late")))
    server.note(dict.fromkeys(OWN, now) | {"event.a.new": now - LISTENED_SECONDS, "event.a.late": now - 80_000})
    await bind(server, spec())
    assert filters(server) == {*OWN, "event.a.late"}
    # Its time is that of the version that listened to it.
    assert server.listened()["event.a.late"] == now - 80_000


async def test_the_times_are_written_anew_each_hour() -> None:
    server, now = Server(), int(time.time())
    await bind(server, spec())
    server.note(dict.fromkeys(OWN, now - 4_000))
    await bind(server, spec())
    assert server.written == ["create", "update"]
    assert min(server.listened().values()) >= now


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"event.a.new": "x"}', '{"event.a.new": 99999999999}'],
    ids=lambda text: text[:20],
)
async def test_a_consumer_of_before_or_with_other_metadata_keeps_its_subjects_for_a_day(text: str) -> None:
    server = Server()
    await bind(server, spec(subjects=(*OWN, "event.a.new"), shared=False))
    assert server.config is not None
    assert "metadata" not in server.config
    server.config["metadata"] = {LISTENED: text}
    await bind(server, spec())
    assert filters(server) == {*OWN, "event.a.new"}
    assert server.listened()["event.a.new"] <= time.time()


async def test_filters_that_would_overlap_and_too_many_are_not_kept() -> None:
    server = Server()
    await bind(server, spec(subjects=("event.b.>", "event.a.one")))
    await bind(server, spec(subjects=("event.b.one", "event.a.one")))
    assert filters(server) == {"event.b.one", "event.a.one"}
    many = tuple(f"event.a.{number:0100}" for number in range(1_000))
    await bind(server, spec(subjects=many))
    assert filters(server) == set(many)
    assert server.config is not None
    assert "metadata" not in server.config


async def test_the_filter_of_a_consumer_that_is_not_shared_is_its_owners() -> None:
    server = Server()
    await bind(server, spec(subjects=("task.a.>", "task.b.>"), shared=False))
    await bind(server, spec(subjects=("task.a.>",), shared=False))
    assert filters(server) == {"task.a.>"}
    assert server.subjects[-1].endswith(".EVENTS.shop.task.a.>")


async def test_another_kind_of_consumer_is_not_changed() -> None:
    server = Server()
    await bind(server, spec())
    assert server.config is not None
    server.config["deliver_subject"] = "x"
    with pytest.raises(ConfigurationError, match="not a pull consumer"):
        await bind(server, spec())
    server.config = {}
    with pytest.raises(ConfigurationError):
        await bind(server, spec())


async def test_an_answer_without_a_configuration_is_none() -> None:
    async def strange(subject: str, payload: bytes) -> bytes:
        return b"{}"

    with pytest.raises(BusUnavailable):
        await bind(strange, spec())
    with pytest.raises(BusUnavailable):
        await consumer_load(strange, "EVENTS", "shop")


def replicated(server: Server, *names: str) -> dict[str, Any]:
    """Return the consumer's configuration, of which servers of these names have replicas from now on."""
    assert server.config is not None
    server.cluster = {"leader": "n1", "replicas": [{"name": name} for name in names]}
    return server.config


async def test_a_consumer_of_one_replica_is_made_and_one_of_several_becomes_it() -> None:
    server, one = Server(), spec(shared=False, one_replica=True)
    await bind(server, one)
    assert replicated(server)["num_replicas"] == 1
    await bind(server, one)
    assert server.written == ["create"]
    # As 0.1.0 made it, and with as many as the stream has.
    for declared in (0, 3):
        server = Server()
        await bind(server, spec(shared=False))
        replicated(server, "n2", "n3")["num_replicas"] = declared
        await bind(server, one)
        assert (server.written, replicated(server)["num_replicas"]) == (["create", "update"], 1)


async def test_a_consumer_of_a_server_alone_is_left_as_it_is() -> None:
    server = Server()
    await bind(server, spec(shared=False))
    await bind(server, spec(shared=False, one_replica=True))
    assert server.written == ["create"]


async def test_a_consumer_has_the_replicas_of_its_stream_where_that_is_declared() -> None:
    server = Server()
    await bind(server, spec(shared=False, one_replica=True))
    await bind(server, spec(shared=False))
    assert (server.written, replicated(server)["num_replicas"]) == (["create", "update"], 0)


async def test_a_shared_consumer_that_is_created_listens_to_what_other_versions_did() -> None:
    """Its former server was lost. What nobody listened to for a day is left out, and what the new filter covers."""
    now = int(time.time())
    others = (
        ("event.a.gone", now - LISTENED_SECONDS), ("event.a.one", now - 60), ("event.b.new", now - 7), ("event.c.x", now),
    )  # fmt: skip
    server = Server()
    bound = await bind(server, spec(subjects=(*OWN, "event.c.>"), others=others, one_replica=True))
    assert filters(server) == {*OWN, "event.b.new", "event.c.>"}
    assert server.listened()["event.b.new"] == now - 7
    assert dict(bound.listened) == server.listened()
    assert server.listened()["event.a.one"] >= now


async def test_a_consumer_of_more_subjects_than_can_be_told_has_the_replicas_of_its_stream() -> None:
    now = int(time.time())
    others = tuple((f"event.b.e{number:03}", now - 1_000 + number) for number in range(MOST_LISTENED))
    server = Server()
    await bind(server, spec(others=others[2:], one_replica=True))
    assert server.config is not None
    assert (len(filters(server)), server.config["num_replicas"]) == (MOST_LISTENED, 1)
    await bind(server, spec(others=others, one_replica=True))
    assert (len(filters(server)), server.config["num_replicas"]) == (MOST_LISTENED + 2, 0)
