"""The JetStream API about streams: read, create and update one, as JSON over one port.

The port is a function, so that an operator's command, a worker and a test use the same code over whatever connection
they have. Nothing here decides whether a configuration is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.names import is_token

__all__ = [
    "NANOSECONDS",
    "JsonObject",
    "Request",
    "StreamState",
    "create_stream",
    "existing_stream",
    "parse_time",
    "stream_names",
    "stream_state",
    "update_stream",
]

NANOSECONDS: Final = 1_000_000_000
"""JetStream writes durations in nanoseconds."""

JsonObject = dict[str, object]
"""A JSON object, nothing about its members checked."""

Request = Callable[[str, bytes], Awaitable[bytes]]
"""Sends a payload to a subject and returns the payload of the one answer; `BusUnavailable` if none comes in time."""

_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(?:Z|([+-])(\d{2}):(\d{2}))")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """One stream as the server has it. `last` is a sequence.

    `created` and `told` (when it answered; 0 where it does not say) are microseconds by the server's clock, truncated.
    """

    name: str
    config: Mapping[str, object] = field(repr=False)
    created: int
    messages: int
    bytes: int
    last: int = 0
    told: int = 0


async def stream_state(request: Request, name: str) -> StreamState | None:
    """Return the stream `name`, or `None` if there is none. Raises `BusUnavailable` for any other answer.

    It is looked up in the list of all. Who may ask for one alone (`STREAM.INFO`) may also ask which subjects it holds, and
    some of ours end in the ids of other agents' tasks; the list tells no subject (SECURITY.md).
    """
    seen = 0
    while True:
        answer = await _ask(request, "$JS.API.STREAM.LIST", {"offset": seen} if seen else {})
        error, total = _error(answer), answer.get("total")
        listed, missing = _array(answer, "streams"), _array(answer, "missing")
        if error is not None:
            raise BusUnavailable(f"stream {name}: the server cannot tell: {error[1]} ({error[0]})")
        if listed is None or missing is None or not isinstance(total, int):
            raise BusUnavailable(f"stream {name}: the server's answer is no list of streams")
        for one in listed:
            if _name(one) == name:
                return _state(name, cast("JsonObject", one))
        if name in missing:
            raise BusUnavailable(f"stream {name}: none of its servers answers")
        seen += len(listed)
        if not listed or seen >= total:
            return None


async def existing_stream(request: Request, name: str) -> StreamState:
    """Return the stream `name` for who reads it. Raises `ConfigurationError` if there is none, `BusUnavailable`."""
    if not is_token(name):
        raise ConfigurationError(f"{name[:255]!r} cannot be the name of a stream")
    state = await stream_state(request, name)
    if state is None:
        raise ConfigurationError(f"stream {name} does not exist: sealbus streams apply")
    return state


async def stream_names(request: Request, subject: str) -> list[str]:
    """Return the names of the streams that store what `subject` may match. Raises `BusUnavailable`."""
    answer = await _ask(request, "$JS.API.STREAM.NAMES", {"subject": subject})
    error, names = _error(answer), answer.get("streams")
    if error is not None:
        raise BusUnavailable(f"streams of {subject}: the server cannot tell: {error[1]} ({error[0]})")
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise BusUnavailable(f"streams of {subject}: the server's answer has no names")
    return [str(one) for one in names]


async def create_stream(request: Request, config: Mapping[str, object]) -> StreamState:
    """Create a stream. Raises `ConfigurationError` with the server's reason if it refuses."""
    return await _write(request, "CREATE", config)


async def update_stream(request: Request, config: Mapping[str, object]) -> StreamState:
    """Replace the whole configuration of a stream. Raises `ConfigurationError` with the server's reason."""
    return await _write(request, "UPDATE", config)


def parse_time(text: str) -> int:
    """Return microseconds since the Unix epoch, truncated, of an RFC 3339 time. Raises `ValueError` for all else."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("not an RFC 3339 time")
    seconds, fraction, sign, hours, minutes = found.groups()
    at = datetime.fromisoformat(f"{seconds}+00:00") - _EPOCH
    micros = (at.days * 86_400 + at.seconds) * SECOND + int((fraction or "").ljust(9, "0")[:6])
    if sign is None:
        return micros
    offset = timedelta(hours=int(hours), minutes=int(minutes)) // timedelta(microseconds=1)
    return micros - offset if sign == "+" else micros + offset


async def _write(request: Request, verb: str, config: Mapping[str, object]) -> StreamState:
    name = config["name"]
    answer = await _ask(request, f"$JS.API.STREAM.{verb}.{name}", config)
    error = _error(answer)
    if error is not None:
        raise ConfigurationError(f"stream {name}: the server refused: {error[1]} ({error[0]})")
    return _state(str(name), answer)


async def _ask(request: Request, subject: str, content: Mapping[str, object]) -> JsonObject:
    payload = await request(subject, json.dumps(content).encode() if content else b"")
    try:
        answer = json.loads(payload)
    except ValueError as error:
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
    """Return an array of the answer, in which the server writes null for an empty one; None for anything else."""
    found = answer.get(member)
    return [] if found is None else found if isinstance(found, list) else None


def _name(listed: object) -> object:
    config = listed.get("config") if isinstance(listed, dict) else None
    return config.get("name") if isinstance(config, dict) else None


def _state(name: str, answer: JsonObject) -> StreamState:
    config, created, state = answer.get("config"), answer.get("created"), answer.get("state")
    if not isinstance(config, dict) or not isinstance(created, str) or not isinstance(state, dict):
        raise BusUnavailable(f"stream {name}: the server's answer has no config, created or state")
    messages, size, last = state.get("messages"), state.get("bytes"), state.get("last_seq")
    if not isinstance(messages, int) or not isinstance(size, int):
        raise BusUnavailable(f"stream {name}: the server's answer has no counts")
    told = answer.get("ts")
    try:
        at = parse_time(created)
        heard = parse_time(told) if isinstance(told, str) else 0
    except ValueError as error:
        raise BusUnavailable(f"stream {name}: the server's answer has a time that is none") from error
    return StreamState(
        name=name,
        config=cast("JsonObject", config),
        created=at,
        messages=messages,
        bytes=size,
        last=last if isinstance(last, int) else 0,
        told=heard,
    )
