"""Computes the instants of cron expressions with nothing of sealbus, nor of the library that it reads them with.

Written from envelopes/SPEC.md section 7, "Cron", alone. It looks at each local time of each day, and so is slow.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from independent.verify_export import need

__all__ = ["Cron", "instants_after", "read_cron"]

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
MONTHS = {
    "JAN": 1, "FEB": 2, "MAR": 3, "APR": 4, "MAY": 5, "JUN": 6,
    "JUL": 7, "AUG": 8, "SEP": 9, "OCT": 10, "NOV": 11, "DEC": 12,
}  # fmt: skip
WEEKDAYS = dict(zip(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], range(7), strict=True))


class Span(NamedTuple):
    """The values that a field may have, and the names of some of them."""

    least: int
    most: int
    names: dict[str, int]

    def value(self, text: str) -> int:
        if text in self.names:
            return self.names[text]
        need(re.fullmatch("[0-9]+", text), "bad_body", "no value")
        need(self.least <= int(text) <= self.most, "bad_body", "outside the field")
        return int(text)


MINUTE, HOUR, DAY, MONTH = Span(0, 59, {}), Span(0, 23, {}), Span(1, 31, {}), Span(1, 12, MONTHS)
WEEKDAY = Span(0, 7, WEEKDAYS)


class Cron(NamedTuple):
    """An expression that was read."""

    minutes: set[int]
    hours: set[int]
    days: set[int]
    last_day: bool
    last_weekday: bool
    months: set[int]
    weekdays: set[int]
    last_weekdays: set[int]
    nth_weekdays: set[tuple[int, int]]
    both_days: bool
    fixed: bool
    zone: ZoneInfo

    def matches(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        last = monthrange(day.year, day.month)[1]
        working = [number for number in range(1, last + 1) if date(day.year, day.month, number).weekday() < 5]
        of_month = (
            day.day in self.days
            or (self.last_day and day.day == last)
            or (self.last_weekday and day.day == working[-1])
        )
        weekday = day.isoweekday() % 7
        of_week = (
            weekday in self.weekdays
            or (weekday in self.last_weekdays and day.day > last - 7)
            or (weekday, (day.day - 1) // 7 + 1) in self.nth_weekdays
        )
        return (of_month and of_week) if self.both_days else (of_month or of_week)


def plain_values(term: str, span: Span) -> set[int]:
    """`*`, a value, a range, and each of them with a step."""
    of, slash, step = term.partition("/")
    if of == "*":
        found = list(range(span.least, span.most + 1))
    elif "-" in of:
        first, _, last = of.partition("-")
        found = list(range(span.value(first), span.value(last) + 1))
        need(found, "bad_body", "a range that ends before it begins")
    else:
        found = [span.value(of)]
    if not slash:
        return set(found)
    need(re.fullmatch("[0-9]+", step) and int(step) > 0, "bad_body", "no step")
    if len(found) == 1:
        found = list(range(found[0], span.most + 1))
    return set(found[:: int(step)])


def read_cron(expression: str, zone: str) -> Cron:
    need(len(expression) <= 128, "bad_body", "too long")
    need(re.fullmatch(r"[A-Za-z0-9*/,#-]+(?: [A-Za-z0-9*/,#-]+){4}", expression), "bad_body", "no five fields")
    need(len(zone) <= 64 and zone in available_timezones(), "bad_body", "no zone")
    minute, hour, day, month, weekday = expression.upper().split(" ")
    days: set[int] = set()
    last_day = last_weekday = False
    for term in day.split(","):
        if re.fullmatch("L(/0*[1-9][0-9]*)?", term):
            last_day = True
        elif re.fullmatch("LW(/0*[1-9][0-9]*)?", term):
            last_weekday = True
        else:
            days |= plain_values(term, DAY)
    weekdays: set[int] = set()
    lasts: set[int] = set()
    nths: set[tuple[int, int]] = set()
    for term in weekday.split(","):
        if re.fullmatch("[0-9]+L", term):
            lasts.add(WEEKDAY.value(term[:-1]) % 7)
        elif "#" in term:
            of, _, number = term.partition("#")
            need(re.fullmatch("0*[1-5]", number), "bad_body", "no number of a weekday")
            nths.add((WEEKDAY.value(of) % 7, int(number)))
        else:
            weekdays |= {value % 7 for value in plain_values(term, WEEKDAY)}
    cron = Cron(
        minutes=set().union(*(plain_values(term, MINUTE) for term in minute.split(","))),
        hours=set().union(*(plain_values(term, HOUR) for term in hour.split(","))),
        days=days,
        last_day=last_day,
        last_weekday=last_weekday,
        months=set().union(*(plain_values(term, MONTH) for term in month.split(","))),
        weekdays=weekdays,
        last_weekdays=lasts,
        nth_weekdays=nths,
        both_days=day.startswith("*") or weekday.startswith("*"),
        fixed=not minute.startswith("*") and not hour.startswith("*"),
        zone=ZoneInfo(zone),
    )
    first = date(2000, 1, 1)
    need(any(cron.matches(first + timedelta(days=number)) for number in range(366 * 51)), "bad_body", "never")
    return cron


def shown(instant: int, zone: ZoneInfo) -> datetime:
    """What the clocks of `zone` show at `instant` (microseconds)."""
    return (EPOCH.replace(tzinfo=UTC) + instant * MICROSECOND).astimezone(zone).replace(tzinfo=None, fold=0)


def instants_of(local: datetime, cron: Cron) -> list[int]:
    """When the clocks show `local`, both times; of fixed times the first, or the end of the gap in which it stands."""
    as_utc, day = (local - EPOCH) // MICROSECOND, 86_400 * 1_000_000
    offsets = {
        (shown(near, cron.zone) - EPOCH) // MICROSECOND - near
        for near in range(as_utc - 2 * day, as_utc + 2 * day, day // 24)
    }
    found = sorted(as_utc - offset for offset in offsets if shown(as_utc - offset, cron.zone) == local)
    if not cron.fixed:
        return found
    if found:
        return found[:1]
    low, high = as_utc - 2 * day, as_utc + 2 * day
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle, cron.zone) > local else (middle, high)
    return [high]


def instants_after(cron: Cron, after: int) -> Iterator[int]:
    """The instants after `after` (microseconds), in order: those of each day, once none of a later day can be earlier."""
    day = (EPOCH + after * MICROSECOND).date() - timedelta(days=3)
    found: set[int] = set()
    while True:
        if cron.matches(day):
            for hour in cron.hours:
                for minute in cron.minutes:
                    found |= set(instants_of(datetime.combine(day, time(hour, minute)), cron))
        day += timedelta(days=1)
        settled = (datetime.combine(day, time()) - EPOCH) // MICROSECOND - 2 * 86_400 * 1_000_000
        ready = sorted(instant for instant in found if instant < settled)
        found -= set(ready)
        yield from (instant for instant in ready if instant > after)
