"""Durable consumers: what a process needs of a consumer, and how versions of an agent create and share one.

Two versions of an agent run side by side during an upgrade, and each binds the same consumers whenever it connects. So
binding takes nothing away that the other version needs: neither pending deliveries nor subjects that it listens to.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sealbus.bus.nats.api import api, filter_config, filter_suffix, filters_of
from sealbus.bus.nats.connection.frames import check_pattern
from sealbus.bus.ports import ConsumerLoad, JsonObject, Request, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.trust.names import is_token

_logger = logging.getLogger(__name__)

CONSUMER_NOT_FOUND = 10_014
CONSUMER_EXISTS = frozenset({10_148, 10_012})
OVER_ACK_PENDING: Final = 10_121
"""JetStream: `max_ack_pending` is above the limit of the server, the account or the stream."""

UNBOUNDED: Final = 1 << 31
"""Pending deliveries of a consumer without a bound, which the server writes as -1."""

LISTENED: Final = "sealbus-listened"
"""Metadata of a shared consumer: when each of its subjects was last listened to."""
LISTENED_SECONDS: Final = 86_700
"""Seconds for which a subject stays in the filter after a version last bound it: as long as EVENTS keeps an event."""
NOTED_SECONDS: Final = 3_600
"""Seconds after which that time is written again. A running version binds as often as its certificate is renewed."""
METADATA_BYTES: Final = 65_536
"""Most bytes of these times; nats-server allows 128 KiB of metadata. Beyond, a version listens to its own subjects only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableSpec:
    """A durable pull consumer as this program needs it. `ack_wait` is in seconds; `start` is used only at creation.

    `max_ack_pending` is the least number that the consumer must allow; see `bind`.
    """

    stream: str
    name: str
    subjects: tuple[str, ...]
    ack_wait: float
    max_ack_pending: int
    start: int = 0
    shared: bool = False
    """Whether other versions may listen to further subjects through this consumer; binding then keeps these subjects."""

    def __post_init__(self) -> None:
        for text in (self.stream, self.name):
            if not is_token(text):
                raise ConfigurationError(f"{text[:255]!r} cannot be the name of a stream or consumer")
        if not self.subjects:
            raise ConfigurationError(f"consumer {self.name}: at least one subject is needed")
        for subject in self.subjects:
            check_pattern(subject)
        if self.ack_wait < 0.1 or self.max_ack_pending < 1:
            raise ConfigurationError(f"consumer {self.name}: ack_wait is at least 0.1 s, max_ack_pending at least 1")

    def config(self) -> dict[str, object]:
        """Return the configuration as the API expects it."""
        config: dict[str, object] = {
            "name": self.name,
            "durable_name": self.name,
            "ack_policy": "explicit",
            "ack_wait": int(self.ack_wait * 1e9),
            "max_ack_pending": self.max_ack_pending,
            "max_deliver": -1,
            "deliver_policy": "all",
            "replay_policy": "instant",
            **filter_config(self.subjects),
        }
        if self.start:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self.start}
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A consumer that matches its spec. Everything up to `ack_floor` (a stream sequence) is acknowledged."""

    ack_floor: int
    load: ConsumerLoad


async def bind(request: Request, spec: DurableSpec) -> Bound:
    """Make sure that the durable consumer of `spec` exists, creating or updating it.

    Another version of the agent may have bound it with other settings. `max_ack_pending` is only raised: if it were lower
    than the number of deferred deliveries, the consumer would deliver nothing new. If the server allows fewer, it is halved
    until the server agrees. In a `shared` consumer, subjects to which another version listened within `LISTENED_SECONDS`
    stay in the filter, because a consumer skips messages outside its filter forever. Raises `ConfigurationError` if a
    consumer of that name exists and cannot be updated; `BusUnavailable`.
    """
    try:
        info = await api(request, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    except StreamRefused as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        try:
            return _bound(await _create(request, spec, "create"))
        except StreamRefused as refused:
            if refused.err_code not in CONSUMER_EXISTS:
                raise
            # Another replica was quicker.
            info = await api(request, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    config = info.get("config")
    if not isinstance(config, dict):
        raise BusUnavailable(f"consumer {spec.name} of {spec.stream}: the server's answer is malformed")
    wanted = spec.config()
    fixed = ("ack_policy", "replay_policy")
    if config.get("deliver_subject") or any(config.get(key) != wanted[key] for key in fixed):
        raise ConfigurationError(
            f"consumer {spec.name} of {spec.stream} is not a pull consumer with explicit acknowledgement: delete it"
        )
    least, listened = _most(config), _Listened.of(config, spec)
    changing = ("ack_wait", "max_deliver")
    changed = any(config.get(key) != wanted[key] for key in changing) or filters_of(config) != set(listened.subjects)
    if changed or listened.old or least < spec.max_ack_pending:
        start = {key: config[key] for key in ("deliver_policy", "opt_start_seq", "opt_start_time") if key in config}
        bound = _bound(await _create(request, spec, "update", start, listened=listened, least=least))
        if changed or bound.load.most > least:
            _logger.info("consumer %s of %s: brought up to date", spec.name, spec.stream)
        return bound
    return _bound(info)


@dataclass(frozen=True, slots=True)
class _Listened:
    """The subjects of a consumer, and for each when a version that listens to it last bound (seconds since the Unix epoch).

    The server keeps the times in the consumer's metadata. They only decide what is delivered.
    """

    subjects: tuple[str, ...]
    times: Mapping[str, int]
    old: bool = False
    """Whether a time is so old that it must be written again."""

    @classmethod
    def of(cls, config: Mapping[str, object], spec: DurableSpec) -> _Listened:
        """Return the subjects for a consumer that has the configuration `config`, which is empty for a new consumer."""
        now = int(time.time())
        times = dict.fromkeys(spec.subjects, now) if spec.shared else {}
        if not spec.shared:
            return cls(spec.subjects, times)
        noted = _noted(config)
        others = {
            subject: min(now, noted.get(subject, now))
            for subject in sorted(filters_of(config) - set(spec.subjects))
            # The server refuses filters that overlap.
            if not any(matches(own, subject) or matches(subject, own) for own in spec.subjects)
        }
        others = {subject: since for subject, since in others.items() if now - since < LISTENED_SECONDS}
        if len(json.dumps(times | others)) > METADATA_BYTES:
            return cls(spec.subjects, {})
        old = any(now - noted.get(subject, 0) >= NOTED_SECONDS for subject in spec.subjects)
        return cls((*spec.subjects, *others), times | others, old)

    def config(self) -> dict[str, object]:
        """Return the part of a consumer's configuration with subjects and times."""
        return {
            **filter_config(self.subjects),
            **({"metadata": {LISTENED: json.dumps(self.times)}} if self.times else {}),
        }


