"""The JetStream API: streams and consumers, read, created and updated as JSON.

Requests go through a port, which is a function, so that an operator's command, a worker and a test use the same code over
their own connections. `streams.check` decides whether a configuration is right.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, cast

from sealbus.bus.ports import JsonObject, Request, StreamRefused
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.names import is_token

_logger = logging.getLogger(__name__)

OVER_CONSUMERS: Final = 10_026
"""JetStream: more consumers than the account or the stream allows."""


EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
"""Header that lets a message be stored only if this is the last sequence of its subject."""
EXPECTED_LAST_OF: Final = "Nats-Expected-Last-Subject-Sequence-Subject"
"""Header beside `EXPECTED_LAST` that names another subject than the published one."""
EXPECTED_LAST_OF_STREAM: Final = "Nats-Expected-Last-Sequence"
"""Header that lets a message be stored only if this is the last sequence of the stream."""
NOT_THE_LAST: Final = frozenset({10_071, 10_164})
"""JetStream's codes for "wrong last sequence", with the sequence and without."""

STREAM_NOT_FOUND = 10_059
READER_SECONDS = 30.0
"""Seconds for which the consumer of an abandoned reader stays on the server."""

RECORDS: Final = SUBJECTS[AUDIT]
"""The subjects that the audit stream of the current period stores."""

NANOSECONDS: Final = 1_000_000_000
"""JetStream writes durations in nanoseconds."""

_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(?:Z|([+-])(\d{2}):(\d{2}))")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def api(request: Request, subject: str, body: Mapping[str, object] | None = None) -> JsonObject:
    """Ask `$JS.API.<subject>` and return its answer. Raises `StreamRefused` for a refusal, else `BusUnavailable`."""
    answer = await ask(request, f"$JS.API.{subject}", body or {})
    if (error := _error(answer)) is not None:
        raise StreamRefused(f"{error[1]} ({error[0]})", error[0])
    return answer


async def make_reader(
    request: Request,
    stream: str,
    name: str,
    subjects: tuple[str, ...],
    start: int,
    since: int,
    *,
    headers_only: bool = False,
) -> int:
    """Create an in-memory consumer without acknowledgements, which the server removes itself; return its message count."""
    config: dict[str, object] = {
        "name": name,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": int(READER_SECONDS * 1e9),
        "replay_policy": "instant",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(start, 1),
        **({"headers_only": True} if headers_only else {}),
        **filter_config(subjects),
    }
    if since:
        del config["opt_start_seq"]
        config |= {"deliver_policy": "by_start_time", "opt_start_time": iso_time(since)}
    info = await api(
        request, f"CONSUMER.CREATE.{stream}.{name}{filter_suffix(subjects)}", {"stream_name": stream, "config": config}
    )
    pending = info.get("num_pending", 0)
    return pending if isinstance(pending, int) else 0


