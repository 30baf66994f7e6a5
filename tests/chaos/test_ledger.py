"""The ledger of one server, shortened: every kind of fault once, and proof that each count of it can fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledger.book import POISON, Book, cancel_after, is_at_the_edge, is_denied, is_put_off
from ledger.count import READ, Count, judge
from ledger.faults import FAULTS, faults_of
from ledger.servers import Layout
from ledger.short import counted
from promises.promises import (
    DENIED,
    GIVEN_UP,
    LOST,
    NO_END,
    NOT_DONE,
    REFUSED,
    STOPPED,
    THOUGH_CANCELED,
    TWICE,
    TWO_ENDS,
    UNASKED,
    UNDONE,
    UNRECORDED,
    UNTOLD,
)
from support.native_wheel import require_wheel

from sealbus.agents.sdk.task_handle import handle_text
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = [pytest.mark.nats]

OTHERWISE = "poison that did not end as killed"


@pytest.mark.slow
@pytest.mark.opa
async def test_no_promise_is_broken_by_any_kind_of_fault() -> None:
    kinds = faults_of(Layout.SINGLE)
    count = await counted(kinds, kills=len(kinds))
    assert count.problems == []
    assert count.canceled
    assert count.undone
    assert count.effects >= count.acknowledged * 8 // 10
    assert count.waited
    assert count.killed
    # Both readers were told.
    assert count.told > READ


@pytest.mark.slow
async def test_two_releases_side_by_side_keep_every_promise_while_workers_die() -> None:
    count = await counted(["versions", "worker", "poison"], kills=6)
    assert count.problems == []
    assert count.former


@pytest.mark.slow
async def test_what_waits_in_a_backup_is_lost_where_nobody_tells_the_notary() -> None:
    count = await counted(["restore"], kills=1, untold=True, settle=10.0)
    assert UNDONE in {one.event.text for one in count.broken if one.promise == NO_END}
    assert not count.waited


@pytest.mark.slow
async def test_workers_that_die_in_the_middle_of_a_batch_keep_every_promise_of_the_native_engine() -> None:
    require_wheel()
    count = await counted(["worker", "worker", "idle"], kills=6, engine="native")
    assert count.problems == []
    assert count.effects >= count.acknowledged * 8 // 10


def test_each_site_has_the_faults_of_what_it_has() -> None:
    single, cluster, leaf, regions = map(faults_of, Layout)
    assert set(cluster) - set(single) == {"one", "leader"}
    assert set(leaf) - set(cluster) == {"link", "leaf"}
    assert set(cluster) - set(leaf) == {"callout"}
    assert set(regions) - set(leaf) == {"region", "home"}
    assert set(leaf) | set(cluster) | set(regions) == set(FAULTS)


@pytest.mark.slow
async def test_a_server_that_acknowledges_first_breaks_promises_when_the_power_fails() -> None:
    # What was lost is never done, however long one waits.
    count = await counted(["power"], kills=3, always=False, settle=10.0)
    assert count.problems


@pytest.mark.slow
async def test_workers_that_heed_no_cancel_do_what_was_canceled_before() -> None:
    count = await counted(["idle"], kills=3, deaf=True)
    assert count.broke(THOUGH_CANCELED)
    assert not count.undone


ENDS = {1: "completed", 2: "completed", 10: "rejected denied"}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """One task that paid and one that noted, both done once, and one that was denied."""
    book = Book(tmp_path / "book.sqlite")
    for number, verb, message in ((1, "pay", "a"), (2, "note", "b"), (10, "note", "c")):
        book.acknowledge(number, verb, f"/v1/tasks/{message}")
    book.effect(1, "pay", "a")
    book.effect(2, "note", "b")
    yield book
    book.close()


def found(book: Book, *, allowed: str = "ab", later: dict[int, str] = ENDS, **told: str) -> Count:
    """Return what is counted if the senders of these tasks were told this; `_3="expired"` is of the third."""
    ends = ENDS | {int(number[1:]): end for number, end in told.items()}
    return judge(book, allowed=dict.fromkeys(allowed, 0.0), told=ends, later=later, findings=0)


def problems(promise: str, number: int) -> list[str]:
    return [f"{promise}: 1, such as [{number}]"]


def test_a_good_book_has_no_problem(book: Book) -> None:
    count = found(book)
    assert count.problems == []
    assert count.told == 6


def test_what_was_acknowledged_and_never_done_is_lost_unless_its_sender_was_told(book: Book) -> None:
    book.acknowledge(3, "pay", "/v1/tasks/d")
    assert found(book, _3="failed outcome_unknown").problems == []
    assert found(book).problems == problems(NO_END, 3)
    assert found(book, _3="expired expired").problems == problems(LOST, 3)
    for end in ("failed handler_failed", "failed handler_timeout", "failed killed", "failed bad_body"):
        assert found(book, _3=end).problems == problems(GIVEN_UP, 3)
    assert found(book, _3="rejected denied").problems == problems(REFUSED, 3)
    assert found(book, _3="completed").problems == problems(NOT_DONE, 3)


def test_what_was_done_under_once_is_told(book: Book) -> None:
    assert found(book, _1="failed outcome_unknown", later={}).problems == []
    assert found(book, _1="expired expired", later={}).problems == problems(UNTOLD, 1)
    # Of the others that is tried for a while only.
    assert found(book, _2="expired expired", _10="expired expired", later={}).problems == []
    message = bytes([3] * 16).hex()
    book.acknowledge(3, "pay", handle_of(3))
    book.effect(3, "pay", message)
    allowed = {"a": 0.0, "b": 0.0, message: 0.0}
    assert judge(book, allowed=allowed, told=ENDS, findings=0).problems == problems(NO_END, 3)
    assert judge(book, allowed=allowed, told=ENDS | {3: "completed"}, findings=0).problems == []


def test_every_reader_is_told_the_same_end(book: Book) -> None:
    assert found(book, _1="failed outcome_unknown").problems == problems(TWO_ENDS, 1)


def test_what_was_promised_once_and_done_twice_is_doubled(book: Book) -> None:
    book.effect(2, "note", "b")
    assert found(book).problems == []
    assert found(book).repeated == 1
    book.effect(1, "pay", "a")
    assert found(book).problems == problems(TWICE, 1)


def test_what_was_done_without_a_record_is_unrecorded(book: Book) -> None:
    assert found(book, allowed="a").problems == problems(UNRECORDED, 2)
    late = {"a": 0.0, "b": time.time() + 1}
    assert judge(book, allowed=late, told=ENDS, findings=0).problems == problems(UNRECORDED, 2)


def test_what_the_policy_denies_is_not_done(book: Book) -> None:
    book.effect(10, "note", "a")
    assert found(book).problems == problems(DENIED, 10)


@pytest.mark.parametrize(
    ("after", "broken"),
    [(-1.0, []), (STOPPED, []), (STOPPED + 0.1, problems(THOUGH_CANCELED, 2))],
    ids=["before", "within", "later"],
)
def test_what_was_canceled_is_not_begun_later_than_promised(
    book: Book, after: float, broken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("ledger.book.time", SimpleNamespace(time=lambda: now))
    for number in (1, 2):
        book.ask_cancel(number)
    book.confirm_cancel(2)
    now += after
    # The first one's cancel was never confirmed.
    for number, verb, message in ((1, "note", "a"), (2, "note", "b")):
        book.effect(number, verb, message)
    assert found(book).problems == broken


def test_what_another_copy_did_is_counted_by_itself(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("ledger.book.time", SimpleNamespace(time=lambda: now))
    book.acknowledge(3, "note", handle_of(4))
    for number in (2, 3):
        book.ask_cancel(number)
        book.confirm_cancel(number)
    now += STOPPED + 1
    book.effect(2, "note", "a")
    book.effect(3, "note", "a")
    count = found(book, _3="completed")
    assert (count.another_copy, count.problems) == (2, [])


def test_what_ended_as_canceled_is_lost_only_if_nobody_wanted_that(book: Book) -> None:
    book.acknowledge(3, "pay", "/v1/tasks/d")
    book.ask_cancel(3)
    count = found(book, _3="canceled canceled")
    assert (count.problems, count.undone, count.canceled) == ([], 1, 0)
    book.confirm_cancel(3)
    assert found(book, _3="canceled canceled").canceled == 1
    assert found(book).problems == problems(NO_END, 3)
    book.acknowledge(4, "note", "/v1/tasks/e")
    assert found(book, _3="canceled canceled", _4="canceled canceled").problems == problems(UNASKED, 4)


def test_one_in_twenty_is_canceled_of_each_kind_and_none_is_denied() -> None:
    canceled = [number for number in range(1, 3_601) if cancel_after(number) is not None]
    assert len(canceled) == 180
    assert not any(is_put_off(number) or is_denied(number) for number in range(-3_600, 0))
    assert not any(map(is_denied, canceled))
    kinds = {(cancel_after(number), number % 2, is_at_the_edge(number)) for number in canceled}
    assert len(kinds) == 9
    assert len([number for number in canceled if is_put_off(number)]) == 60


def handle_of(number: int) -> str:
    """Return the handle of the task with this byte in all of its message's id."""
    pending = PendingRequest(
        id=bytes([number] * 16), digest=bytes(32), aud=SpiffeId("spiffe://example.org/bank"), end=1
    )
    return handle_text(AskedTask(pending=pending, action="bank.note"))


