"""The part of the JetStream API that binds consumers, as a simulated broker answers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sealbus.agents.dev.memory.jetstream import ConsumerConfig
from sealbus.bus.nats.api import NANOSECONDS, filters_of
from sealbus.bus.nats.durable_consumer import CONSUMER_EXISTS, CONSUMER_NOT_FOUND, CONSUMER_OFFLINE
from sealbus.envelopes.limits import SECOND
from simulation.broker import SimulatedBroker

__all__ = ["answer"]

_PREFIX: Final = "$JS.API.CONSUMER."
_MICRO: Final = NANOSECONDS // SECOND


def answer(broker: SimulatedBroker, subject: str, payload: bytes) -> bytes:
    """Return the answer to a request about a consumer; raise `Unanswered` if its server was killed."""
    verb, stream, name, *_ = subject.removeprefix(_PREFIX).split(".")
    match verb:
        case "INFO":
            if broker.says_offline(stream, name):
                return _refusal(CONSUMER_OFFLINE, "consumer is offline")
            found = broker.has_consumer(stream, name)
            return _json(_info(broker, stream, name)) if found else _refusal(CONSUMER_NOT_FOUND, "consumer not found")
        case "CREATE":
            asked = json.loads(payload)
            if broker.has_consumer(stream, name) and asked["action"] == "create":
                return _refusal(max(CONSUMER_EXISTS), "consumer already exists")
            broker.bind(stream, _config(name, asked["config"]))
            return _json(_info(broker, stream, name))
        case "DELETE":
            broker.delete_consumer(stream, name)
            return _json({"success": True})
        case _:
            raise ValueError(subject)


def _config(name: str, config: Mapping[str, Any]) -> ConsumerConfig:
    return ConsumerConfig(
        name=name,
        filters=tuple(sorted(filters_of(config))),
        ack_wait=config["ack_wait"] // _MICRO,
        max_ack_pending=config["max_ack_pending"],
        start=config.get("opt_start_seq", 1),
    )


def _info(broker: SimulatedBroker, stream: str, name: str) -> Mapping[str, object]:
    consumer = broker.consumer(stream, name)
    config = consumer.config
    return {
        "config": {
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": config.ack_wait * _MICRO,
            "max_ack_pending": config.max_ack_pending,
            "max_deliver": -1,
            "filter_subjects": list(config.filters),
            "num_replicas": 1,
        },
        "num_ack_pending": consumer.pending,
        "delivered": {"stream_seq": consumer.reached},
        "ack_floor": {"stream_seq": consumer.floor},
        "cluster": {"leader": "n1"},
    }


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode()


def _refusal(code: int, text: str) -> bytes:
    return _json({"error": {"code": 400, "err_code": code, "description": text}})
