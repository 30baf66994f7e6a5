"""The schedules of one identity in HELD: `held.<owner>.schedule.<name>`, signed by their owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealbus.bus.ports import Identity, StoredValue
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.held import Held, HeldValue
from sealbus.bus.work.schedules.request import Planned, ScheduleState, parse_schedule
from sealbus.bus.work.schedules.rule import next_tick
from sealbus.envelopes.errors import BadBody, EnvelopeError
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_TYPE: Final = "application/vnd.sealbus.held-schedule.v1"


class ScheduleChange(NamedTuple):
    """The message that asked for a schedule, or for a change of it.

    `digest` is its H(header), `by` its sender, `issued` when the credential of the sender was issued (microseconds).
    """

    digest: bytes
    by: SpiffeId
    issued: int

    def is_revoked(self, trust: Trust) -> bool:
        """Return whether the credential by which it was sealed is revoked by now."""
        return self.issued < trust.revoked_before.get(self.by, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule as its owner knows it.

    `grant` is the message that asked for the schedule, `change` the last message about it, which was stored at `order`: time
    and sequence. Ticks are after `since` (microseconds).
    """

    name: str
    state: ScheduleState
    planned: Planned
    body: Content = field(repr=False)
    """The body of `grant`; `planned` is its contents."""
    grant: ScheduleChange
    change: ScheduleChange
    order: tuple[int, int]
    since: int
    user: bytes = field(default=b"", repr=False)
    """The payload of the context of `grant`, if the schedule acts for a user: a standing grant (`standing.py`)."""
    held: HeldValue | None = field(default=None, repr=False, compare=False)

    def ticks(self, trust: Trust) -> bool:
        """Return whether it is on, and the senders of its grant and of its last change are not revoked."""
        revoked = self.grant.is_revoked(trust) or self.change.is_revoked(trust)
        return self.state is ScheduleState.ON and not revoked

    def stands(self, now: int) -> bool:
        """Return whether it is neither removed nor over; a paused schedule stands."""
        return self.state is not ScheduleState.REMOVED and self.next(now) is not None

    def next(self, after: int) -> int | None:
        """Return its first tick after `after`."""
        return next_tick(self.planned.when, after=after, since=self.since, until=self.planned.until)


class ScheduleBook:
    """The schedules of `identity`, whose token is `token`."""

    def __init__(self, held: Held, *, identity: Identity, token: str) -> None:
        self._held = held
        self._identity = identity
        self.prefix: Final = f"held.{token}.schedule."
        """The subjects of schedules without their names."""

    async def all(self) -> dict[str, Schedule]:
        """Return all schedules by name, removed ones included. Raises as `Held.newest`.

        A schedule whose place others have flooded with forgeries is left out, as long as HELD keeps the forgeries.
        """
        values = await self._held.newest(self.prefix + "*", _TYPE, flooded=False, patient=True)
        return self._parsed(values)

    async def one(self, name: str) -> Schedule | None:
        """Return the schedule `name`, or `None` if there never was one. Raises as `Held.newest`."""
        return self._parsed(await self._held.newest(self.prefix + name, _TYPE)).get(name)

    def may_hold(self, subject: str, stored: StoredValue) -> bool:
        """Return whether a message may be a version of a schedule. Its signature is not verified."""
        return subject.startswith(self.prefix) and self._held.claimed(subject, stored) is not None

    async def store(self, schedule: Schedule, before: Schedule | None) -> bool:
        """Store the version that follows `before`; return whether `before` was the newest. Raises as `Held.write`."""
        subject = self.prefix + schedule.name
        known = before.held if before is not None else None
        stored = await self._held.write(
            subject,
            {
                "sta": schedule.state.value,
                "typ": schedule.body.typ,
                **_change_keys("g", schedule.grant),
                **_change_keys("c", schedule.change),
                "sto": schedule.order[0],
                "seq": schedule.order[1],
                "snc": schedule.since,
                **({"ctx": schedule.user} if schedule.user else {}),
            },
            _TYPE,
            self._identity.sealer(),
            before=known,
            last=(await self._held.standing(subject, _TYPE))[1] if known is None else 0,
            extra=schedule.body.body,
        )
        return stored is not None

    def _parsed(self, values: Mapping[str, HeldValue]) -> dict[str, Schedule]:
        parsed = [_parsed(subject.removeprefix(self.prefix), value) for subject, value in values.items()]
        return {schedule.name: schedule for schedule in parsed if schedule is not None}


async def every_schedule(held: Held) -> dict[tuple[str, str], Schedule]:
    """Return the schedules of all owners by token of the owner and name, for operators. Raises as `Held.newest`."""
    values = await held.newest("held.*.schedule.*", _TYPE, flooded=False, patient=True)
    parsed = [(subject.split("."), value) for subject, value in values.items()]
    return {
        (owner, name): schedule
        for (_, owner, _, name), value in parsed
        if (schedule := _parsed(name, value)) is not None
    }


def _change_keys(prefix: str, change: ScheduleChange) -> Mapping[str, bytes | str | int]:
    return {f"{prefix}dig": change.digest, f"{prefix}iss": change.by.value, f"{prefix}isu": change.issued}


def _parsed(name: str, value: HeldValue) -> Schedule | None:
    """Return the schedule in a genuine value; `None` if another version of sealbus wrote it in another form."""
    keys = value.keys
    try:
        body = Content(value.extra, keys.text("typ"))
        request = parse_schedule(*body)
        state = ScheduleState(keys.text("sta"))
        grant, change = (
            ScheduleChange(
                keys.octets(f"{letter}dig"), SpiffeId.parse(keys.text(f"{letter}iss")), keys.uint(f"{letter}isu")
            )
            for letter in "gc"
        )
        order, since = (keys.uint("sto"), keys.uint("seq")), keys.uint("snc")
        user = keys.octets("ctx") if "ctx" in keys else b""
        keys.end()
    except (BadBody, EnvelopeError, ValueError):
        return None
    if request.name != name or request.planned is None:
        return None
    return Schedule(
        name=name,
        state=state,
        planned=request.planned,
        body=body,
        grant=grant,
        change=change,
        order=order,
        since=since,
        user=user,
        held=value,
    )