@pytest.mark.parametrize(
    ("told", "recorded", "broken"),
    [
        ("failed killed", True, []),
        ("failed killed", False, problems(OTHERWISE, -1)),
        ("", True, problems(OTHERWISE, -1)),
        ("failed outcome_unknown", True, problems(OTHERWISE, -1)),
    ],
)
def test_poison_has_to_end_as_killed_with_a_record(book: Book, told: str, recorded: bool, broken: list[str]) -> None:
    book.acknowledge(-1, POISON, handle_of(3))
    message = bytes([3] * 16).hex()
    for _ in range(3):
        book.effect(-1, POISON, message)
    killed = {message, "of another task"} if recorded else {"of another task"}
    count = judge(book, allowed={"a": 0.0, "b": 0.0, message: 0.0}, killed=killed, told=ENDS | {-1: told}, findings=0)
    assert count.problems == broken
    assert (count.killed, count.blamed, count.effects, count.repeated) == (int(not broken), 1, 2, 0)
    count = judge(book, allowed={"a": 0.0, "b": 0.0}, killed=killed, told=ENDS | {-1: told}, findings=0)
    assert count.broke(UNRECORDED) == [-1]


def test_what_waited_in_a_backup_was_done_only_after_it(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("ledger.book.time", SimpleNamespace(time=lambda: now))
    book.acknowledge(3, "note", handle_of(3))
    now += 1
    book.backup()
    now += 1
    book.acknowledge(4, "note", handle_of(4))
    # The first was done before the backup, too, and the last was sent after it.
    for number, message in ((2, "b"), (3, "c"), (4, "d")):
        book.effect(number, "note", message, former=number == 4)
    count = found(book, _3="completed", _4="completed")
    assert (count.waited, count.former) == (1, 1)


def test_a_record_that_does_not_verify_is_told(book: Book) -> None:
    assert judge(book, allowed={"a": 0.0, "b": 0.0}, told=ENDS, findings=2).problems == [
        "records that do not verify: 2"
    ]
