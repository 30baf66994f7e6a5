"""The times of a schedule's ticks: a cron expression, an interval, or once. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from sealbus.bus.work.schedules.cron import Cron
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

SHORTEST: Final = 10
"""Seconds between two ticks, at least."""
_LONGEST: Final = 366 * 86_400

GRACE: Final = 5 * SECOND
"""Microseconds by which a tick may be noticed late and still count as on time. Busy processes and clocks differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """Ticks every `seconds`, counted from `start` (microseconds). Raises `ValueError`."""

    seconds: int
    start: int

    def __post_init__(self) -> None:
        if type(self.seconds) is not int or not SHORTEST <= self.seconds <= _LONGEST:
            raise ValueError(f"an interval is {SHORTEST} to {_LONGEST} whole seconds")
        _check_time(self.start)

    def after(self, time: int) -> int | None:
        """Return the first tick after `time` (microseconds)."""
        if time < self.start:
            return self.start
        return self.start + ((time - self.start) // self._step + 1) * self._step

    @property
    def _step(self) -> int:
        return self.seconds * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """Ticks once, at `time` (microseconds). Raises `ValueError`."""

    time: int

    def __post_init__(self) -> None:
        _check_time(self.time)

    def after(self, time: int) -> int | None:
        """Return the tick if it is after `time` (microseconds)."""
        return self.time if self.time > time else None


When: TypeAlias = Cron | Every | At


class Missed(NamedTuple):
    """The ticks that a process was too late for: the tick to catch up on, and the number of ticks that are given up."""

    tick: int | None
    given_up: int


_COUNTED: Final = 100
"""Most ticks that are counted: more than that are reported as so many."""
_WINDOW: Final = 64 * SECOND
_WIDER: Final = 8


def next_tick(when: When, *, after: int, since: int, until: int) -> int | None:
    """Return the first tick after `after` of a schedule that ticks from `since` to before `until` (microseconds).

    An `At` whose time had passed when it was asked for ticks at `since`.
    """
    if isinstance(when, At) and when.time <= since:
        tick: int | None = since if since > after else None
    else:
        tick = when.after(max(after, since))
    return tick if tick is not None and tick < until else None


def newest_missed(when: When, *, after: int, since: int, until: int, now: int, catchup: int) -> Missed:
    """Return the newest tick in (`after`, `now`] that is at most `catchup` microseconds old, and the number of the others.

    The others are given up: after an outage, one tick is worth sending.
    """
    floor, window = max(after, now - catchup - GRACE - 1), _WINDOW
    # Search backwards: a day may have thousands of ticks.
    while True:
        start = max(floor, now - window)
        tick = next_tick(when, after=start, since=since, until=until)
        if start == floor or (tick is not None and tick <= now):
            break
        window *= _WIDER
    newest: int | None = None
    while tick is not None and tick <= now:
        newest = tick
        tick = next_tick(when, after=tick, since=since, until=until)
    return Missed(newest, _count(when, after=after, before=newest or now + 1, since=since, until=until))


def _count(when: When, *, after: int, before: int, since: int, until: int) -> int:
    count, tick = 0, next_tick(when, after=after, since=since, until=until)
    while tick is not None and tick < before and count < _COUNTED:
        count += 1
        tick = next_tick(when, after=tick, since=since, until=until)
    return count


def when_json(when: When) -> dict[str, Json]:
    """Return the JSON object that `parse_when` reads."""
    match when:
        case Cron():
            return {"cron": when.expression, "zone": when.zone}
        case Every():
            return {"every": when.seconds, "from": when.start}
        case At():
            return {"at": when.time}


def parse_when(document: Json) -> When:
    """Return the times that `when_json` wrote. Raises `ValueError` for any other value."""
    match document:
        case {"cron": str(expression), "zone": str(zone), **other} if not other:
            return Cron(expression=expression, zone=zone)
        case {"every": int(seconds), "from": int(start), **other} if not other:
            return Every(seconds=seconds, start=start)
        case {"at": int(time), **other} if not other:
            return At(time=time)
    raise ValueError("when is a cron expression with its zone, an interval, or a time")


def shown_when(when: When) -> str:
    """Return one line of text, for people and policies."""
    match when:
        case Cron():
            return f"{when.expression} {when.zone}"
        case Every():
            return f"every {when.seconds} s"
        case At():
            return "once"


def _check_time(time: int) -> None:
    if type(time) is not int or not 0 <= time <= DEFAULT_LIMITS.max_integer:
        raise ValueError("a time is microseconds since the Unix epoch")
