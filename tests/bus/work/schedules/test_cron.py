"""Times of cron expressions in zones, on ordinary days and in both nights in which clocks are set, against a slow oracle."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealbus.bus.work.schedules.cron import Cron
from sealbus.envelopes.limits import SECOND

MINUTE = timedelta(minutes=1)

# Nights in which clocks are set, with an hour, half an hour, and a midnight that does not exist; and one ordinary night.
NIGHTS = (
    ("Europe/Berlin", datetime(2026, 3, 29, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, tzinfo=UTC)),
    ("America/Havana", datetime(2024, 3, 10, 5, tzinfo=UTC)),
    ("America/Havana", datetime(2024, 11, 3, 5, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 5, 5, tzinfo=UTC)),
)


def micros(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def local_time(time: int, zone: str) -> datetime:
    return datetime.fromtimestamp(time // SECOND, UTC).astimezone(zone_of(zone))


def zone_of(name: str) -> ZoneInfo:
    """Return a zone of the locked package: the host's database may be years older."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def numbers(text: str, least: int, most: int) -> set[int]:
    """Return what a field of the forms that are generated here means."""
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        low, _, high = (f"{least}-{most}" if span == "*" else span).partition("-")
        found |= set(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


class Oracle:
    """Looks at each minute of some days around a night."""

    def __init__(self, expression: str, zone: str, night: datetime) -> None:
        minute, hour, day, _, _ = expression.split(" ")
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days = numbers(day, 1, 31)
        self.fixed = not minute.startswith("*") and not hour.startswith("*")
        start = night - timedelta(days=1, hours=12)
        self.instants = [start + minute * MINUTE for minute in range(int(timedelta(days=3) / MINUTE))]
        known = zone_of(zone)
        self.shown = [one.astimezone(known).replace(tzinfo=None) for one in self.instants]

    def means(self, local: datetime) -> bool:
        return local.minute in self.minutes and local.hour in self.hours and local.day in self.days

    def ticks(self) -> Iterator[datetime]:
        if not self.fixed:
            yield from (one for one, shown in zip(self.instants, self.shown, strict=True) if self.means(shown))
            return
        local, found = min(self.shown), set()
        first: dict[datetime, datetime] = {}
        for at, shown in zip(self.instants, self.shown, strict=True):
            first.setdefault(shown, at)
        while local < self.shown[-1]:
            if self.means(local):
                found.add(
                    first.get(local)
                    or next(at for at, shown in zip(self.instants, self.shown, strict=True) if shown > local)
                )
            local += MINUTE
        yield from sorted(found)


field_of_minutes = st.one_of(
    st.integers(0, 59).map(str),
    st.lists(st.integers(0, 59), min_size=2, max_size=4, unique=True).map(lambda some: ",".join(map(str, some))),
    st.sampled_from(["*", "*/7", "*/15", "*/30", "0-10/5", "20-40"]),
)
field_of_hours = st.one_of(
    st.integers(0, 3).map(str), st.sampled_from(["*", "*/2", "*/5", "0-3", "1,2", "2,3", "0,1,2,23"])
)


@settings(max_examples=150, deadline=None)
@given(field_of_minutes, field_of_hours, st.sampled_from(["*", "1-31/2"]), st.sampled_from(NIGHTS))
def test_it_is_what_an_oracle_finds_minute_by_minute(
    minute: str, hour: str, day: str, place: tuple[str, datetime]
) -> None:
    zone, night = place
    expression = f"{minute} {hour} {day} * *"
    oracle = Oracle(expression, zone, night)
    expected = [micros(one) for one in oracle.ticks()]
    cron, time, found = Cron(expression=expression, zone=zone), micros(oracle.instants[0]) - 1, []
    end = micros(oracle.instants[-1]) - 3 * 3_600 * SECOND
    while (tick := cron.after(time)) is not None and tick < end:
        found.append(tick)
        time = tick
    assert found == [one for one in expected if one < end]


@settings(max_examples=100, deadline=None)
@given(field_of_minutes, field_of_hours, st.sampled_from(NIGHTS), st.integers(-(10**11), 10**11))
def test_the_tick_after_a_time_is_the_same_from_wherever_one_looks(
    minute: str, hour: str, place: tuple[str, datetime], offset: int
) -> None:
    cron = Cron(expression=f"{minute} {hour} * * *", zone=place[0])
    start = micros(place[1]) + offset
    first = cron.after(start)
    assert first is not None
    assert first > start
    assert cron.after(first - 1) == first
    assert cron.after((start + first) // 2) == first if (start + first) // 2 < first else True


@pytest.mark.parametrize(
    ("expression", "zone", "day", "shown"),
    [
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 29), "03:00:00+02:00"),
        ("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 25), "02:30:00+02:00"),
        ("15 2 * * *", "Australia/Lord_Howe", datetime(2026, 10, 4), "02:30:00+11:00"),
        ("45 1 * * *", "Australia/Lord_Howe", datetime(2026, 4, 5), "01:45:00+11:00"),
    ],
)
def test_a_time_that_is_not_there_is_after_the_gap_and_one_that_is_twice_is_its_first(
    expression: str, zone: str, day: datetime, shown: str
) -> None:
    cron = Cron(expression=expression, zone=zone)
    tick = cron.after(micros(day.replace(tzinfo=zone_of(zone)).astimezone(UTC)))
    assert tick is not None
    assert local_time(tick, zone).isoformat() == f"{day.date()}T{shown}"
    following = cron.after(tick)
    assert following is not None
    assert local_time(following, zone).date() == day.date() + timedelta(days=1)


def test_a_running_clock_ticks_in_both_passes_of_an_hour() -> None:
    cron, shown = Cron(expression="*/30 * * * *", zone="Europe/Berlin"), []
    time = micros(datetime(2026, 10, 24, 23, 59, tzinfo=UTC))
    for _ in range(5):
        tick = cron.after(time)
        assert tick is not None
        shown.append(local_time(tick, "Europe/Berlin").isoformat()[11:])
        time = tick
    assert shown == ["02:00:00+02:00", "02:30:00+02:00", "02:00:00+01:00", "02:30:00+01:00", "03:00:00+01:00"]


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 * * *", "* * * *", "60 * * * *", "0 24 * * *", "0 0 * 13 *",
        "0 0 * * 9", "0 0 * * 1#6", "*/0 * * * *", "", " * * * * *", "* * * *  *", "@daily", "0 0 * * *\n", "٣ * * * *",
        "0 0 ? * *", "a b c d e", "0 0 * * " + "1," * 100 + "1",
    ],
)  # fmt: skip
def test_what_is_no_expression_or_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"cron|date"):
        Cron(expression=expression)


def test_a_date_that_comes_every_four_years_comes() -> None:
    cron = Cron(expression="0 12 29 2 *")
    assert cron.after(micros(datetime(2026, 1, 1, tzinfo=UTC))) == micros(datetime(2028, 2, 29, 12, tzinfo=UTC))


def test_there_is_an_end_of_time() -> None:
    assert Cron(expression="0 12 29 2 *", zone="Europe/Berlin").after(253_402_300_799 * SECOND) is None
    assert Cron(expression="* * * * *", zone="Europe/Berlin").after(253_402_300_799 * SECOND) is None


@pytest.mark.parametrize(
    "zone",
    [
        "Mars/Olympus",
        "../etc/passwd",
        "Europe",
        "tzdata.zi",
        "zones",
        "",
        "/UTC",
        "Europe/",
        "Europe//Berlin",
        "a" * 65,
    ],
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="zone"):
        Cron(expression="0 0 * * *", zone=zone)


def test_zones_are_those_of_the_package_and_not_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts of different age would send one tick at two times, each under its own id."""
    import zoneinfo

    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    assert Cron(expression="0 0 * * *", zone="Asia/Tokyo").after(0) == 15 * 3_600 * SECOND
