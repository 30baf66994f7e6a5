"""Vectors of cron expressions: their instants in a time zone, and what is no expression or no zone (SPEC.md section 7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from vectors.issuing import Json

from sealbus.bus.work.schedules.cron import Cron

__all__ = ["cron"]


class Case(NamedTuple):
    """The first `number` instants of `expression` by the clocks of `zone` after `after` (UTC)."""

    name: str
    expression: str
    zone: str
    after: str
    number: int = 4


# All nights are past, so that a later release of the time zone database moves none of them.
ACCEPTED = (
    Case("fixed, in a gap", "30 2 * * *", "Europe/Berlin", "2024-03-29T12:00"),
    Case("fixed, several in one gap fall together", "0,15,30 2-3 * * *", "Europe/Berlin", "2024-03-30T12:00", 5),
    Case("fixed, in an hour that comes twice", "30 2 * * *", "Europe/Berlin", "2024-10-25T12:00"),
    Case("fixed, asked within the second pass", "30 2 * * *", "Europe/Berlin", "2024-10-27T01:10", 2),
    Case("running by minutes, over a gap", "*/30 * * * *", "Europe/Berlin", "2024-03-31T00:00", 6),
    Case("running by minutes, in an hour that is left out", "*/15 2 * * *", "Europe/Berlin", "2024-03-30T12:00", 5),
    Case("running by minutes, in an hour that comes twice", "*/30 2 * * *", "Europe/Berlin", "2024-10-26T12:00", 6),
    Case("running by hours, over a gap", "30 * * * *", "Europe/Berlin", "2024-03-30T23:00", 4),
    Case("running by hours, over an hour that comes twice", "30 */2 * * *", "Europe/Berlin", "2024-10-26T22:00", 4),
    Case("a list that begins with a star runs", "*,5 2 * * *", "Europe/Berlin", "2024-10-27T00:57", 6),
    Case("a step that begins with no star is fixed", "0/30 2 * * *", "Europe/Berlin", "2024-10-26T12:00", 4),
    Case("a gap of half an hour", "15 2 * * *", "Australia/Lord_Howe", "2024-10-04T12:00"),
    Case("half an hour that comes twice", "45 1 * * *", "Australia/Lord_Howe", "2024-04-05T12:00"),
    Case("half an hour that comes twice, running", "*/15 1 * * *", "Australia/Lord_Howe", "2024-04-06T13:00", 8),
    Case("a midnight that does not exist", "0 0 * * *", "America/Sao_Paulo", "2018-11-02T12:00"),
    Case("a midnight that comes twice", "0 0 * * *", "America/Havana", "2024-11-01T12:00"),
    Case("a day that does not exist", "0 9 * * *", "Pacific/Apia", "2011-12-28T00:00"),
    Case("a day that does not exist, running", "0 */12 * * *", "Pacific/Apia", "2011-12-29T00:00"),
    Case("an offset of three quarters", "*/20 * * * *", "Asia/Kathmandu", "2024-05-05T00:00"),
    Case("a link", "0 12 * * *", "US/Eastern", "2024-07-03T00:00", 2),
    Case("in UTC", "5 4 * * *", "UTC", "2024-05-05T00:00", 2),
    Case("after an instant is not at it", "0 12 * * *", "UTC", "2024-05-05T12:00", 1),
    Case("a leap day", "0 0 29 2 *", "UTC", "2021-01-01T00:00", 2),
    Case("the last day", "0 12 L * *", "UTC", "2024-01-15T00:00"),
    Case("the last day, with a step", "0 12 L/2 * *", "UTC", "2024-01-15T00:00"),
    Case("the 15th and the last day", "0 12 15,L * *", "UTC", "2024-01-01T00:00"),
    Case("the last weekday", "0 12 LW * *", "UTC", "2024-02-15T00:00", 5),
    Case("the last Friday", "0 12 * * 5L", "UTC", "2024-01-01T00:00"),
    Case("the last Sunday, of two spellings", "0 12 * * 7L,00L", "UTC", "2024-01-01T00:00"),
    Case("the second Monday", "0 12 * * mon#2", "UTC", "2024-01-01T00:00"),
    Case("the fifth Sunday", "0 12 * * 7#5", "UTC", "2024-01-01T00:00"),
    Case("either of two day fields", "0 12 1,15 * MON", "UTC", "2024-05-01T00:00", 8),
    Case("both, as the first begins with a star", "0 12 */5 * MON", "UTC", "2024-05-01T00:00"),
    Case("both, as the second begins with a star", "0 12 1 * */2", "UTC", "2024-01-01T00:00"),
    Case("either, one of which never comes", "0 0 30 2 MON#5", "UTC", "2024-01-01T00:00"),
    Case("a step after a value goes to the end", "5/20 4 * * *", "UTC", "2024-05-05T00:00", 4),
    Case("a step after a range of one value, too", "7-7/20 4 * * *", "UTC", "2024-05-05T00:00", 4),
    Case("a step in a range counts from its first", "0 0 2-10/3 * *", "UTC", "2024-05-01T00:00", 4),
    Case("a step in the days of the week", "0 0 * * 1/3", "UTC", "2024-05-05T12:00", 5),
    Case("every third of 0 to 7", "0 0 * * */3", "UTC", "2024-05-05T12:00", 5),
    Case("a range up to Sunday", "0 0 * * FRI-7", "UTC", "2024-05-06T00:00"),
    Case("names, in any case", "0 0 1 JAN,jul,Oct *", "UTC", "2024-01-15T00:00"),
    Case("leading zeroes", "00 007 08 * *", "UTC", "2024-01-15T00:00", 2),
    Case("months without a 31st", "0 0 31 * *", "UTC", "2024-01-15T00:00", 4),
)  # fmt: skip

REFUSED = (
    "", "* * * *", "* * * * * *", "0 0 * * * *", "*  * * * *", " * * * * *", "* * * * * ", "*\t* * * *", "@daily",
    "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 8",
    "-1 * * * *", "5- * * * *", "5-1 * * * *", "1-2-3 * * * *", "* * * * FRI-MON", "* * 1-L * *", "* * L-3 * *",
    "*/0 * * * *", "*/ * * * *", "/5 * * * *", "*/-1 * * * *", "*/2/3 * * * *", "*/L * * * *",
    ", * * * *", "1,,2 * * * *", "1, * * * *", "** * * * *", "? * * * *", "1.5 * * * *", "+5 * * * *", "0x1 * * * *",
    "L * * * *", "* * 15W * *", "* * W * *", "* * 1L * *", "* * * L *", "* * * * L", "* * * * MONL", "* * * * 8L",
    "* * * * 1-5L",
    "* * * * 1L/2", "* * * * MON#0", "* * * * MON#6", "* * * * MON#", "* * * * #1", "* * * * 1#2#3", "* * * * 1#2/2",
    "* * 1#1 * *",
    "* * * * MONDAY", "* * * JANUARY *", "* * * MON *", "JAN * * * *", "\u0663 * * * *",
    "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 2 */2", "1" + ",1" * 60 + " * * * *",
)  # fmt: skip

NO_ZONES = (
    "", "Europe/Nowhere", "Europe", "Europe/", "/Europe/Berlin", "../UTC", "Europe/../UTC", "Europe/Berlin ",
    "Europe//Berlin",
    "UTC+1", "+01:00", "zone.tab", "A" * 65,
)  # fmt: skip


def cron() -> Json:
    """Return the whole file."""
    return {
        "accept": [_instants(case) for case in ACCEPTED],
        "reject": [
            *[_refused(expression, "UTC") for expression in REFUSED],
            *[_refused("0 0 * * *", zone) for zone in NO_ZONES],
        ],
    }


def _refused(expression: str, zone: str) -> Json:
    return {"cron": expression, "zone": zone}


def _instants(case: Case) -> Json:
    rule = Cron(expression=case.expression, zone=case.zone)
    since = datetime.fromisoformat(case.after).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    after = since // timedelta(microseconds=1)
    instants: list[Json] = []
    last = after
    for _ in range(case.number):
        if (time := rule.after(last)) is None:
            raise ValueError(f"{case.name}: it has fewer instants")
        instants.append(time)
        last = time
    return {"name": case.name, "cron": case.expression, "zone": case.zone, "after": after, "instants": instants}
