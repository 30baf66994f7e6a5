"""What is kept of a parked task: it reads back as it was written, and nothing else reads as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import INVENTORY, Message
from support.envelopes import NAMES, NOW, agent
from support.near import near
from support.parked import parked_task, record_of, value_of, verdict

from sealbus.bus.sending.approval import Verdict
from sealbus.bus.work.approvals.parked_tasks import (
    MOST_VERDICTS,
    CountedVerdict,
    Parked,
    ParkedState,
    counted,
    parse_parked,
    without,
)
from sealbus.envelopes.errors import EnvelopeError, SealError
from sealbus.envelopes.limits import SECOND

DIGESTS = st.binary(min_size=32, max_size=32)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
TIMES = st.integers(0, 1 << 52)
VERDICTS = st.builds(
    verdict,
    TEXTS,
    verdict=st.sampled_from(Verdict),
    idp=TEXTS,
    session=TEXTS,
    client=TEXTS,
    acr=TEXTS,
    authenticated=TIMES,
    time=TIMES,
    message=DIGESTS,
    record=DIGESTS,
    issued=TIMES,
)


@given(VERDICTS)
def test_a_verdict_reads_back_as_it_was_written(one: CountedVerdict) -> None:
    assert CountedVerdict.parse(one.encode()) == one


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_verdict_of_other_bytes_is_another_or_none(place: int, flip: int) -> None:
    raw = bytearray(verdict("boss", acr="gold").encode())
    raw[place % len(raw)] ^= flip
    try:
        other = CountedVerdict.parse(bytes(raw))
    except (EnvelopeError, SealError, ValueError):
        return
    assert other != verdict("boss", acr="gold")
    assert other.encode() == bytes(raw)


@given(st.binary(max_size=300))
def test_bytes_are_no_verdict(raw: bytes) -> None:
    with pytest.raises((EnvelopeError, SealError, ValueError)):
        CountedVerdict.parse(raw)


@pytest.mark.parametrize(
    "bad",
    [
        {"message": b"m" * 31},
        {"message": b"m" * 33},
        {"record": b""},
        {"authenticated": -1},
        {"time": -1},
        {"issued": 1 << 53},
        {"session": "a\x00"},
    ],
)
def test_a_verdict_has_its_form(bad: dict[str, Any]) -> None:
    with pytest.raises(SealError):
        verdict(**bad)


def test_the_policy_sees_whole_seconds_and_what_was_said() -> None:
    given_ = verdict("boss", authenticated=NOW + 1, time=NOW + SECOND).given()
    assert (given_.user, given_.idp, given_.verdict) == ("boss", "https://idp.example", "approve")
    assert given_.auth_time == NOW // SECOND


@given(
    st.lists(VERDICTS, max_size=4),
    st.sampled_from(ParkedState),
    st.integers(0, 100),
    st.one_of(st.just(b""), DIGESTS),
    TIMES,
)
def test_a_parked_task_reads_back_as_it_was_written(
    verdicts: list[CountedVerdict], state: ParkedState, turn: int, run: bytes, until: int
) -> None:
    parked = parked_task(verdicts=tuple(verdicts), state=state, turn=turn, run=run, until=until)
    value = value_of(parked)
    assert parse_parked(value) == replace(parked, value=value)


@pytest.mark.parametrize(
    "keys",
    [
        {"que": "directors"},
        {"que": "manager"},
        {"dig": bytes(32)},
        {"rec": b""},
        {"rec": b"junk"},
        {"snc": None},
        {"unt": "soon"},
        {"sta": "Waiting"},
        {"sta": "wait"},
        {"trn": None},
        {"run": "x"},
        {"apr": [b"junk"]},
        {"apr": [verdict().encode()] * (MOST_VERDICTS + 1)},
        {"more": 1},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_is_no_parked_task_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(SealError):
        parse_parked(value_of(parked_task(), **keys))


@pytest.mark.parametrize(
    "subject",
    [
        "held.inventory.task.directors.{0}",
        "held.inventory.task.managers.{1}",
        "held.inventory.task.managers.{0}.x",
        "held.inventory.wait.managers.{0}",
        "held.inventory.task.managers",
        "held.inventory.task.managers.{2}",
        "held.inventory.task.managers.{3}",
        "held.inventory.TASK.managers.{0}",
        "held.inventory.task.managers.{0}x",
        "held.inventory.Task.managers.{0}",
        "Held.inventory.task.managers.{0}",
    ],
)
def test_a_parked_task_of_another_place_is_none(subject: str) -> None:
    parked = parked_task()
    digest = parked.digest.hex()
    other = digest[:-1] + ("0" if digest[-1] == "1" else "1")
    with pytest.raises(SealError):
        parse_parked(
            value_of(
                parked,
                subject=subject.format(digest, "0" * 64, digest.upper(), other),
            )
        )


def test_a_task_for_another_agent_is_not_ours_to_keep() -> None:
    parked = parked_task()
    for other in (agent("planner"), *near(INVENTORY)):
        with pytest.raises(SealError):
            parse_parked(replace(value_of(parked), own=other))
    assert NAMES.token(INVENTORY) == "inventory"


def test_what_denied_it_asked_for_an_approval_of_a_task() -> None:
    task = Message()
    good = parked_task()
    for bent in (
        good.decision._replace(allow=True, code=None),
        good.decision._replace(obligations=b"[]"),
        good.decision._replace(obligations=good.decision.obligations[:-1] + b",7]"),
        good.decision._replace(obligations=b"[7," + good.decision.obligations[1:]),
    ):
        with pytest.raises(SealError):
            parked_task(record=bent.encode())
    with pytest.raises(SealError):
        parked_task(record=b"")
    with pytest.raises(SealError):
        parked_task(verdicts=(verdict(),) * (MOST_VERDICTS + 1))
    assert len(parked_task(verdicts=(verdict(),) * MOST_VERDICTS).verdicts) == MOST_VERDICTS
    assert parked_task(record=record_of(task, queue="q")).obligation.queue == "q"


def test_numbers_grow_with_each_time_it_is_taken_up() -> None:
    parked = parked_task()
    assert parked.arrival.delivery == parked.decision.delivery
    assert replace(parked, turn=3).arrival.delivery == parked.decision.delivery + 3
    assert (parked.changed, replace(parked, value=value_of(parked, stored=NOW + 5)).changed) == (0, NOW + 5)


def test_who_has_taken_it_up() -> None:
    run = b"r" * 32
    running = parked_task(state=ParkedState.RUNNING, run=run)
    assert running.taken_up_by(run)
    assert not running.taken_up_by(b"r" * 31 + b"s")
    for state in (ParkedState.WAITING, ParkedState.ENDED):
        assert not replace(running, state=state).taken_up_by(run)


def test_a_person_has_one_verdict() -> None:
    first, second = verdict("boss"), verdict("boss", verdict=Verdict.DENY, session="other")
    elsewhere = verdict("boss", idp="https://other.example")
    assert counted((first, elsewhere), second) == (elsewhere, second)
    assert without((first, elsewhere), first.person) == (elsewhere,)
    assert without((first,), ("https://idp.example", "bos")) == (first,)


def test_nobody_asked_where_there_is_no_context() -> None:
    assert parked_task(message=Message(context=None, ancestors=())).requester is None
    assert isinstance(parked_task(), Parked)
