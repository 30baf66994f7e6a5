"""Checks what acceptance requires of a stream. Every consumer does so at start and on each new link.

Step 6 relies on the broker (SPEC.md section 7, "What the stream must be"): a message is stored once within the window,
and its id is remembered for as long as a copy would be accepted. A setting is refused if it could store a message without its
id, or under another time or subject, or remove it early, or if this version does not know it. Streams are checked again after
a reconnect, because the server may be a different one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.nats.api import NANOSECONDS, StreamState, audit_stream, stream_state
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.ports import Request
from sealbus.bus.streams.declared import DUPLICATE_WINDOW, HELD_SECONDS, KEPT_SECONDS, Guard, Stream
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

FORBIDDEN: Final = {
    "sources": "stores copies from elsewhere, under new times",
    "mirror": "is filled from elsewhere",
    "subject_transform": "stores messages under another subject than they were sent to",
    "republish": "gives copies to readers of another subject",
    "allow_rollup_hdrs": "lets a message remove others, and their ids",
    "allow_msg_ttl": "lets a message be removed before a copy of it expires",
    "subject_delete_marker_ttl": "puts messages of the server among ours",
    "allow_msg_schedules": "stores messages later than they were sent",
    "allow_msg_counter": "rewrites bodies",
    "discard_new_per_subject": "requires a limit per subject",
    "no_ack": "acknowledges nothing",
    "sealed": "stores nothing any more",
    "allow_batched": "allows another way to publish, not shown to keep ids",
}
"""Settings that must be absent or off in every stream, and why. All are set only by stream configuration.

The exception is `allow_rollup_hdrs`, which is on if the declaration has it (`Stream.rollup`).
"""

INERT: Final = frozenset(
    {
        "name",
        "description",
        "metadata",
        "max_msgs",
        "max_bytes",
        "max_msg_size",
        "max_consumers",
        "num_replicas",
        "placement",
        "compression",
        "consumer_limits",
        "first_seq",
        "allow_direct",
        "mirror_direct",
        "allow_atomic",
        "deny_delete",
        "deny_purge",
    }
)
"""Settings that cannot make an accepted message acceptable again; an operator may choose them."""

_logger = logging.getLogger(__name__)

_ALL: Final = frozenset(Guard)
_IDS: Final = frozenset({Guard.LIVE, Guard.EVIDENCE})
_KEPT: Final = _IDS | {Guard.STATE, Guard.HELD, Guard.OBJECTS, Guard.PEOPLE, Guard.MIRROR}
_WHOLE: Final = _IDS | {Guard.HELD, Guard.MIRROR}
_UNREMOVED: Final = _IDS | {Guard.MIRROR}
_AGED: Final = frozenset({Guard.LIVE, Guard.STATE})
_UNTIL_DELETED: Final = frozenset({Guard.OBJECTS, Guard.PEOPLE})
_BY_SUBJECT: Final = _UNTIL_DELETED | {Guard.STATE}
_HELD: Final = frozenset({Guard.HELD})
_EVIDENCE: Final = frozenset({Guard.EVIDENCE})
_RECORDS: Final = _EVIDENCE | {Guard.MIRROR}

AGAIN = 1.0
"""Seconds until a check without an answer is repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One setting of a stream that must be changed. Both texts are for people."""

    stream: str
    field: str
    found: str
    needed: str

    def __str__(self) -> str:
        return f"stream {self.stream}: {self.field} is {self.found}, needed: {self.needed}"


@dataclass(frozen=True, slots=True)
class _Condition:
    field: str
    guards: frozenset[Guard]
    holds: Callable[[object], bool]
    needed: str


def _at_least(value: object, seconds: int) -> bool:
    return type(value) is int and value >= seconds * NANOSECONDS


_CONDITIONS: Final = (
    _Condition("retention", _ALL, lambda value: value == "limits", "limits, which keeps what was acknowledged"),
    _Condition("discard", _KEPT, lambda value: value == "new", "new"),
    _Condition("storage", _KEPT, lambda value: value == "file", "file"),
    _Condition("persist_mode", _KEPT, lambda value: value in (None, "", "default"), "default, stored before PubAck"),
    _Condition("max_msgs_per_subject", _WHOLE, lambda value: value in (None, 0, -1), "none"),
    _Condition(
        "duplicate_window",
        _IDS,
        lambda value: _at_least(value, DUPLICATE_WINDOW),
        f"{DUPLICATE_WINDOW} s or more",
    ),
    _Condition(
        "max_age",
        _AGED,
        lambda value: value in (None, 0) or _at_least(value, KEPT_SECONDS),
        f"none, or {KEPT_SECONDS} s (24 h 5 min) or more",
    ),
    _Condition("max_age", _RECORDS | _UNTIL_DELETED, lambda value: value in (None, 0), "none"),
    _Condition(
        "max_age",
        _HELD,
        lambda value: value in (None, 0) or _at_least(value, HELD_SECONDS),
        f"none, or {HELD_SECONDS} s (32 days) or more",
    ),
    _Condition("deny_delete", _UNREMOVED, lambda value: value is True, "true, or a message can be removed with its id"),
    _Condition("deny_delete", _HELD, lambda value: value is True, "true, or the newest version can be removed"),
    _Condition(
        "deny_purge", _UNREMOVED, lambda value: value is True, "true, or messages can be removed with their ids"
    ),
    _Condition("deny_purge", _HELD, lambda value: value is True, "true, or newer versions can be removed"),
    _Condition("allow_direct", _BY_SUBJECT, lambda value: value is True, "true, or no process can read its values"),
)


def check_stream(stream: Stream, state: StreamState | None) -> StreamState:
    """Return the real stream if it is acceptable. Raises `ConfigurationError`, one line, for the first violation.

    The line names the stream, the field, its value, the value that is needed, and the command that shows more.
    """
    if state is None:
        raise ConfigurationError(f"stream {stream.name}: does not exist; run `sealbus streams plan`")
    for violation in violations(stream, state):
        raise ConfigurationError(f"{violation}; run `sealbus streams plan`")
    return state


async def check_streams(
    streams: Sequence[Stream], request: Request, *, deadline: float = 5.0
) -> dict[str, StreamState]:
    """Read and check `streams` within `deadline` seconds in all; return them by name, for their creation times.

    Needs only the rights to `$JS.API.STREAM.LIST` and, once the audit stream's first period is over,
    `$JS.API.STREAM.NAMES`; the audit stream's current period is returned under the declared name.

    Raises `ConfigurationError` as `check_stream` does, and `BusUnavailable` if the server does not answer in time: nothing
    may be consumed then.
    """
    states = {}
    try:
        async with asyncio.timeout(deadline):
            for stream in streams:
                if stream.guard is Guard.EVIDENCE:
                    # Processes do not know the name of the current period's stream.
                    state = await audit_stream(request, first=stream.name)
                    states[stream.name] = check_stream(replace(stream, name=state.name), state)
                else:
                    states[stream.name] = check_stream(stream, await stream_state(request, stream.name))
    except TimeoutError as error:
        raise BusUnavailable(f"streams not checked: no answer from the server within {deadline:g} s") from error
    return states


def covers(wide: str, narrow: str) -> bool:
    """Return whether the filter `wide` matches every subject that the filter `narrow` matches."""
    outer, inner = wide.split("."), narrow.split(".")
    for place, part in enumerate(outer):
        if part == ">":
            return len(inner) > place
        if place >= len(inner) or inner[place] == ">" or part not in ("*", inner[place]):
            return False
    return len(inner) == len(outer)


def is_unset(value: object) -> bool:
    """Return whether a JSON `value` means that a setting is off: absent, or the server's empty value."""
    return value is None or value is False or value in (0, "", [], {})


