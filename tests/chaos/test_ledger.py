"""The ledger, shortened: every kind of fault once, and proof that each count of it can fail. `make chaos` is the long run."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger.book import Book
from ledger.count import Count, judge
from ledger.faults import FAULTS, faults_of
from ledger.run import run
from ledger.servers import Layout
from support.workload_api import short_folder

pytestmark = [pytest.mark.nats, pytest.mark.timeout(240)]

SEED = 11


async def broken(kinds: list[str], *, kills: int, layout: Layout = Layout.SINGLE, always: bool = True) -> Count:
    with short_folder() as folder:
        said: list[str] = []
        count = await run(
            folder, kinds=kinds, kills=kills, rate=40.0, seed=SEED, say=said.append, layout=layout, always=always
        )
    assert count.acknowledged > 0
    assert said[-1] == str(count)
    return count


@pytest.mark.slow
@pytest.mark.opa
async def test_no_promise_is_broken_by_any_kind_of_fault() -> None:
    kinds = faults_of(Layout.SINGLE)
    count = await broken(kinds, kills=len(kinds))
    assert count.problems == []
    assert count.effects >= count.acknowledged * 8 // 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        (Layout.CLUSTER, ["leader", "one", "both", "network", "power"]),
        (Layout.LEAF, ["leader", "link", "leaf", "nats"]),
    ],
)
async def test_no_promise_is_broken_with_three_servers_and_a_leaf_node(layout: Layout, kinds: list[str]) -> None:
    count = await broken(kinds, kills=len(kinds), layout=layout)
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
    count = await broken(["power"], kills=3, always=False)
    assert count.problems


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """One task that paid and one that noted, both done once, and one that was denied."""
    book = Book(tmp_path / "book.sqlite")
    for number, verb in ((1, "pay"), (2, "note"), (10, "note")):
        book.acknowledge(number, verb, f"handle-{number}")
    book.effect(1, "pay", "a")
    book.effect(2, "note", "b")
    return book


def found(book: Book, *, allowed: frozenset[str] = frozenset("ab"), unknown: frozenset[int] = frozenset()) -> Count:
    count = judge(book, allowed=allowed, unknown=unknown, findings=0)
    book.close()
    return count


def test_a_good_book_has_no_problem(book: Book) -> None:
    assert found(book).problems == []


def test_what_was_acknowledged_and_never_done_is_lost_unless_its_sender_was_told(book: Book) -> None:
    book.acknowledge(3, "pay", "handle-3")
    assert judge(book, allowed={"a", "b"}, unknown={3}, findings=0).problems == []
    assert found(book).problems == ["lost: 1, such as [3]"]


def test_what_was_promised_once_and_done_twice_is_doubled(book: Book) -> None:
    book.effect(2, "note", "b")
    assert judge(book, allowed={"a", "b"}, unknown=set(), findings=0).repeated == 1
    book.effect(1, "pay", "a")
    assert found(book).problems == ["doubled under once: 1, such as [1]"]


def test_what_was_done_without_a_record_is_unrecorded(book: Book) -> None:
    assert found(book, allowed=frozenset("a")).problems == ["unrecorded: 1, such as ['b']"]


def test_what_the_policy_denies_is_not_done(book: Book) -> None:
    book.effect(10, "note", "a")
    assert found(book).problems == ["handled though denied: 1, such as [10]"]


def test_a_record_that_does_not_verify_is_told(book: Book) -> None:
    assert judge(book, allowed={"a", "b"}, unknown=set(), findings=2).problems == ["records that do not verify: 2"]
    book.close()