def _noted(config: Mapping[str, object]) -> dict[str, int]:
    """Return the times in a consumer's metadata; empty if there are none, or they are malformed."""
    metadata = config.get("metadata")
    text = metadata.get(LISTENED) if isinstance(metadata, dict) else None
    try:
        times = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return {key: at for key, at in times.items() if type(at) is int} if isinstance(times, dict) else {}


async def _create(
    request: Request,
    spec: DurableSpec,
    action: str,
    start: Mapping[str, object] | None = None,
    *,
    listened: _Listened | None = None,
    least: int = 1,
) -> JsonObject:
    """Create or update the consumer with as many pending deliveries as the server allows, and no fewer than `least`."""
    listened = listened or _Listened.of({}, spec)
    subject = f"CONSUMER.CREATE.{spec.stream}.{spec.name}{filter_suffix(listened.subjects)}"
    most = max(spec.max_ack_pending, least)
    while True:
        config = spec.config() | dict(start or {}) | {"max_ack_pending": most if most < UNBOUNDED else -1}
        config = {key: value for key, value in config.items() if not key.startswith("filter_")} | listened.config()
        try:
            info = await api(request, subject, {"stream_name": spec.stream, "config": config, "action": action})
        except StreamRefused as refused:
            if refused.err_code != OVER_ACK_PENDING or most <= least:
                raise
            most = max(most // 2, least)
            continue
        if most < spec.max_ack_pending:
            _logger.warning(
                "consumer %s of %s: the server allows %d pending deliveries, not %d",
                spec.name,
                spec.stream,
                most,
                spec.max_ack_pending,
            )
        return info


def _bound(info: JsonObject) -> Bound:
    floor = info.get("ack_floor")
    sequence = floor.get("stream_seq", 0) if isinstance(floor, dict) else 0
    return Bound(ack_floor=sequence if isinstance(sequence, int) else 0, load=_load(info))


async def consumer_load(request: Request, stream: str, name: str) -> ConsumerLoad:
    """Return what a durable consumer holds now. Raises `BusUnavailable`."""
    return _load(await api(request, f"CONSUMER.INFO.{stream}.{name}"))


def _load(info: JsonObject) -> ConsumerLoad:
    config, unsettled = info.get("config"), info.get("num_ack_pending")
    if not isinstance(config, dict):
        raise BusUnavailable("the server's answer about a consumer is malformed")
    return ConsumerLoad(unsettled=unsettled if type(unsettled) is int else 0, most=_most(config))


def _most(config: Mapping[str, object]) -> int:
    """Return how many pending deliveries a consumer's configuration allows."""
    most = config.get("max_ack_pending")
    return most if type(most) is int and most > 0 else UNBOUNDED
