"""The body of the message that asks for a schedule: exact members, bounds, and a text that people can read in the record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.envelopes import NAMES, NOW

from sealbus.bus.sending.message import Content
from sealbus.bus.work.schedules.cron import Cron
from sealbus.bus.work.schedules.request import (
    BODY_BYTES,
    LASTS,
    SCHEDULE_TYPE,
    Overlap,
    Planned,
    ScheduleRequest,
    ScheduleState,
    encode_schedule,
    parse_schedule,
    schedule_message,
)
from sealbus.bus.work.schedules.rule import At, Every
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.limits import SECOND

PLANNED = Planned(
    action="inventory.update",
    body=Content(b'{"item_id":"42"}', "application/json"),
    when=Cron(expression="0 7 * * 1-5", zone="Europe/Berlin"),
    until=NOW + 1_000 * SECOND,
)
FULL = Planned(
    action="inventory.update",
    body=Content(b"\xff\x00", "application/octet-stream"),
    when=Every(seconds=600, start=NOW),
    until=NOW,
    partition="north",
    grants=("pricing.quote", "planner.*"),
    life=60,
    overlap=Overlap.QUEUE,
    catchup=0,
)


@pytest.mark.parametrize(
    "request_",
    [
        ScheduleRequest(name="nightly", planned=PLANNED),
        ScheduleRequest(name="n-1_A", planned=FULL),
        ScheduleRequest(name="once", planned=replace(FULL, grants=(), when=At(time=NOW))),
        *(ScheduleRequest(name="nightly", state=state) for state in ScheduleState),
    ],
)
def test_what_is_composed_is_parsed(request_: ScheduleRequest) -> None:
    assert parse_schedule(*encode_schedule(request_)) == request_


def test_a_body_that_is_text_can_be_read_in_the_record() -> None:
    said = json.loads(encode_schedule(ScheduleRequest(name="nightly", planned=PLANNED)).body)
    assert said["do"]["text"] == '{"item_id":"42"}'
    assert "base64" not in said["do"]


def said(**changes: object) -> dict[str, Any]:
    return {**json.loads(encode_schedule(ScheduleRequest(name="nightly", planned=PLANNED)).body), **changes}


def done(**changes: object) -> dict[str, Any]:
    return said(do={**said()["do"], **changes})


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


@pytest.mark.parametrize(
    "document",
    [
        said(v=2), said(v=True), said(v="1"), said(name=""), said(name="a.b"), said(name="a" * 65), said(name=1),
        said(name="ä"),
        said(state="off"), said(state="paused"), said(state=None), said(more=1), said(do=[]), said(when="daily"),
        said(overlap="cancel"), said(overlap=None), said(catchup=-1), said(catchup=86_401), said(catchup=1.0),
        said(catchup=True), said(until=None), said(until=-1), said(until=2**53), said(when={"every": 9, "from": 0}),
        *(without(said(), name) for name in ("v", "name", "state", "do", "when", "overlap", "catchup", "until")),
        done(action="inventory.*"), done(action=""), done(action=1), done(action="inventory._cancel"),
        done(typ=1), done(typ="\n"),
        done(partition=1), done(partition="\n"), done(grants="all"), done(grants=[1]), done(grants=["*"]),
        done(grants=["a.b"] * 33),
        done(life=0), done(life=86_401), done(life=1.5), done(life=True), done(base64="eA=="),
        done(text=1), done(text="\ud800"),
        done(more=1), done(text="x" * (BODY_BYTES + 1)),
        *(said(do=without(said()["do"], name)) for name in ("action", "typ", "text", "partition", "grants", "life")),
        said(do={**without(said()["do"], "text"), "base64": "e A=="}),
        said(do={**without(said()["do"], "text"), "base64": 1}),
        {"v": 1, "name": "nightly"}, {"v": 1, "name": "nightly", "state": "on", "until": NOW},
    ],
)  # fmt: skip
def test_anything_else_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BadBody):
        parse_schedule(json.dumps(document).encode(), SCHEDULE_TYPE)


def test_neither_other_types_nor_longer_bodies_are_schedules() -> None:
    body, typ = encode_schedule(ScheduleRequest(name="nightly", planned=PLANNED))
    assert parse_schedule(body + b" " * (65_536 - len(body)), typ).name == "nightly"
    for wrong in ((body, "application/json"), (body + b" " * (65_537 - len(body)), typ), (b"[]", typ), (b"\xff", typ)):
        with pytest.raises(BadBody):
            parse_schedule(*wrong)


def test_what_would_be_too_long_is_not_sent() -> None:
    largest = replace(PLANNED, body=Content(b"x" * BODY_BYTES, "text/plain"))
    assert parse_schedule(*encode_schedule(ScheduleRequest(name="n", planned=largest))).planned == largest
    with pytest.raises(ValueError, match="49152 bytes"):
        replace(PLANNED, body=Content(b"x" * (BODY_BYTES + 1), "text/plain"))
    with pytest.raises(ValueError, match="65536 bytes"):
        encode_schedule(
            ScheduleRequest(name="n", planned=replace(PLANNED, body=Content(b'"' * BODY_BYTES, "text/plain")))
        )


def test_it_is_a_task_for_the_owner_that_follows_from_nothing() -> None:
    owner = NAMES.id_of("planner")
    message = schedule_message(ScheduleRequest(name="n", planned=PLANNED), owner=owner, names=NAMES)
    assert (message.draft.to, message.draft.aud, message.draft.ancestors) == ("control.planner.schedule", owner, ())


@pytest.mark.parametrize("until", [NOW, NOW - 1, NOW + LASTS + 5 * SECOND + 1])
def test_it_ends_within_a_year_and_not_before_it_begins(until: int) -> None:
    replace(PLANNED, until=NOW + LASTS).check_from(NOW)
    with pytest.raises(ValueError, match="366 days"):
        replace(PLANNED, until=until).check_from(NOW)


def test_what_was_to_happen_once_long_ago_is_refused() -> None:
    replace(PLANNED, when=At(time=NOW - 60 * SECOND)).check_from(NOW)
    with pytest.raises(ValueError, match="never ticks"):
        replace(PLANNED, when=At(time=NOW - 7_200 * SECOND)).check_from(NOW)


def test_a_schedule_that_stops_says_nothing_else() -> None:
    with pytest.raises(ValueError, match="keeps what it does"):
        ScheduleRequest(name="n", state=ScheduleState.PAUSED, planned=PLANNED)
