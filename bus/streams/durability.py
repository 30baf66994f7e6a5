"""Says what an acknowledgement by NATS guarantees in a power failure. Pure.

nats-server acknowledges a write first and syncs its files every two minutes, unless `jetstream { sync_interval: always }`
is set (nats-io/nats-server#7564; `tests/chaos/test_power_cut.py`). Clients cannot see the interval: the JetStream API shows
replicas and `persist_mode`, but only the server's configuration and its monitoring port show the interval.
"""

from __future__ import annotations

from collections.abc import Mapping

from sealbus.bus.nats.api import StreamState
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS

VARZ_NESTING = 16
"""Deepest nesting allowed in the monitoring port's document; nats-server 2.15.1 has 6."""


def acknowledged_means(states: Mapping[str, StreamState]) -> str:
    """Return one line for operators: which failures acknowledged messages of these streams survive, and on what condition."""
    counts = [state.config.get("num_replicas") for state in states.values()]
    least = min((count for count in counts if type(count) is int), default=1)
    held = "one replica" if least == 1 else f"{least} replicas"
    lost = "a power failure" if least == 1 else "a power failure of most servers at once"
    return (
        f"each stream has {held} or more: {lost} loses up to two minutes of what was acknowledged unless nats-server has "
        "sync_interval: always, which no client can see (`sealbus doctor --nats-monitor URL` asks the server)"
    )


def describe_sync(varz: bytes) -> str:
    """Return one line that says that the server of this `/varz` document syncs before it acknowledges.

    Raises `ConfigurationError`, with advice, if the server acknowledges first; `BusUnavailable` for any other document.
    """
    try:
        document = parse_object(varz, depth=VARZ_NESTING)
        name, config = _text(document["server_name"]), _object(_object(document["jetstream"])["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise BusUnavailable("the monitoring port's answer is not /varz of a nats-server with JetStream") from error
    if config.get("sync_always") is not True:
        interval = config.get("sync_interval")
        every = "at unknown intervals"
        if type(interval) is int and 0 <= interval <= DEFAULT_LIMITS.max_integer:
            every = f"every {interval / 1e9:g} s"
        raise ConfigurationError(
            f"{name} acknowledges writes before they are on disk, which it syncs {every}: a power failure loses messages "
            "reported as stored; set `jetstream { sync_interval: always }` in its configuration and restart it"
        )
    return f"{name} syncs its disk before it acknowledges"


def _text(value: Json) -> str:
    if type(value) is not str or not is_text(value):
        raise TypeError("not a text")
    return value


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value
