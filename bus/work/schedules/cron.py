"""Cron expressions in a time zone: the only module that knows the cron library and the time zone database.

The library walks the calendar without a zone; this module maps local times to instants. The zones come from the locked
package, not from the host, because processes with different databases would disagree about ticks. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from sealbus.envelopes.limits import SECOND

_FIELDS: Final = 5
_EXPRESSION: Final = re.compile(r"[A-Za-z0-9*/,#-]+(?: [A-Za-z0-9*/,#-]+){4}")
_EXPRESSION_BYTES: Final = 128
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")
_ZONE_BYTES: Final = 64
_LEAP: Final = datetime(2000, 1, 1)
"""A search from here on meets each kind of year, and February 29."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Five fields of cron, read by the clocks of `zone`. Raises `ValueError` for a bad expression or a date that never comes.

    If neither minute nor hour begins with `*`, it is a job at fixed times. A local time that does not exist then ticks at the
    first instant after the gap, and a local time that comes twice ticks the first time. Otherwise it follows the running
    clock: it ticks in both passes of an hour that comes twice, and not in an hour that is left out. (So does Debian's cron.)
    """

    expression: str
    zone: str = "UTC"
    _fixed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.expression) > _EXPRESSION_BYTES or _EXPRESSION.fullmatch(self.expression) is None:
            raise ValueError("a cron expression is five fields with one space between them; there are no seconds")
        _zone(self.zone)
        minute, hour, *_ = self.expression.split(" ")
        object.__setattr__(self, "_fixed", not minute.startswith("*") and not hour.startswith("*"))
        if self._next_local(_LEAP) is None:
            raise ValueError("this date never comes")

    def after(self, time: int) -> int | None:
        """Return the first tick after `time` (both microseconds), or `None` if none comes before the end of the calendar."""
        zone = _zone(self.zone)
        try:
            return self._fixed_after(time, zone) if self._fixed else self._running_after(time, zone)
        except OverflowError:
            return None

    def _fixed_after(self, time: int, zone: ZoneInfo) -> int | None:
        local: datetime | None = _naive(time, zone)
        while local is not None and (local := self._next_local(local)) is not None:
            # Fold 0 is the first of two equal local times. A time in a gap maps as far past the gap as it is into it.
            instant = _instant(local, zone)
            shown = _naive(instant, zone)
            if shown != local:
                instant = _gap_end(instant, zone)
            # Local times of the second pass of an hour map to the first pass, which is over.
            if instant > time:
                return instant
        return None

    def _running_after(self, time: int, zone: ZoneInfo) -> int | None:
        while True:
            ahead = _offset(time, zone)
            local = self._next_local(_naive(time, zone))
            if local is None:
                return None
            instant = _micros(local) - ahead
            if _offset(instant, zone) == ahead:
                if (change := _first_change(time, instant, zone)) is None:
                    return instant
            else:
                change = _first_change(time, instant, zone) or instant
            # The clock jumps before that tick. Search from the instant of the jump, which may be a tick itself.
            if (at := self._at_jump(change, zone)) is not None:
                return at
            time = change

    def _at_jump(self, change: int, zone: ZoneInfo) -> int | None:
        shown = _naive(change, zone)
        return change if self._next_local(shown - timedelta(microseconds=1)) == shown else None

    def _next_local(self, local: datetime) -> datetime | None:
        try:
            return next(CronSim(self.expression, local), None)
        except CronSimError as error:
            raise ValueError(f"cron: {error}") from error


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    if len(name) > _ZONE_BYTES or _ZONE.fullmatch(name) is None:
        raise ValueError("a time zone is a name such as Europe/Berlin")
    place = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    try:
        with place.open("rb") as data:
            return ZoneInfo.from_file(data, key=name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: there is no such time zone") from error


def _naive(time: int, zone: ZoneInfo) -> datetime:
    """Return the local time in `zone` at `time`, to the microsecond."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _micros(naive: datetime) -> int:
    return (naive - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def _offset(time: int, zone: ZoneInfo) -> int:
    """Return how far the clocks of `zone` are ahead of UTC at `time`, in microseconds."""
    return _micros(_naive(time, zone)) - time


def _instant(local: datetime, zone: ZoneInfo) -> int:
    return _micros(local.replace(tzinfo=zone, fold=0).astimezone(UTC).replace(tzinfo=None))


def _gap_end(instant: int, zone: ZoneInfo) -> int:
    """Return the end of the gap with the local time that was mapped to `instant`, after the gap."""
    day = 86_400 * SECOND
    # No gap is longer than a day, which is when a place changes sides of the date line.
    return _first_change(instant - day - 1, instant, zone, last=True) or instant


def _first_change(start: int, end: int, zone: ZoneInfo, *, last: bool = False) -> int | None:
    """Return the first (or last) instant in (start, end] at which the clocks of `zone` jump, or `None`."""
    step = 6 * 3_600 * SECOND
    pairs = list(pairwise([*range(start, end, step), end]))
    before: int
    after: int
    for before, after in reversed(pairs) if last else pairs:
        if _offset(before, zone) != _offset(after, zone):
            known = _offset(before, zone)
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (middle, after) if _offset(middle, zone) == known else (before, middle)
            return after
    return None
