"""The questions to the JetStream API about consumers, durable ones and readers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sealbus.bus.connection import Connection
from sealbus.bus.frames import check_pattern
from sealbus.bus.jetstream_api import JsonObject
from sealbus.bus.link import Link
from sealbus.bus.publish_errors import StreamRefused
from sealbus.bus.request import decoded
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.names import is_token

__all__ = [
    "Bound",
    "DurableSpec",
    "api",
    "bind",
    "delete_reader",
    "iso_time",
    "make_reader",
]

_log = logging.getLogger(__name__)

API_SECONDS = 5.0
CONSUMER_NOT_FOUND = 10_014
CONSUMER_EXISTS = frozenset({10_148, 10_012})


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableSpec:
    """A durable pull consumer as this program needs it. `ack_wait` in seconds; `start` is used when it is created."""

    stream: str
    name: str
    subjects: tuple[str, ...]
    ack_wait: float
    max_ack_pending: int
    start: int = 0

    def __post_init__(self) -> None:
        for text in (self.stream, self.name):
            if not is_token(text):
                raise ConfigurationError(f"{text[:255]!r} cannot be the name of a stream or consumer")
        if not self.subjects:
            raise ConfigurationError(f"consumer {self.name}: it needs at least one subject")
        for subject in self.subjects:
            check_pattern(subject)
        if self.ack_wait < 0.1 or self.max_ack_pending < 1:
            raise ConfigurationError(f"consumer {self.name}: ack_wait at least 0.1 s, max_ack_pending at least 1")

    def config(self) -> dict[str, object]:
        """Return the configuration as the API wants it."""
        config: dict[str, object] = {
            "name": self.name,
            "durable_name": self.name,
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait * 1e9),
            "max_ack_pending": self.max_ack_pending,
            "max_deliver": -1,
            "deliver_policy": "all",
            "replay_policy": "instant",
            **_filters(self.subjects),
        }
        if self.start:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self.start}
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A consumer that is as it should be. Everything up to `ack_floor` (a stream sequence) is acknowledged."""

    ack_floor: int


async def api(connection: Connection, subject: str, body: Mapping[str, object] | None = None) -> JsonObject:
    """Ask `$JS.API.<subject>`, return its answer. Raises `StreamRefused` for a refusal, else `BusUnavailable`."""
    full = f"$JS.API.{subject}"
    payload = json.dumps(body).encode() if body is not None else b""
    return decoded(full, await connection.request(full, payload, deadline=API_SECONDS))


async def bind(connection: Connection, spec: DurableSpec) -> Bound:
    """Make sure that the durable consumer of `spec` is there, creating it or bringing it up to date.

    Raises `ConfigurationError` if one of that name exists that cannot be made so; `BusUnavailable`.
    """
    try:
        info = await api(connection, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    except StreamRefused as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        try:
            return _bound(await _create(connection, spec, "create"))
        except StreamRefused as refused:
            if refused.err_code not in CONSUMER_EXISTS:
                raise
            # Another replica was quicker.
            info = await api(connection, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    found = info.get("config")
    if not isinstance(found, dict):
        raise BusUnavailable(f"consumer {spec.name} of {spec.stream}: the answer about it is not one")
    wanted = spec.config()
    fixed = ("ack_policy", "replay_policy")
    if found.get("deliver_subject") or any(found.get(key) != wanted[key] for key in fixed):
        raise ConfigurationError(
            f"consumer {spec.name} of {spec.stream} is not a pull consumer with explicit acknowledgement: delete it"
        )
    changing = ("ack_wait", "max_ack_pending", "max_deliver")
    if any(found.get(key) != wanted[key] for key in changing) or _subjects(found) != set(spec.subjects):
        kept = {key: found[key] for key in ("deliver_policy", "opt_start_seq", "opt_start_time") if key in found}
        _log.info("consumer %s of %s: brought up to date", spec.name, spec.stream)
        return _bound(await _create(connection, spec, "update", kept))
    return _bound(info)


async def make_reader(
    connection: Connection, stream: str, name: str, subjects: tuple[str, ...], start: int, since: int
) -> int:
    """Create a consumer in memory, without acknowledgement, gone by itself; return how many messages it has."""
    config: dict[str, object] = {
        "name": name,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(READER_SECONDS * 1e9),
        "replay_policy": "instant",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(start, 1),
        **_filters(subjects),
    }
    if since:
        del config["opt_start_seq"]
        config |= {"deliver_policy": "by_start_time", "opt_start_time": iso_time(since)}
    info = await api(
        connection, f"CONSUMER.CREATE.{stream}.{name}{_suffix(subjects)}", {"stream_name": stream, "config": config}
    )
    pending = info.get("num_pending", 0)
    return pending if isinstance(pending, int) else 0


def delete_reader(link: Link, stream: str, name: str) -> None:
    """Ask for a reader's consumer to be deleted, and wait for nothing. Raises `BusUnavailable`."""
    # A reply subject that nobody waits on: without one the server would not take this for a question.
    nobody = link.replies.inbox + b"gone"
    link.write(b"PUB $JS.API.CONSUMER.DELETE.%b.%b %b 0\r\n\r\n" % (stream.encode(), name.encode(), nobody))


READER_SECONDS = 30.0
"""How long an abandoned reader's consumer stays on the server."""


def iso_time(time: int) -> str:
    """Return microseconds since the Unix epoch as RFC 3339 in UTC."""
    seconds, rest = divmod(time, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


async def _create(
    connection: Connection, spec: DurableSpec, action: str, kept: Mapping[str, object] | None = None
) -> JsonObject:
    config = spec.config() | dict(kept or {})
    body = {"stream_name": spec.stream, "config": config, "action": action}
    return await api(connection, f"CONSUMER.CREATE.{spec.stream}.{spec.name}{_suffix(spec.subjects)}", body)


def _suffix(subjects: tuple[str, ...]) -> str:
    # With one filter it stands in the API's subject too, so that permissions can name it.
    return f".{subjects[0]}" if len(subjects) == 1 else ""


def _filters(subjects: tuple[str, ...]) -> dict[str, object]:
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


def _subjects(config: Mapping[str, object]) -> set[str]:
    several = config.get("filter_subjects")
    if isinstance(several, list):
        return {str(one) for one in several}
    one = config.get("filter_subject")
    return {str(one)} if one else set()


def _bound(info: JsonObject) -> Bound:
    floor = info.get("ack_floor")
    sequence = floor.get("stream_seq", 0) if isinstance(floor, dict) else 0
    return Bound(ack_floor=sequence if isinstance(sequence, int) else 0)
