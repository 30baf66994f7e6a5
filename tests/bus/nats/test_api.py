"""What is asked of the JetStream API about consumers; that the server takes it is seen by the integration tests."""

from __future__ import annotations

import pytest

from sealbus.bus.nats.api import iso_time, parse_time
from sealbus.bus.nats.durable_consumer import DurableSpec
from sealbus.envelopes.errors import ConfigurationError


def spec(**changed: object) -> DurableSpec:
    given: dict[str, object] = {
        "stream": "TASKS",
        "name": "a",
        "subjects": ("task.a.>",),
        "ack_wait": 30.0,
        "max_ack_pending": 100,
    }
    return DurableSpec(**(given | changed))  # type: ignore[arg-type]  # some are wrong on purpose


def test_the_configuration() -> None:
    config = spec().config()
    assert config["ack_policy"] == "explicit"
    assert config["max_deliver"] == -1
    assert config["ack_wait"] == 30_000_000_000
    assert config["filter_subject"] == "task.a.>"
    assert config["deliver_policy"] == "all"
    assert "backoff" not in config
    several = spec(subjects=("task.a.>", "task.b.>"), start=17).config()
    assert several["filter_subjects"] == ["task.a.>", "task.b.>"]
    assert "filter_subject" not in several
    assert (several["deliver_policy"], several["opt_start_seq"]) == ("by_start_sequence", 17)


@pytest.mark.parametrize(
    "changed",
    [
        {"stream": "A.B"},
        {"stream": ""},
        {"name": "a b"},
        {"name": "a.>"},
        {"subjects": ()},
        {"subjects": ("a..b",)},
        {"ack_wait": 0.0},
        {"max_ack_pending": 0},
    ],
)
def test_what_cannot_be(changed: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        spec(**changed)


@pytest.mark.parametrize("time", [0, 1, 1_795_537_200_123_456, 1_795_537_200_000_000])
def test_times_there_and_back(time: int) -> None:
    assert parse_time(iso_time(time)) == time
