from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sealbus.bus.nats.api import StreamState
from sealbus.bus.streams.durability import acknowledged_means, describe_sync
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

TASKS = StreamState(name="TASKS", config={"num_replicas": 1}, created=0, messages=0, bytes=0)


@pytest.mark.parametrize(
    ("replicas", "says"),
    [
        ((1, 3), "each stream has one replica or more: a power failure loses"),
        ((3, 5), "each stream has 3 replicas or more: a power failure of most servers at once loses"),
        ((), "one replica"),
        ((None,), "one replica"),
        (("3",), "one replica"),
    ],
)
def test_what_is_lost_depends_on_the_fewest_replicas(replicas: tuple[object, ...], says: str) -> None:
    states = {f"S{at}": replace(TASKS, config={"num_replicas": count}) for at, count in enumerate(replicas)}
    assert says in acknowledged_means(states)
    assert "which no client can see" in acknowledged_means(states)


def varz(**config: object) -> bytes:
    return json.dumps({"server_name": "n1", "jetstream": {"config": config}}).encode()


def test_a_server_that_syncs_before_it_acknowledges_is_well() -> None:
    assert describe_sync(varz(sync_always=True, sync_interval=1)) == "n1 syncs its disk before it acknowledges"


@pytest.mark.parametrize(
    ("config", "how"),
    [
        ({"sync_interval": 120_000_000_000}, "every 120 s"),
        ({"sync_always": False, "sync_interval": 1_000_000_000}, "every 1 s"),
        ({"sync_always": "true"}, "at unknown intervals"),
        ({"sync_interval": 10**400}, "at unknown intervals"),
        ({}, "at unknown intervals"),
    ],
)
def test_one_that_does_not_is_told_with_what_to_do(config: dict[str, object], how: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^configuration: n1 .*{how}.*sync_interval: always"):
        describe_sync(varz(**config))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"server_name":"n1"}',
        b'{"server_name":"n1","jetstream":{}}',
        b'{"server_name":"n","jetstream":[]}',
        b'{"server_name":["n"],"jetstream":{"config":{}}}',
        b'{"server_name":"\\u001b[2J","jetstream":{"config":{}}}',
    ],
)
def test_what_is_no_answer_of_such_a_server_is_no_answer(document: bytes) -> None:
    with pytest.raises(BusUnavailable, match="not /varz of a nats-server with JetStream"):
        describe_sync(document)
