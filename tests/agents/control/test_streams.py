"""The role `streams`: what the broker says of streams and agents, as gauges; nothing is shown that it does not say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.lab import until

from sealbus.agents.control.streams import StreamGauges
from sealbus.bus.ports import NotPermitted
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))
CREATED = "2026-11-24T12:02:57.975307123Z"


def stream(
    name: str, size: int, most: int, discard: str, cluster: dict[str, object] | None = None, **more: object
) -> dict[str, object]:
    config = {"name": name, "max_bytes": most, "discard": discard}
    found: dict[str, object] = {"config": config, "created": CREATED, "state": {"messages": 3, "bytes": size}}
    found |= more
    return found if cluster is None else {**found, "cluster": cluster}


def consumer(name: str, subject: str, waiting: int, unsettled: int, pulls: int) -> dict[str, object]:
    return {
        "config": {"durable_name": name, "filter_subject": subject, "max_ack_pending": 100},
        "delivered": {"consumer_seq": 1, "stream_seq": 1},
        "num_pending": waiting,
        "num_ack_pending": unsettled,
        "num_redelivered": 0,
        "num_waiting": pulls,
    }


def replica(name: str, *, current: bool = True, offline: bool = False) -> dict[str, object]:
    return {"name": name, "current": current, "active": 1, **({"offline": True} if offline else {})}


class Broker:
    """Answers as a server does that permits all, or not the lists of consumers, or not the account's figures."""

    def __init__(self) -> None:
        self.permits = True
        self.permits_info = True
        self.up = True
        self.errors = 7
        self.asked: list[str] = []

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        del payload
        self.asked.append(subject)
        if subject.endswith("API.INFO"):
            if not self.permits_info:
                raise NotPermitted(f"{subject}: not permitted to publish")
            return json.dumps({"api": {"total": 100, "errors": self.errors}}).encode()
        if not self.up or (not self.permits and "CONSUMER" in subject):
            raise BusUnavailable("no answer within 1 s")
        found: dict[str, object]
        if subject.endswith("STREAM.LIST"):
            listed = [stream("AUDIT", 90, 100, "new"), stream("DEAD", 7, 50, "old"), stream("FREE", 1, -1, "old")]
            listed += [stream("TASKS", 2, -1, "new"), stream("EVENTS", 2, -1, "new")]
            found = {"total": 5, "offset": 0, "limit": 256, "streams": listed}
        elif subject.endswith("LIST.TASKS"):
            listed = [
                consumer("shop", "task.shop.>", 7, 2, 1),
                consumer("id-ctl-shop", "control.shop.>", 0, 0, 2),
            ]
            found = {"total": 2, "offset": 0, "limit": 256, "consumers": listed}
        else:
            found = {"total": 1, "offset": 0, "limit": 256, "consumers": [consumer("mail", "event.>", 4, 0, 0)]}
        return json.dumps(found).encode()


@asynccontextmanager
async def shown(broker: Broker) -> AsyncIterator[tuple[StreamGauges, Counters]]:
    counters = Counters()
    role = StreamGauges(broker, counters, names=NAMES, own={}, every=0.01)
    running = asyncio.create_task(role.run())
    try:
        yield role, counters
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


class Cluster(Broker):
    """Answers as a cluster of three does, of which one server is away, and which has lost another stream's majority."""

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        found = json.loads(await super().__call__(subject, payload))
        if subject.endswith("STREAM.LIST"):
            replicas = [replica("n2"), replica("n3", offline=True)]
            found["streams"] = [
                stream("AUDIT", 90, 100, "new", {"leader": "n1", "replicas": replicas}),
                stream(
                    "DEAD", 7, 50, "old", {"leader": "n2", "replicas": [replica("n1"), replica("n3", current=False)]}
                ),
                stream("ONE", 7, 50, "old", {"leader": "n2"}),
            ]
            found |= {"total": 6, "missing": ["HELD", "TASKS", "EVENTS"]}
        elif subject.endswith("LIST.TASKS"):
            found["consumers"][0]["cluster"] = {"leader": "n1", "replicas": [replica("n2"), replica("n3")]}
            found["consumers"][1]["cluster"] = {"leader": "", "replicas": None}
            found |= {"total": 4, "missing": ["mail", "id-ctl-mail"]}
        return json.dumps(found).encode()


