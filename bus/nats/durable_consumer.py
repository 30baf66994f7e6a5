"""Durable consumers: what a process needs of a consumer, and how versions of an agent create and share one.

Two versions of an agent run side by side during an upgrade, and each binds the same consumers whenever it connects. So
binding takes nothing away that the other version needs: neither pending deliveries nor subjects that it listens to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.cells import cell_prefix
from sealbus.bus.nats.api import OVER_CONSUMERS, api, filter_config, filter_suffix, filters_of
from sealbus.bus.nats.connection.frames import check_pattern
from sealbus.bus.ports import MOST_LISTENED, ConsumerLoad, JsonObject, Request, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.trust.names import is_token

_logger = logging.getLogger(__name__)

CONSUMER_NOT_FOUND = 10_014
CONSUMER_EXISTS = frozenset({10_148, 10_012})
CONSUMER_OFFLINE: Final = 10_119
"""JetStream: the server that has the consumer was stopped."""
OVER_ASSETS: Final = 10_023
"""JetStream: too few servers may have another replicated stream or consumer (`max_ha_assets`), or are there."""
OVER_ACK_PENDING: Final = 10_121
"""JetStream: `max_ack_pending` is above the limit of the server, the account or the stream."""

INFO_SECONDS: Final = 2.0
"""Seconds within which the server of a consumer tells of it: the slowest of 2,000 took 0.4 s on a cluster at work."""
CREATE_AGAIN: Final = (0.1, 0.4, 0.5)
"""Seconds after which a consumer is created again, if the one that is being deleted was still there."""

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


class ConsumerSilent(BusUnavailable):
    """The API works, and the server of the consumer does not answer, or was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableSpec:
    """A durable pull consumer as this program needs it. `ack_wait` is in seconds.

    `start` and `others` count at creation only. `max_ack_pending` is the least number that the consumer must allow (`bind`).
    """

    stream: str
    name: str
    subjects: tuple[str, ...]
    ack_wait: float
    max_ack_pending: int
    start: int = 0
    shared: bool = False
    """Whether other versions may listen to further subjects through this consumer; binding then keeps these subjects."""
    others: tuple[tuple[str, int], ...] = ()
    """The subjects of other versions in a shared consumer, and when one of them last bound it (Unix time)."""
    one_replica: bool = False
    """Whether one server has the consumer, however many have its stream."""
    cell: str = ""
    """The cell of the stream, if it is another than the connection's."""

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

    @property
    def prefix(self) -> str:
        """What stands before the subjects of the API and of acknowledgements."""
        return cell_prefix(self.cell) if self.cell else ""

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
            # The server takes 0 for as many as the stream has.
            "num_replicas": 1 if self.one_replica else 0,
            **filter_config(self.subjects),
        }
        if self.start:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self.start}
        return config


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A consumer that matches its spec. Everything up to `ack_floor` (a stream sequence) is acknowledged.

    `listened` has the subjects of a shared consumer, sorted, with the times of `DurableSpec.others`.
    """

    ack_floor: int
    load: ConsumerLoad
    listened: tuple[tuple[str, int], ...] = ()


async def bind(request: Request, spec: DurableSpec, anew: Callable[[], Awaitable[DurableSpec]] | None = None) -> Bound:
    """Make sure that the durable consumer of `spec` exists, creating or updating it.

    A consumer that does not exist is created as `anew` says, which returns `spec` with another `start` and `others`.
    Another version of the agent may have bound it with other settings. `max_ack_pending` is only raised: if it were lower
    than the number of deferred deliveries, the consumer would deliver nothing new. If the server allows fewer, it is halved
    until the server agrees. In a `shared` consumer, subjects to which another version listened within `LISTENED_SECONDS`
    stay in the filter, because a consumer skips messages outside its filter forever. Raises `ConfigurationError` if a
    consumer of that name exists and cannot be updated, or there is no room for it; `ConsumerSilent`; `BusUnavailable`.
    """
    try:
        info = await _info(request, spec)
    except StreamRefused as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        if anew is not None:
            spec = await anew()
        try:
            return await create(request, spec)
        except StreamRefused as refused:
            if refused.err_code not in CONSUMER_EXISTS:
                raise
            # Another replica was quicker.
            info = await _info(request, spec)
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
    spec = listened.fitting(spec)
    wanted = spec.config()
    changing = ("ack_wait", "max_deliver")
    changed = any(config.get(key) != wanted[key] for key in changing) or filters_of(config) != set(listened.subjects)
    changed = changed or _other_replicas(info, config, spec)
    if changed or listened.old or least < spec.max_ack_pending:
        begun = {key: config[key] for key in ("deliver_policy", "opt_start_seq", "opt_start_time") if key in config}
        bound = _bound(await _create(request, spec, "update", begun, listened=listened, least=least))
        if changed or bound.load.most > least:
            _logger.info("consumer %s of %s: brought up to date", spec.name, spec.stream)
        return bound
    return _bound(info)


async def create(request: Request, spec: DurableSpec) -> Bound:
    """Create the consumer of `spec`.

    Raises `StreamRefused` if there is one, `ConfigurationError` if there is no room for it, and `BusUnavailable`.
    """
    return _bound(await _create(request, spec, "create"))


async def create_again(request: Request, spec: DurableSpec) -> Bound:
    """Delete the consumer of `spec`, whose server is away, and create it on another server.

    A killed server confirms no deletion, which takes effect at once all the same (nats-server 2.15.1). So the consumer is
    created without waiting, or another process that finds none would create it where that process thinks right. Raises
    `BusUnavailable`, also if the deletion is not permitted or another process was quicker.
    """
    deleting = asyncio.ensure_future(api(request, f"CONSUMER.DELETE.{spec.stream}.{spec.name}"))
    try:
        # The request is written in its first step.
        await asyncio.sleep(0)
        for pause in CREATE_AGAIN:
            try:
                return await create(request, spec)
            except StreamRefused as refused:
                if refused.err_code not in CONSUMER_EXISTS:
                    raise
                await asyncio.wait({deleting}, timeout=pause)
        error = deleting.exception() if deleting.done() else None
        why = f": {error.detail}" if isinstance(error, SealbusError) else ""
        raise BusUnavailable(f"consumer {spec.name} of {spec.stream} is still there{why}") from error
    finally:
        deleting.cancel()
        # The answer to the deletion does not matter any more.
        await asyncio.gather(deleting, return_exceptions=True)


async def _info(request: Request, spec: DurableSpec) -> JsonObject:
    """Return what the server of a consumer says about it. Raises `ConsumerSilent`, `StreamRefused`, `BusUnavailable`."""
    silence = f"consumer {spec.name} of {spec.stream}: its server does not answer"
    try:
        async with asyncio.timeout(INFO_SECONDS):
            return await api(request, f"CONSUMER.INFO.{spec.stream}.{spec.name}")
    except TimeoutError as error:
        raise ConsumerSilent(silence) from error
    except StreamRefused as error:
        if error.err_code != CONSUMER_OFFLINE:
            raise
        # Other servers know that this server was stopped. It gets the time to come back that a silent one gets.
        await asyncio.sleep(INFO_SECONDS)
        raise ConsumerSilent(silence) from error


def _other_replicas(info: JsonObject, config: Mapping[str, object], spec: DurableSpec) -> bool:
    """Return whether a consumer has another number of replicas than `spec` wants."""
    declared, cluster = config.get("num_replicas") or 0, info.get("cluster")
    if not spec.one_replica:
        return declared != 0
    others = cluster.get("replicas") if isinstance(cluster, dict) else None
    return declared != 1 and bool(declared or others)


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
        for subject, since in spec.others:
            noted[subject] = max(since, noted.get(subject, since))
        known = filters_of(config) | {subject for subject, _ in spec.others}
        others = {
            subject: min(now, noted.get(subject, now))
            for subject in sorted(known - set(spec.subjects))
            # The server refuses filters that overlap.
            if not any(matches(own, subject) or matches(subject, own) for own in spec.subjects)
        }
        others = {subject: since for subject, since in others.items() if now - since < LISTENED_SECONDS}
        if len(json.dumps(times | others)) > METADATA_BYTES:
            return cls(spec.subjects, {})
        old = any(now - noted.get(subject, 0) >= NOTED_SECONDS for subject in spec.subjects)
        return cls((*spec.subjects, *others), times | others, old)

    def fitting(self, spec: DurableSpec) -> DurableSpec:
        """Return `spec`, with the replicas of the stream if others could not be told what the consumer listens to."""
        fits = 0 < len(self.times) <= MOST_LISTENED
        return spec if fits or not spec.shared else replace(spec, one_replica=False)

    def config(self) -> dict[str, object]:
        """Return the part of a consumer's configuration with subjects and times."""
        return {
            **filter_config(self.subjects),
            **({"metadata": {LISTENED: json.dumps(self.times)}} if self.times else {}),
        }


