"""Plans the changes that make the real streams match their declaration, and applies them for an operator.

Only an operator's identity may write streams. A worker never repairs a stream; it refuses to start (`check.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.bus.nats.api import StreamState, create_stream, stream_state, update_stream
from sealbus.bus.ports import JsonObject, Request
from sealbus.bus.streams.check import FORBIDDEN, is_unset, shown, violations
from sealbus.bus.streams.declared import Guard, Stream
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

_FIXED: Final = {
    "storage": "the server cannot change it",
    "persist_mode": "the server cannot change it",
    "mirror": "its contents were stored without the replay guard",
    "allow_msg_ttl": "the server cannot switch it off",
    "subject_delete_marker_ttl": "the server cannot switch it off",
    "allow_msg_schedules": "the server cannot switch it off",
    "allow_msg_counter": "the server cannot change it",
    "sealed": "the server cannot unseal a stream",
}
"""Fields that an update cannot change (seen with nats-server 2.15.1), or should not, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create a stream that does not exist, as declared."""

    stream: Stream

    def __str__(self) -> str:
        what = (
            ", ".join(self.stream.subjects) if self.stream.mirror is None else f"mirror of {self.stream.mirror['name']}"
        )
        return f"create {self.stream.name}: {what}, {self.stream.max_bytes} bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Change one field of an existing stream in place. `found` and `needed` are JSON values; `None` is unset."""

    stream: str
    field: str
    found: object
    needed: object

    def __str__(self) -> str:
        return f"update {self.stream}: {self.field} {shown(self.field, self.found)} -> {shown(self.field, self.needed)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Refuse the plan: one field of an existing stream differs and cannot be changed in place."""

    stream: str
    field: str
    found: object
    needed: object
    reason: str

    def __str__(self) -> str:
        found, needed = shown(self.field, self.found), shown(self.field, self.needed)
        return f"refuse {self.stream}: {self.field} {found} -> {needed}: {self.reason}"


Change = Create | Update | Refuse


@dataclass(frozen=True, slots=True)
class _Difference:
    stream: Stream
    state: StreamState
    field: str
    needed: object

    @property
    def found(self) -> object:
        return self.state.config.get(self.field)


def plan(declared: Sequence[Stream], actual: Mapping[str, StreamState | None]) -> list[Change]:
    """Return the changes from `actual` (by stream name) to `declared`, in the order of declaration. Pure.

    Fields that a declaration does not mention, such as `placement` or `compression`, are the operator's and are kept. A
    stream that protects more than declared (`deny_delete`), or allows more consumers, is left as it is. Streams that are not
    declared are ignored, and nothing is ever deleted.
    """
    changes: list[Change] = []
    for stream in declared:
        state = actual.get(stream.name)
        if state is None:
            changes.append(Create(stream=stream))
        else:
            changes += [_judged(difference) for difference in _differences(stream, state)]
    return changes


async def read_streams(
    names: Iterable[str], request: Request, *, deadline: float = 10.0
) -> dict[str, StreamState | None]:
    """Return the real streams by name, `None` for a missing one. Raises `BusUnavailable` after `deadline` seconds."""
    try:
        async with asyncio.timeout(deadline):
            return {name: await stream_state(request, name) for name in names}
    except TimeoutError as error:
        raise BusUnavailable(f"streams not read: no answer from the server within {deadline:g} s") from error