async def test_which_servers_have_what_is_shown() -> None:
    kinds = ("sealbus_stream_servers", "sealbus_stream_current", "sealbus_consumers", "sealbus_replicated")
    async with shown(Cluster()) as (role, counters):
        await until(lambda: role.problem == "")
        lines = [line for line in counters.render().splitlines() if line.startswith(kinds)]
    assert lines == [
        'sealbus_consumers{stream="EVENTS"} 1.0',
        'sealbus_consumers{stream="TASKS"} 4.0',
        'sealbus_consumers_away{stream="EVENTS"} 0.0',
        'sealbus_consumers_away{stream="TASKS"} 2.0',
        'sealbus_replicated_assets{server="n1"} 3.0',
        'sealbus_replicated_assets{server="n2"} 3.0',
        'sealbus_replicated_assets{server="n3"} 3.0',
        'sealbus_stream_current_servers{stream="AUDIT"} 2.0',
        'sealbus_stream_current_servers{stream="DEAD"} 2.0',
        'sealbus_stream_current_servers{stream="EVENTS"} 0.0',
        'sealbus_stream_current_servers{stream="HELD"} 0.0',
        'sealbus_stream_current_servers{stream="ONE"} 1.0',
        'sealbus_stream_current_servers{stream="TASKS"} 0.0',
        'sealbus_stream_servers{stream="AUDIT"} 3.0',
        'sealbus_stream_servers{stream="DEAD"} 3.0',
        'sealbus_stream_servers{stream="ONE"} 1.0',
    ]