def joined(one: tuple[tuple[str, int], ...], other: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Return the subjects of both that a version has bound within `LISTENED_SECONDS`, each with its later time."""
    times = dict(one)
    for subject, since in other:
        times[subject] = max(since, times.get(subject, since))
    after = int(time.time()) - LISTENED_SECONDS
    return tuple(sorted((subject, since) for subject, since in times.items() if since > after))


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
    spec = listened.fitting(spec)
    subject = f"CONSUMER.CREATE.{spec.stream}.{spec.name}{filter_suffix(listened.subjects)}"
    most = max(spec.max_ack_pending, least)
    while True:
        config = spec.config() | dict(start or {}) | {"max_ack_pending": most if most < UNBOUNDED else -1}
        config = {key: value for key, value in config.items() if not key.startswith("filter_")} | listened.config()
        try:
            info = await api(request, subject, {"stream_name": spec.stream, "config": config, "action": action})
        except StreamRefused as refused:
            if refused.err_code == OVER_CONSUMERS:
                raise ConfigurationError(
                    f"consumer {spec.name}: stream {spec.stream}, or its account, has as many as it may (max_consumers)"
                ) from refused
            # With one replica it says that no server of the stream is there, for a while.
            if refused.err_code == OVER_ASSETS and not spec.one_replica:
                raise ConfigurationError(
                    f"consumer {spec.name} of {spec.stream}: too few servers have room for its replicas (max_ha_assets)"
                ) from refused
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
    floor, config = info.get("ack_floor"), info.get("config")
    sequence = floor.get("stream_seq", 0) if isinstance(floor, dict) else 0
    return Bound(
        ack_floor=sequence if isinstance(sequence, int) else 0,
        load=_load(info),
        listened=tuple(sorted(_noted(config).items())) if isinstance(config, dict) else (),
    )


async def look(request: Request, spec: DurableSpec) -> Bound:
    """Return the consumer as its server has it. Raises `BusUnavailable`."""
    return _bound(await _info(request, spec))


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
