"""The ledger of one server, shortened: every kind of fault once, and proof that each count of it can fail."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from ledger.book import POISON, Book, cancel_after, is_at_the_edge, is_denied, is_put_off
from ledger.count import STOPPED, Count, judge
from ledger.faults import FAULTS, faults_of
from ledger.servers import Layout
from ledger.short import counted
from support.native_wheel import require_wheel

from sealbus.agents.sdk.task_handle import handle_text
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = [pytest.mark.nats]

OTHERWISE = "poison that did not end as killed: 1, such as [-1]"
LATE = "handled though canceled before: 1, such as [2]"


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


@pytest.mark.slow
async def test_two_releases_side_by_side_keep_every_promise_while_workers_die() -> None:
    count = await counted(["versions", "worker", "poison"], kills=6)
    assert count.problems == []
    assert count.former


@pytest.mark.slow
async def test_what_waits_in_a_backup_is_lost_where_nobody_tells_the_notary() -> None:
    count = await counted(["restore"], kills=1, untold=True, settle=10.0)
    assert count.lost
    assert not count.waited


@pytest.mark.slow
async def test_workers_that_die_in_the_middle_of_a_batch_keep_every_promise_of_the_native_engine() -> None:
    require_wheel()
    count = await counted(["worker", "worker", "idle"], kills=6, engine="native")
    assert count.problems == []
    assert count.effects >= count.acknowledged * 8 // 10


def test_each_site_has_the_faults_of_what_it_has() -> None:
    single, cluster, leaf = map(faults_of, Layout)
    assert set(cluster) - set(single) == {"one", "leader"}
    assert set(leaf) - set(cluster) == {"link", "leaf"}
    assert set(cluster) - set(leaf) == {"callout"}
    assert set(leaf) | set(cluster) == set(FAULTS)


@pytest.mark.slow
async def test_a_server_that_acknowledges_first_breaks_promises_when_the_power_fails() -> None:
    # What was lost is never done, however long one waits.
    count = await counted(["power"], kills=3, always=False, settle=10.0)
    assert count.problems


@pytest.mark.slow
async def test_workers_that_heed_no_cancel_do_what_was_canceled_before() -> None:
    count = await counted(["idle"], kills=3, deaf=True)
    assert count.though_canceled
    assert not count.undone


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """One task that paid and one that noted, both done once, and one that was denied."""
    book = Book(tmp_path / "book.sqlite")
    for number, verb, message in ((1, "pay", "a"), (2, "note", "b"), (10, "note", "c")):
        book.acknowledge(number, verb, f"/v1/tasks/{message}")
    book.effect(1, "pay", "a")
    book.effect(2, "note", "b")
    return book


def found(book: Book, *, allowed: frozenset[str] = frozenset("ab")) -> Count:
    count = judge(book, allowed=allowed, told={}, findings=0)
    book.close()
    return count


def test_a_good_book_has_no_problem(book: Book) -> None:
    assert found(book).problems == []


def test_what_was_acknowledged_and_never_done_is_lost_unless_its_sender_was_told(book: Book) -> None:
    book.acknowledge(3, "pay", "handle-3")
    assert judge(book, allowed={"a", "b"}, told={3: "outcome_unknown"}, findings=0).problems == []
    assert found(book).problems == ["lost: 1, such as [3]"]


def test_what_was_promised_once_and_done_twice_is_doubled(book: Book) -> None:
    book.effect(2, "note", "b")
    assert judge(book, allowed={"a", "b"}, told={}, findings=0).repeated == 1
    book.effect(1, "pay", "a")
    assert found(book).problems == ["doubled under once: 1, such as [1]"]


def test_what_was_done_without_a_record_is_unrecorded(book: Book) -> None:
    assert found(book, allowed=frozenset("a")).problems == ["unrecorded: 1, such as ['b']"]


def test_what_the_policy_denies_is_not_done(book: Book) -> None:
    book.effect(10, "note", "a")
    assert found(book).problems == ["handled though denied: 1, such as [10]"]


@pytest.mark.parametrize(("after", "problems"), [(-1.0, []), (STOPPED, []), (STOPPED + 0.1, [LATE])])
def test_what_was_canceled_is_not_begun_later_than_promised(
    book: Book, after: float, problems: list[str], monkeypatch: pytest.MonkeyPatch
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
    assert found(book).problems == problems


def test_what_another_copy_did_is_counted_by_itself(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("ledger.book.time", SimpleNamespace(time=lambda: now))
    task = AskedTask(
        pending=PendingRequest(id=bytes(range(16)), digest=bytes(32), aud=SpiffeId("spiffe://example.org/bank"), end=1),
        action="bank.note",
    )
    book.acknowledge(3, "note", handle_text(task))
    for number in (2, 3):
        book.ask_cancel(number)
        book.confirm_cancel(number)
    now += STOPPED + 1
    book.effect(2, "note", "a")
    book.effect(3, "note", "b")
    count = found(book)
    assert (count.another_copy, count.problems) == (2, [])


def test_what_ended_as_canceled_is_lost_only_if_nobody_wanted_that(book: Book) -> None:
    book.acknowledge(3, "pay", "handle-3")
    book.ask_cancel(3)
    told = {3: "canceled"}
    count = judge(book, allowed={"a", "b"}, told=told, findings=0)
    assert (count.problems, count.undone, count.canceled) == ([], 1, 0)
    book.confirm_cancel(3)
    assert judge(book, allowed={"a", "b"}, told=told, findings=0).canceled == 1
    assert judge(book, allowed={"a", "b"}, told={}, findings=0).problems == ["lost: 1, such as [3]"]
    book.acknowledge(4, "note", "handle-4")
    assert judge(book, allowed={"a", "b"}, told={**told, 4: "canceled"}, findings=0).problems == [
        "lost: 1, such as [4]"
    ]
    book.close()


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
    ("told", "recorded", "problems"),
    [
        ("killed", True, []),
        ("killed", False, [OTHERWISE]),
        ("", True, [OTHERWISE]),
        ("outcome_unknown", True, [OTHERWISE]),
    ],
)
def test_poison_has_to_end_as_killed_with_a_record(book: Book, told: str, recorded: bool, problems: list[str]) -> None:
    book.acknowledge(-1, POISON, handle_of(3))
    message = bytes([3] * 16).hex()
    for _ in range(3):
        book.effect(-1, POISON, message)
    killed = {message, "of another task"} if recorded else {"of another task"}
    count = judge(book, allowed={"a", "b", message}, killed=killed, told={-1: told}, findings=0)
    assert count.problems == problems
    assert (count.killed, count.blamed, count.effects, count.repeated) == (int(not problems), 1, 2, 0)
    assert judge(book, allowed={"a", "b"}, killed=killed, told={-1: told}, findings=0).unrecorded == [message]
    book.close()


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
    count = found(book)
    assert (count.waited, count.former) == (1, 1)


def test_a_record_that_does_not_verify_is_told(book: Book) -> None:
    assert judge(book, allowed={"a", "b"}, told={}, findings=2).problems == ["records that do not verify: 2"]
    book.close()