class OtherRegion(Broker):
    """Answers as a region does that has nothing but the mirror of AUDIT."""

    def __init__(self, active: int) -> None:
        super().__init__()
        self.active = active

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        if "CONSUMER" in subject:
            self.asked.append(subject)
            return json.dumps({"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}).encode()
        found = json.loads(await super().__call__(subject, payload))
        if subject.endswith("STREAM.LIST"):
            mirror = {"name": "AUDIT", "lag": 7, "active": self.active}
            found |= {"total": 1, "streams": [stream("AUDIT_MIRROR", 90, 100, "new", mirror=mirror)]}
        return json.dumps(found).encode()


@pytest.mark.parametrize(("active", "silent"), [(1_500_000_000, "1.5"), (-1, "+Inf")])
async def test_how_far_a_mirror_is_behind_is_shown_where_nothing_else_is(active: int, silent: str) -> None:
    """-1 is what nats-server answers if nothing has come since it started."""
    broker = OtherRegion(active)
    async with shown(broker) as (role, counters):
        await until(lambda: role.problem == "")
        lines = [line for line in counters.render().splitlines() if line.startswith("sealbus_mirror")]
    assert lines == [
        'sealbus_mirror_lag_messages{stream="AUDIT_MIRROR"} 7.0',
        f'sealbus_mirror_silent_seconds{{stream="AUDIT_MIRROR"}} {silent}',
    ]
    assert not [subject for subject in broker.asked if "CONSUMER" in subject]


class Undeclared(OtherRegion):
    """Answers as a server does on which nobody has made the streams, and which mirrors none."""

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        found = json.loads(await super().__call__(subject, payload))
        return json.dumps({**found, "total": 0, "streams": []} if subject.endswith("STREAM.LIST") else found).encode()


async def test_streams_that_are_missing_where_no_mirror_is_are_a_problem() -> None:
    async with shown(Undeclared(-1)) as (role, _):
        await until(lambda: "stream not found" in role.problem)


async def test_streams_and_agents_are_shown() -> None:
    kinds = ("sealbus_stream_b", "sealbus_stream_l", "sealbus_stream_m", "sealbus_agent")
    async with shown(Broker()) as (role, counters):
        assert role.problem
        await until(lambda: role.problem == "")
        lines = [one for one in counters.render().splitlines() if one.startswith(kinds)]
    assert lines == [
        'sealbus_agent_processes{agent="mail"} 0.0',
        'sealbus_agent_processes{agent="shop"} 2.0',
        'sealbus_agent_unsettled_messages{agent="mail",stream="EVENTS"} 0.0',
        'sealbus_agent_unsettled_messages{agent="shop",stream="TASKS"} 2.0',
        'sealbus_agent_waiting_messages{agent="mail",stream="EVENTS"} 4.0',
        'sealbus_agent_waiting_messages{agent="shop",stream="TASKS"} 7.0',
        'sealbus_stream_bytes{stream="AUDIT"} 90.0',
        'sealbus_stream_bytes{stream="DEAD"} 7.0',
        'sealbus_stream_bytes{stream="EVENTS"} 2.0',
        'sealbus_stream_bytes{stream="FREE"} 1.0',
        'sealbus_stream_bytes{stream="TASKS"} 2.0',
        'sealbus_stream_limit_bytes{stream="AUDIT",when_full="refuses"} 100.0',
        'sealbus_stream_limit_bytes{stream="DEAD",when_full="drops"} 50.0',
        'sealbus_stream_messages{stream="AUDIT"} 3.0',
        'sealbus_stream_messages{stream="DEAD"} 3.0',
        'sealbus_stream_messages{stream="EVENTS"} 3.0',
        'sealbus_stream_messages{stream="FREE"} 3.0',
        'sealbus_stream_messages{stream="TASKS"} 3.0',
    ]


async def test_whether_jetstream_answers_is_shown_once_it_was_asked() -> None:
    broker = Broker()
    counters = Counters()
    StreamGauges(broker, counters, names=NAMES, own={})
    assert "sealbus_broker_answers 1" not in counters.render()
    assert "sealbus_broker_answers 0" not in counters.render()
    async with shown(broker) as (role, counters):
        await until(lambda: role.problem == "")
        assert "\nsealbus_broker_answers 1.0\n" in counters.render()
        broker.permits = False
        await until(lambda: role.problem != "")
        assert "\nsealbus_broker_answers 1.0\n" in counters.render()
        broker.up = False
        await until(lambda: "streams cannot be listed" in role.problem)
        assert "\nsealbus_broker_answers 0.0\n" in counters.render()


async def test_errors_of_the_api_are_counted_from_the_first_look() -> None:
    broker = Broker()
    async with shown(broker) as (role, counters):
        await until(lambda: role.problem == "")
        assert "\nsealbus_broker_api_errors_total 0.0\n" in counters.render()
        broker.errors = 10
        await until(lambda: counters.value("sealbus_broker_api_errors_total") == 3)
        # A server of the cluster was started again, and has refused two since.
        broker.errors = 4
        await until_read_again(broker)
        broker.errors = 6
        await until(lambda: counters.value("sealbus_broker_api_errors_total") == 5)


async def test_an_older_policy_takes_nothing_but_the_errors_of_the_api() -> None:
    broker = Broker()
    broker.permits_info = False
    async with shown(broker) as (role, counters):
        await until(lambda: role.problem == "")
        await until_read_again(broker)
        text = counters.render()
    assert 'sealbus_agent_processes{agent="shop"} 2.0' in text
    assert "\nsealbus_broker_answers 1.0\n" in text
    assert "sealbus_broker_api_errors_total" not in text
    # Not at each look: the server logs every try.
    assert broker.asked.count("$JS.API.INFO") == 1


async def until_read_again(broker: Broker) -> None:
    """Wait until a whole read has begun and ended."""
    reads = broker.asked.count("$JS.API.STREAM.LIST")
    await until(lambda: broker.asked.count("$JS.API.STREAM.LIST") >= reads + 2)


async def test_what_is_not_told_any_more_is_not_shown_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sealbus")
    broker = Broker()
    async with shown(broker) as (role, counters):
        await until(lambda: role.problem == "")
        broker.permits = False
        await until(lambda: role.problem != "")
        assert "CONSUMER.LIST" in role.problem
        assert "sealbus_stream_bytes{" in counters.render()
        assert "sealbus_agent_processes{" not in counters.render()
        broker.up = False
        await until(lambda: "streams cannot be listed" in role.problem)
        assert "sealbus_stream_bytes{" not in counters.render()
        broker.up = broker.permits = True
        await until(lambda: role.problem == "")
    said = [one for one in caplog.messages if one.startswith("figures of streams")]
    assert len(said) == 4
