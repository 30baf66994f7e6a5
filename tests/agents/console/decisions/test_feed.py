"""The feed: what readers get, in which messages, and what happens to who does not keep up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from sealbus.agents.console.decisions.feed import ROWS, WAITING, DecisionFeed, FeedReader
from sealbus.agents.console.decisions.rows import DecisionRow, OutcomeRow
from sealbus.bus.audit.trail import AuditTrail, Finding
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))


def row(sequence: int, *, allow: bool = True, sender: str = "shop", action: str = "inventory.read") -> DecisionRow:
    return DecisionRow(
        sequence=sequence, record=sequence.to_bytes(32), time=1_800_000_000_000_000, message=sequence.to_bytes(16),
        digest=b"", txn=b"", action=action, sender=sender, decider="inventory", user="alice", allow=allow,
        reasons=() if allow else ("not_owner",), code="" if allow else "denied",
    )  # fmt: skip


class Silence:
    """A trail in which nothing comes."""

    async def entries(self, *, follow: bool = False) -> AsyncIterator[Finding]:
        assert follow
        await asyncio.Event().wait()
        yield Finding(sequence=0, stored=0, subject="", code="", step=0, detail="")


def feed_of(kept: int = 100, trail: object = None) -> DecisionFeed:
    return DecisionFeed(
        lambda _: cast("AuditTrail", trail or Silence()), names=NAMES, edges=["edge"], after=0, capacity=kept,
        clock=lambda: 1_800_000_000_000_000,
    )  # fmt: skip


def events(data: bytes) -> list[tuple[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def got(reader: FeedReader) -> list[tuple[str, Any]]:
    data = await reader.next()
    assert data is not None
    return events(data)


def sequences(said: Sequence[tuple[str, Any]]) -> list[int]:
    return [one["sequence"] for name, document in said if name == "decisions" for one in document["rows"]]


async def test_a_reader_gets_what_is_known_and_then_what_comes() -> None:
    feed = feed_of()
    feed.add_row(row(1))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        with feed.reading() as reader:
            first = await got(reader)
            assert [name for name, _ in first] == ["hello", "decisions", "map"]
            feed.add_row(row(2, allow=False))
            feed.add_row(OutcomeRow(record=row(1).record, code="done", micros=1_500))
            said: list[tuple[str, Any]] = []
            while not any(name == "outcomes" for name, _ in said):
                said += await got(reader)
            assert sequences(said) == [2]
            assert ("outcomes", {"rows": [{"record": row(1).record.hex(), "outcome": "done", "ms": 1.5}]}) in said
        running.cancel()
    assert feed.readers == 0


async def test_a_reader_that_comes_again_gets_what_is_behind_its_last_one() -> None:
    feed = feed_of()
    for number in range(1, 11):
        feed.add_row(row(number))
    with feed.reading(after=7) as reader:
        assert sequences(await got(reader)) == [8, 9, 10]


async def test_a_reader_that_was_away_for_too_long_is_told_what_is_missing() -> None:
    feed = feed_of(kept=5)
    for number in range(1, 11):
        feed.add_row(row(number))
    with feed.reading(after=2) as reader:
        said = await got(reader)
        assert ("gap", {"left_out": 3}) in said
        assert sequences(said) == [6, 7, 8, 9, 10]


async def test_who_does_not_keep_up_is_told_how_many_were_left_out() -> None:
    feed = feed_of(kept=10)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        with feed.reading() as reader, feed.reading() as other:
            await got(reader)
            await got(other)
            seen, left_out, sent = 0, 0, 0
            while sent < WAITING + 10:
                sent += 1
                feed.add_row(row(sent))
                while True:
                    # The other reader shows that the message has been given to both.
                    if sequences(await got(other)):
                        break
            for name, document in await got(reader):
                seen += len(document["rows"]) if name == "decisions" else 0
                left_out += document["left_out"] if name == "gap" else 0
            assert (seen, left_out) == (WAITING, 10)
        running.cancel()


async def test_many_at_once_are_several_messages() -> None:
    feed = feed_of(kept=5_000)
    for number in range(1, 2 * ROWS + 2):
        feed.add_row(row(number))
    with feed.reading(after=0) as reader:
        rows = [len(document["rows"]) for name, document in await got(reader) if name == "decisions"]
    assert rows == [ROWS]


async def test_answers_that_are_allowed_are_not_drawn() -> None:
    feed = feed_of()
    feed.add_row(row(1, action="inventory.read.reply", sender="inventory"))
    feed.add_row(row(2, action="inventory.read.reply", sender="inventory", allow=False))
    with feed.reading() as reader:
        [drawn] = [document for name, document in await got(reader) if name == "map"]
    assert drawn["edges"] == [{"from": "inventory", "to": "inventory", "rate": 0.02, "denied": 1}]


async def test_records_that_do_not_verify_are_counted() -> None:
    feed = feed_of()
    feed.take_entry(Finding(sequence=7, stored=0, subject="audit.x", code="bad_proof", step=8, detail=""))
    with feed.reading() as reader:
        [drawn] = [document for name, document in await got(reader) if name == "map"]
    assert drawn["unverified"] == 1
    assert feed.last == 7


async def test_the_end_reaches_every_reader() -> None:
    feed = feed_of()
    with feed.reading() as reader:
        await got(reader)
        feed.end()
        assert await reader.next() is None


async def test_a_stream_that_cannot_be_read_is_a_problem_and_is_tried_again() -> None:
    tried = asyncio.Event()
    opened: list[int] = []

    class Broken:
        async def entries(self, *, follow: bool = False) -> AsyncIterator[Finding]:
            assert follow
            if len(opened) > 1:
                tried.set()
                await asyncio.Event().wait()
            raise BusUnavailable("no server")
            yield

    def trail(after: int) -> AuditTrail:
        opened.append(after)
        return cast("AuditTrail", Broken())

    at_once = Backoff(initial_interval=0.001, maximum_interval=0.001)
    feed = DecisionFeed(trail, names=NAMES, edges=[], after=41, again=at_once)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        await tried.wait()
        running.cancel()
    assert opened == [41, 41]


async def test_a_new_period_is_read_from_its_beginning() -> None:
    opened: asyncio.Queue[int] = asyncio.Queue()

    def trail(after: int) -> AuditTrail:
        opened.put_nowait(after)
        return cast("AuditTrail", Silence())

    feed = DecisionFeed(trail, names=NAMES, edges=[], after=41)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run())
        assert await opened.get() == 41
        feed.add_row(row(42))
        feed.begin_again()
        assert await opened.get() == 0
        assert list(feed.rows()) == []
        running.cancel()


async def test_a_fault_of_ours_ends_the_console() -> None:
    class Faulty:
        async def entries(self, *, follow: bool = False) -> AsyncIterator[Finding]:
            assert follow
            raise KeyError("ours")
            yield

    with pytest.raises(ExceptionGroup) as ended:
        await feed_of(trail=Faulty()).run()
    assert ended.group_contains(KeyError)