def iso_time(time: int) -> str:
    """Return microseconds since the Unix epoch as RFC 3339 in UTC."""
    seconds, rest = divmod(time, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def filter_suffix(subjects: tuple[str, ...]) -> str:
    """Return the end of the subject of `CONSUMER.CREATE`: a single filter, so that permissions can name it."""
    return f".{subjects[0]}" if len(subjects) == 1 else ""


def filter_config(subjects: tuple[str, ...]) -> dict[str, object]:
    """Return the part of a consumer's configuration that selects its subjects."""
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


def filters_of(config: Mapping[str, object]) -> set[str]:
    """Return the subjects that a consumer with this configuration takes; empty if it takes all."""
    several = config.get("filter_subjects")
    if isinstance(several, list):
        return {str(subject) for subject in several}
    single = config.get("filter_subject")
    return {str(single)} if single else set()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """The names of the servers that have a stream or consumer, and of those that are in step, the leader among them."""

    servers: frozenset[str] = frozenset()
    current: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorState:
    """How far a mirror is behind the stream that it copies, as its own server last heard.

    `lag` is in messages; `silent` is the microseconds since anything came from there, None if nothing ever has.
    """

    lag: int
    silent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """One stream as it is on the server. `first` and `last` are sequences.

    `created` and `answered` (the time of the server's answer, 0 if unknown) are microseconds by the server's clock,
    truncated.
    """

    name: str
    config: Mapping[str, object] = field(repr=False)
    created: int
    messages: int
    bytes: int
    first: int = 1
    last: int = 0
    answered: int = 0
    group: ReplicaGroup = ReplicaGroup()
    mirror: MirrorState | None = None

    @property
    def is_replicated(self) -> bool:
        """Whether several servers have it."""
        replicas = self.config.get("num_replicas")
        return isinstance(replicas, int) and replicas > 1


async def stream_state(request: Request, name: str, *, subject: str = "") -> StreamState | None:
    """Return the stream `name`, or `None` if there is none. Raises `BusUnavailable` for any other answer.

    With `subject` only streams that store it are looked at, which are fewer to tell of and to read.

    The stream is looked up in the list of all streams, which shows no subjects. A client that may use `STREAM.INFO` may also
    ask for a stream's subjects, some of which end in the ids of other agents' tasks (SECURITY.md).
    """
    async for listed, missing in _stream_lists(request, f"stream {name}", subject):
        for entry in listed:
            if _name(entry) == name:
                return _state(name, cast("JsonObject", entry))
        if name in missing:
            raise BusUnavailable(f"stream {name}: none of its servers answers")
    return None


class StreamList(NamedTuple):
    """All streams of an account: those that answer, and the names of those that no server leads."""

    states: list[StreamState]
    away: list[str]


async def list_streams(request: Request) -> StreamList:
    """Return all streams. Raises `BusUnavailable`."""
    found = StreamList([], [])
    async for listed, missing in _stream_lists(request, "streams"):
        found.states.extend(_state(str(_name(entry)), cast("JsonObject", entry)) for entry in listed)
        found.away.extend(str(name) for name in missing)
    return found


async def stream_states(request: Request) -> list[StreamState]:
    """Return all streams whose servers answer. Raises `BusUnavailable`."""
    return (await list_streams(request)).states


async def _stream_lists(
    request: Request, label: str, subject: str = ""
) -> AsyncGenerator[tuple[list[object], list[object]], None]:
    """Yield the pages of the list of streams: the streams that answer, and the names of those that do not."""
    seen = 0
    only = {"subject": subject} if subject else {}
    while True:
        answer = await ask(request, "$JS.API.STREAM.LIST", {**only, "offset": seen} if seen else only)
        error, total = _error(answer), answer.get("total")
        listed, missing = _array(answer, "streams"), _array(answer, "missing")
        if error is not None:
            raise BusUnavailable(f"{label}: the server cannot tell: {error[1]} ({error[0]})")
        if listed is None or missing is None or not isinstance(total, int):
            raise BusUnavailable(f"{label}: the server's answer is not a list of streams")
        yield listed, missing
        page = len(listed) + len(missing)
        seen += page
        if not page or seen >= total:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """One durable consumer as it is on the server; `active` is when it last delivered, in microseconds, 0 for never.

    `pending` counts messages that were not delivered yet, `unacknowledged` delivered messages that are not settled,
    `redelivered` those of them that were delivered before, and `pulls` waiting pull requests.
    """

    name: str
    subjects: frozenset[str]
    pending: int
    unacknowledged: int
    redelivered: int
    pulls: int
    max_unacknowledged: int
    active: int
    group: ReplicaGroup = ReplicaGroup()


class ConsumerList(NamedTuple):
    """All consumers of a stream: the durable ones that answer, and the names of those that no server leads."""

    states: list[ConsumerState]
    away: list[str]


async def consumer_states(request: Request, stream: str) -> list[ConsumerState]:
    """Return the durable consumers of a stream whose servers answer. Raises as `list_consumers` does."""
    return (await list_consumers(request, stream)).states


async def list_consumers(request: Request, stream: str) -> ConsumerList:
    """Return the consumers of a stream. Raises `BusUnavailable`, also for a malformed answer."""
    found = ConsumerList([], [])
    seen = 0
    while True:
        answer = await api(request, f"CONSUMER.LIST.{stream}", {"offset": seen} if seen else None)
        listed, missing, total = _array(answer, "consumers"), _array(answer, "missing"), answer.get("total")
        if listed is None or missing is None or not isinstance(total, int):
            raise BusUnavailable(f"stream {stream}: the server's answer is not a list of consumers")
        found.states.extend(state for entry in listed if (state := _consumer(stream, entry)) is not None)
        found.away.extend(str(name) for name in missing)
        # The page has also those whose server is away.
        page = len(listed) + len(missing)
        seen += page
        if not page or seen >= total:
            return found


def _consumer(stream: str, answer: object) -> ConsumerState | None:
    """Return the consumer in `answer`; None if it is not durable, such as a reader's."""
    info = answer if isinstance(answer, dict) else {}
    config, delivered = info.get("config"), info.get("delivered")
    counts = [info.get(member) for member in ("num_pending", "num_ack_pending", "num_redelivered", "num_waiting")]
    if (
        not isinstance(config, dict)
        or not isinstance(delivered, dict)
        or not all(type(count) is int for count in counts)
    ):
        raise BusUnavailable(f"stream {stream}: the server's answer is not a list of consumers")
    name, most, active = config.get("durable_name"), config.get("max_ack_pending"), delivered.get("last_active")
    if not isinstance(name, str):
        return None
    try:
        last = parse_time(active) if isinstance(active, str) else 0
    except ValueError as error:
        raise BusUnavailable(f"consumer {name}: the server's answer has a malformed time") from error
    pending, unacknowledged, redelivered, pulls = cast("list[int]", counts)
    return ConsumerState(
        name=name,
        subjects=frozenset(filters_of(config)),
        pending=pending,
        unacknowledged=unacknowledged,
        redelivered=redelivered,
        pulls=pulls,
        max_unacknowledged=most if isinstance(most, int) else 0,
        active=last,
        group=_group(info),
    )


def _group(info: JsonObject) -> ReplicaGroup:
    """Return the servers in the `cluster` of an answer; a server by itself names its leader alone, or nobody."""
    cluster = info.get("cluster")
    leader = cluster.get("leader") if isinstance(cluster, dict) else None
    if not isinstance(cluster, dict) or not isinstance(leader, str) or not leader:
        return ReplicaGroup()
    others = [
        (str(replica.get("name")), replica.get("current") is True and replica.get("offline") is not True)
        for replica in _array(cluster, "replicas") or []
        if isinstance(replica, dict)
    ]
    return ReplicaGroup(
        servers=frozenset({leader, *(name for name, _ in others)}),
        current=frozenset({leader, *(name for name, is_current in others if is_current)}),
    )


async def existing_stream(request: Request, name: str, *, subject: str = "") -> StreamState:
    """Return the stream `name` (`stream_state`). Raises `ConfigurationError` if there is none, `BusUnavailable`."""
    if not is_token(name):
        raise ConfigurationError(f"{name[:255]!r} cannot be the name of a stream")
    state = await stream_state(request, name, subject=subject)
    if state is None:
        raise no_stream(name)
    return state


def no_stream(name: str) -> ConfigurationError:
    """Return the error for a missing stream."""
    return ConfigurationError(f"stream {name} does not exist; run `sealbus streams apply`")


async def api_errors(request: Request) -> int:
    """Return how many requests of the account to the JetStream API were refused, on all servers since each of them started.

    Raises `NotPermitted` without the right to `$JS.API.INFO`, `BusUnavailable`, also for a malformed answer.
    """
    counts = (await api(request, "INFO")).get("api")
    errors = counts.get("errors") if isinstance(counts, dict) else None
    if not isinstance(errors, int):
        raise BusUnavailable("account: the server's answer has no count of errors")
    return errors


async def stream_names(request: Request, subject: str) -> list[str]:
    """Return the names of the streams that store subjects matching `subject`. Raises `BusUnavailable`."""
    answer = await ask(request, "$JS.API.STREAM.NAMES", {"subject": subject})
    error, names = _error(answer), answer.get("streams")
    if error is not None:
        raise BusUnavailable(f"streams of {subject}: the server cannot tell: {error[1]} ({error[0]})")
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BusUnavailable(f"streams of {subject}: the server's answer has no names")
    return [str(name) for name in names]


async def audit_stream(request: Request, *, first: str = AUDIT) -> StreamState:
    """Return the stream that takes records now: `first`, unless that was closed or is gone.

    Raises `ConfigurationError` if there is none, and `BusUnavailable` while it is being replaced.
    """
    state = await stream_state(request, first)
    if state is not None and takes_records(state):
        return state
    names = await stream_names(request, RECORDS)
    if len(names) == 1:
        return await existing_stream(request, names[0])
    if state is not None and closed_subject(first) in subjects_of(state):
        raise BusUnavailable(
            "no stream takes audit records now: a period is being closed, or `streams roll` was interrupted"
        )
    if state is None:
        raise ConfigurationError(f"stream {first}: does not exist; run `sealbus streams plan`")
    return state


def takes_records(state: StreamState) -> bool:
    """Return whether all records go to this stream."""
    return any(subject in (RECORDS, ">") for subject in subjects_of(state))


def closed_subject(name: str) -> str:
    """Return the subject of a stream that takes no more records, because a stream must have a subject."""
    return f"closed.{name}"


def subjects_of(state: StreamState) -> list[str]:
    """Return the subjects of a stream."""
    subjects = state.config.get("subjects")
    return [subject for subject in subjects if isinstance(subject, str)] if isinstance(subjects, list) else []


async def create_stream(request: Request, config: Mapping[str, object]) -> StreamState:
    """Create a stream. Raises `ConfigurationError` with the server's reason if it refuses."""
    return await _write(request, "CREATE", config)


async def update_stream(request: Request, config: Mapping[str, object]) -> StreamState:
    """Replace the whole configuration of a stream. Raises `ConfigurationError` with the server's reason."""
    metadata = config.get("metadata")
    if isinstance(metadata, dict):
        # The server writes its own version there, and does not accept it back.
        config = {
            **config,
            "metadata": {key: value for key, value in metadata.items() if not str(key).startswith("_nats.")},
        }
    return await _write(request, "UPDATE", config)


def parse_time(text: str) -> int:
    """Return the microseconds since the Unix epoch, truncated, of an RFC 3339 time. Raises `ValueError` for anything else."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time")
    seconds, fraction, sign, hours, minutes = match.groups()
    at = datetime.fromisoformat(f"{seconds}+00:00") - _EPOCH
    micros = (at.days * 86_400 + at.seconds) * SECOND + int((fraction or "").ljust(9, "0")[:6])
    if sign is None:
        return micros
    offset = timedelta(hours=int(hours), minutes=int(minutes)) // timedelta(microseconds=1)
    return micros - offset if sign == "+" else micros + offset


async def _write(request: Request, verb: str, config: Mapping[str, object]) -> StreamState:
    name = config["name"]
    answer = await ask(request, f"$JS.API.STREAM.{verb}.{name}", config)
    error = _error(answer)
    if error is not None and error[0] == OVER_CONSUMERS and "max_consumers" in config:
        # The account allows fewer. Keep the current limit, so that the rest of the configuration is written.
        current = await stream_state(request, str(name)) if verb == "UPDATE" else None
        stands = current.config.get("max_consumers", -1) if current is not None else -1
        if config["max_consumers"] != stands:
            _logger.warning("stream %s: the account allows fewer than %s consumers", name, config["max_consumers"])
            return await _write(request, verb, {**config, "max_consumers": stands})
    if error is not None:
        raise ConfigurationError(f"stream {name}: the server refused: {error[1]} ({error[0]})")
    return _state(str(name), answer)


async def ask(request: Request, subject: str, content: Mapping[str, object] = MappingProxyType({})) -> JsonObject:
    """Ask `subject` and return the answer, which may be an error. Raises `BusUnavailable` unless it is a JSON object."""
    payload = await request(subject, json.dumps(content).encode() if content else b"")
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BusUnavailable(f"{subject}: the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise BusUnavailable(f"{subject}: the answer is not a JSON object")
    return cast("JsonObject", answer)


def _error(answer: JsonObject) -> tuple[int, str] | None:
    error = answer.get("error")
    if error is None:
        return None
    if not isinstance(error, dict):
        return 0, "no reason given"
    code = error.get("err_code", error.get("code", 0))
    return (code if isinstance(code, int) else 0), str(error.get("description", "no reason given"))


def _array(answer: JsonObject, member: str) -> list[object] | None:
    """Return an array member of the answer. The server writes null for an empty array; anything else returns None."""
    value = answer.get(member)
    return [] if value is None else value if isinstance(value, list) else None


def _name(listed: object) -> object:
    config = listed.get("config") if isinstance(listed, dict) else None
    return config.get("name") if isinstance(config, dict) else None


def _state(name: str, answer: JsonObject) -> StreamState:
    config, created, state = answer.get("config"), answer.get("created"), answer.get("state")
    if not isinstance(config, dict) or not isinstance(created, str) or not isinstance(state, dict):
        raise BusUnavailable(f"stream {name}: the server's answer has no config, created or state")
    messages, size, last = state.get("messages"), state.get("bytes"), state.get("last_seq")
    first = state.get("first_seq")
    if not isinstance(messages, int) or not isinstance(size, int):
        raise BusUnavailable(f"stream {name}: the server's answer has no counts")
    time = answer.get("ts")
    try:
        at = parse_time(created)
        answered = parse_time(time) if isinstance(time, str) else 0
    except ValueError as error:
        raise BusUnavailable(f"stream {name}: the server's answer has a malformed time") from error
    return StreamState(
        name=name,
        config=cast("JsonObject", config),
        created=at,
        messages=messages,
        bytes=size,
        first=first if isinstance(first, int) and first > 0 else 1,
        last=last if isinstance(last, int) else 0,
        answered=answered,
        group=_group(answer),
        mirror=_mirror(answer),
    )


def _mirror(answer: JsonObject) -> MirrorState | None:
    mirror = answer.get("mirror")
    if not isinstance(mirror, dict):
        return None
    lag, active = mirror.get("lag"), mirror.get("active")
    heard = active // 1_000 if isinstance(active, int) and active >= 0 else None
    return MirrorState(lag=lag if isinstance(lag, int) else 0, silent=heard)