def shown(field: str, value: object) -> str:
    """Return the `value` of a setting as an operator would write it."""
    if value is None:
        return "absent"
    if field in ("max_age", "duplicate_window") and type(value) is int:
        return f"{value / NANOSECONDS:.15g} s"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(str(item) if isinstance(item, str) else "set" for item in value) or "none"
    return "set" if isinstance(value, dict) else str(value)


def violations(stream: Stream, state: StreamState) -> Iterable[Violation]:
    """Yield why consumers of the declared `stream` must refuse the real one; nothing if it is acceptable.

    Stricter or larger than declared is not a violation; `plan` compares exactly.
    """

    def violation(field: str, needed: str) -> Violation:
        value = shown(field, state.config.get(field))
        return Violation(stream=stream.name, field=field, found=value, needed=needed)

    covered = state.config.get("subjects")
    filters = [subject for subject in covered if isinstance(subject, str)] if isinstance(covered, list) else []
    missing = [subject for subject in stream.subjects if not any(covers(wide, subject) for wide in filters)]
    if missing:
        yield violation("subjects", f"to include {', '.join(missing)}")
    for condition in _CONDITIONS:
        if stream.guard in condition.guards and not condition.holds(state.config.get(condition.field)):
            yield violation(condition.field, condition.needed)
    judged = {"subjects", *(condition.field for condition in _CONDITIONS)}
    if stream.rollup:
        judged.add("allow_rollup_hdrs")
    if stream.mirror is not None:
        judged.add("mirror")
        if state.config.get("mirror") != stream.mirror:
            yield violation("mirror", "what is declared")
    for field, value in state.config.items():
        if field in judged:
            continue
        if field in FORBIDDEN and not is_unset(value):
            yield violation(field, f"unset, because it {FORBIDDEN[field]}")
        elif field not in FORBIDDEN and field not in INERT and not is_unset(value):
            yield violation(field, "unset, because this version of sealbus does not know it")


class StreamGuard:
    """Checks streams on each new link of a connection: attach it and run `check_links`, which raises `ConfigurationError`.

    `also` is another check of each link, which raises the same errors.
    """

    def __init__(
        self, streams: Sequence[Stream], connection: Connection, *, also: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._streams = tuple(streams)
        self._connection = connection
        self._also = also
        self._entered = asyncio.Event()
        self.checked = asyncio.Event()
        """Set once the streams were checked on the current link."""

    def enter(self, link: Link) -> None:
        """Request a check on the new link."""
        del link
        self.checked.clear()
        self._entered.set()

    async def leave(self, link: Link) -> None:
        """Do nothing: no answer is expected from the old link."""

    def lost(self, link: Link) -> None:
        """Do nothing: no answer is expected from a lost link."""

    async def check_links(self) -> None:
        """Check on each new link until cancelled. Raises `ConfigurationError` once a stream is not acceptable."""
        while True:
            await self._entered.wait()
            self._entered.clear()
            try:
                await check_streams(self._streams, self._connection.jetstream)
                if self._also is not None:
                    await self._also()
            except BusUnavailable as error:
                _logger.warning("streams not checked, will be retried: %s", error)
                await asyncio.sleep(AGAIN)
                self._entered.set()
            else:
                self.checked.set()