async def apply(declared: Sequence[Stream], request: Request, *, deadline: float = 30.0) -> list[Change]:
    """Read the streams, and apply the whole plan, or nothing if it refuses a change; return the changes.

    Run it under an operator's identity: it needs `$JS.API.STREAM.{INFO,CREATE,UPDATE}.<name>`. Running it again does
    nothing. Raises `ConfigurationError` if the plan or the server refuses; if the server does, earlier streams may have been
    changed. Raises `BusUnavailable` after `deadline` seconds.
    """
    actual = await read_streams([stream.name for stream in declared], request, deadline=deadline)
    changes = plan(declared, actual)
    refused = [change for change in changes if isinstance(change, Refuse)]
    if refused:
        more = f" (and {len(refused) - 1} more: `sealbus streams plan`)" if len(refused) > 1 else ""
        raise ConfigurationError(f"nothing applied: {refused[0]}{more}")
    changed = {change.stream for change in changes if isinstance(change, Update)}
    try:
        async with asyncio.timeout(deadline):
            for stream in declared:
                state = actual[stream.name]
                if state is None:
                    await create_stream(request, stream.config())
                elif stream.name in changed:
                    await update_stream(request, _updated(stream, state))
    except TimeoutError as error:
        raise BusUnavailable(f"streams not applied: no answer from the server within {deadline:g} s") from error
    return changes


def _differences(stream: Stream, state: StreamState) -> list[_Difference]:
    wanted = stream.config()
    differences = [
        _Difference(stream, state, field, needed)
        for field, needed in wanted.items()
        if not _same(field, state.config.get(field), needed)
    ]
    # Fields outside the declaration that no consumer accepts have to be unset.
    extra = sorted({violation.field for violation in violations(stream, state)} - wanted.keys())
    return differences + [_Difference(stream, state, field, None) for field in extra]


def _same(field: str, found: object, needed: object) -> bool:
    if field in ("deny_delete", "deny_purge"):
        return found is True or needed is False
    if field == "max_consumers":
        return type(found) is int and type(needed) is int and found >= needed
    if field == "metadata" and isinstance(needed, dict):
        return isinstance(found, dict) and needed.items() <= found.items()
    if field == "subjects" and isinstance(found, list) and isinstance(needed, list):
        return sorted(map(str, found)) == sorted(map(str, needed))
    return found == needed


def _judged(difference: _Difference) -> Change:
    update = Update(
        stream=difference.stream.name, field=difference.field, found=difference.found, needed=difference.needed
    )
    reason = _obstacle(difference)
    if reason is None:
        return update
    return Refuse(stream=update.stream, field=update.field, found=update.found, needed=update.needed, reason=reason)


def _obstacle(difference: _Difference) -> str | None:
    """Return why the difference cannot be fixed in place, or `None` if it can."""
    stream, state, field = difference.stream, difference.state, difference.field
    name = stream.name
    if field == "mirror" and stream.mirror is not None:
        return f"{_FIXED['storage']}; delete and create {name} again, once nothing needs what it holds"
    if field in _FIXED:
        return f"{_FIXED[field]}; delete and create {name} again"
    if field == "retention" and difference.found not in ("limits", "interest"):
        return f"the server cannot change it from {difference.found}; delete and create {name} again"
    if field not in FORBIDDEN and difference.needed is None:
        return "this version of sealbus does not know it; unset it yourself, or use a version that does"
    if field == "max_bytes" and stream.discard == "new" and stream.max_bytes < state.bytes:
        # nats-server 2.15.1 was not seen to delete anything, but nothing protects messages over the limit.
        return f"{name} holds {state.bytes} bytes and would be over its limit at once; raise it"
    unguarded = field in {violation.field for violation in violations(stream, state)}
    if field == "duplicate_window" and unguarded and stream.guard is Guard.LIVE and state.messages:
        # Two copies stored under the short window would both pass step 6 once the window is long enough.
        return f"{name} holds {state.messages} messages that may include duplicates; delete and create {name} again"
    return None


def _updated(stream: Stream, state: StreamState) -> JsonObject:
    """Return the whole configuration to send: the declared part, and the operator's choices that need not be unset."""
    wanted = stream.config()
    unchanged = {
        field: value
        for field, value in state.config.items()
        if field in wanted or field not in FORBIDDEN or is_unset(value)
    }
    return unchanged | {
        field: needed for field, needed in wanted.items() if not _same(field, state.config.get(field), needed)
    }
