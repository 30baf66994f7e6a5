"""Whether the stream still is what the log says: nothing gone, nothing changed, nothing put in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from support.notary import Bench

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger
from sealbus.agents.control.notary.log.message_verifier import placed
from sealbus.agents.control.notary.resume import check_beginning, check_stream
from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import creation_entry, gap_entry, unverified_entry, verified_entry
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope


class Stream(MemoryTransport):
    """A stream whose messages a test changes behind the log's back."""

    def __init__(self, stored: list[Delivery]) -> None:
        super().__init__(MemoryBroker())
        self.stored = stored

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        found = [one for one in self.stored if sequence(one) >= start]
        for at in range(0, len(found), 3):
            yield found[at : at + 3]


@dataclass
class Kept:
    """A log of seven messages: two verified, garbage, two verified, a gap of three, two more."""

    store: FolderStore
    stream: Stream
    size: int


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    bench = Bench(tmp_path / "log")
    bench.record(2)
    bench.garbage()
    bench.record(7)
    stored = [*bench.broker.streams["AUDIT"].stored]
    del stored[5:8]
    ledger, store = Ledger(), FolderStore(bench.folder)
    ledger.append(creation_entry("AUDIT", created=1))
    for delivery in stored:
        position = placed(delivery)
        if missing := position.sequence - ledger.next:
            ledger.append(gap_entry(ledger.next, missing, time=position.stored))
        if delivery.payload == b"garbage":
            ledger.append(unverified_entry(position.sequence, time=position.stored, payload=b"garbage"))
        else:
            digest = parse_header(parse_envelope(delivery.payload).header).digest
            ledger.append(verified_entry(position.sequence, time=position.stored, header_digest=digest))
    store.enter()
    store.commit(0, ledger.files(), b"note")
    yield Kept(store, Stream(stored), ledger.size)
    store.leave()


async def matched(kept: Kept, first: int = 0) -> None:
    await check_stream(kept.stream, "AUDIT", kept.store, kept.size, first=first)


async def test_what_was_kept_matches(kept: Kept) -> None:
    assert (kept.size, len(kept.stream.stored)) == (9, 7)
    for first in range(kept.size):
        await matched(kept, first)


async def test_more_messages_than_the_log_has_are_no_matter(kept: Kept) -> None:
    last = kept.stream.stored[-1]
    kept.stream.stored.append(last._replace(arrival=placed(last)._replace(sequence=sequence(last) + 1)))
    await matched(kept)


def dropped(at: int) -> Callable[[list[Delivery]], None]:
    def change(stored: list[Delivery]) -> None:
        del stored[at]

    return change


def other_payload(at: int) -> Callable[[list[Delivery]], None]:
    def change(stored: list[Delivery]) -> None:
        stored[at] = stored[at]._replace(payload=stored[at - 1].payload)

    return change


def garbled(at: int) -> Callable[[list[Delivery]], None]:
    def change(stored: list[Delivery]) -> None:
        stored[at] = stored[at]._replace(payload=b"garbled")

    return change


def later(at: int) -> Callable[[list[Delivery]], None]:
    def change(stored: list[Delivery]) -> None:
        position = stored[at].arrival
        assert position is not None
        stored[at] = stored[at]._replace(arrival=position._replace(stored=position.stored + 1))

    return change


def filled(stored: list[Delivery]) -> None:
    """Put a message where the log says that there is none."""
    at = next(n for n, (one, two) in enumerate(pairwise(stored)) if sequence(two) > sequence(one) + 1)
    position = stored[at].arrival
    assert position is not None
    stored.insert(at + 1, stored[at]._replace(arrival=position._replace(sequence=position.sequence + 1)))


def sequence(delivery: Delivery) -> int:
    return placed(delivery).sequence


def cut(stored: list[Delivery]) -> None:
    del stored[2:]


@pytest.mark.parametrize(
    "change",
    [
        dropped(0),
        dropped(2),
        dropped(-1),
        other_payload(2),
        other_payload(5),
        garbled(0),
        later(1),
        later(2),
        filled,
        cut,
    ],
    ids=["first", "garbage", "last", "another", "garbage", "garbled", "time", "time of garbage", "filled", "cut"],
)
async def test_any_change_is_found(kept: Kept, change: Callable[[list[Delivery]], None]) -> None:
    change(kept.stream.stored)
    with pytest.raises(LogError) as caught:
        await matched(kept)
    assert caught.value.code is Code.LOG_MISMATCH


def test_the_beginning_is_the_streams_creation(kept: Kept) -> None:
    check_beginning(kept.store, kept.size, [creation_entry("AUDIT", created=1)])
    for other in (creation_entry("AUDIT", created=2), creation_entry("OTHER", created=1)):
        with pytest.raises(LogError, match="does not begin"):
            check_beginning(kept.store, kept.size, [other])


async def test_a_log_of_its_beginning_alone_matches_every_stream(kept: Kept, tmp_path: Path) -> None:
    store, ledger = FolderStore(tmp_path / "other"), Ledger()
    ledger.append(creation_entry("AUDIT", created=1))
    store.enter()
    store.commit(0, ledger.files(), b"note")
    await check_stream(kept.stream, "AUDIT", store, 1, first=0)
    store.leave()
