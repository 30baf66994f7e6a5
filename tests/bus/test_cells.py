"""Which cell has a subject, and that a transport over cells sends and reads there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import cast

import pytest

from sealbus.bus.cells import DEFAULT, Cells, CellTransport, follow_cells, own_cell, placed_by
from sealbus.bus.ports import Delivery, Outgoing, PubAck, StoredValue, StreamRefused, Transport
from sealbus.bus.streams.key_value import KeyValue
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.policies.decision.placement import Placement

EAST = Cells(own="east", of=MappingProxyType({"works": Placement("east"), "ledger": Placement("west")}))
OWNERS = {"orders.paid": "ledger", "orders.late": "plans"}


class OneCell:
    """The streams of one cell: what was published, sent and read there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.holds = True
        self.published: list[str] = []
        self.sent: list[str] = []
        self.failure: Exception | None = None

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        assert deadline == 3.0
        if self.failure is not None:
            raise self.failure
        self.published += [message.subject for message in messages]
        refused = StreamRefused("full", 10_077)
        return [
            refused if message.subject.endswith(".full") else PubAck(self.name, number, duplicate=False)
            for number, message in enumerate(messages)
        ]

    def send(self, messages: Sequence[Outgoing]) -> None:
        self.sent += [message.subject for message in messages]

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        return StoredValue(1, self.name.encode(), 2) if self.holds else None

    async def read(
        self, stream: str, subjects: Sequence[str], **options: object
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        assert options["start"] == 4
        yield [Delivery(subjects[0], self.name.encode(), b"")]


MOVED = Placement("east", "west", 1_764_748_800_000_000)
BEFORE, AFTER = f"{1_764_748_799_999:012x}{'7' * 20}", f"{1_764_748_800_000:012x}{'7' * 20}"
"""Ids of messages of the last millisecond before the move, and of the first one after it."""
AWAY = Cells(of={"works": MOVED, "ledger": Placement("west")})


def over(cells: Cells) -> tuple[CellTransport, dict[str, OneCell]]:
    made = {cells.own: OneCell(cells.own)}

    def reach(name: str) -> Transport:
        assert name not in made
        return cast("Transport", made.setdefault(name, OneCell(name)))

    own = cast("Transport", made[cells.own])
    return CellTransport(own, lambda: cells, reach=reach, owners=OWNERS), made


@pytest.mark.parametrize(
    ("subject", "cell"),
    [
        ("task.works.pay", "east"),
        ("task.ledger.book.7", "west"),
        ("control.ledger.cancel", "west"),
        ("status.plans.00ff", DEFAULT),
        ("state.nobody.x", DEFAULT),
        ("_INBOX.ledger.reply.1", "west"),
        ("orders.paid", "west"),
        ("orders.late", DEFAULT),
        # What the server made for one request goes back by the own account, and so does what names no owner.
        ("_R_.abc.1", "east"),
        ("$JS.ACK.TASKS.works.1", "east"),
        ("held.*.wait.edge.7", "east"),
        ("event.>", "east"),
    ],
)
def test_a_subject_is_in_the_cell_of_its_owner(subject: str, cell: str) -> None:
    assert EAST.cell_of(subject, OWNERS) == cell


async def test_each_message_is_published_in_its_cell_and_answered_in_its_place() -> None:
    transport, cells = over(EAST)
    subjects = ["task.ledger.a", "task.works.b", "task.ledger.full", "task.plans.c", "task.works.d"]
    answers = await transport.publish([Outgoing(subject, b"") for subject in subjects], deadline=3.0)
    assert {name: cell.published for name, cell in cells.items()} == {
        "east": ["task.works.b", "task.works.d"],
        "west": ["task.ledger.a", "task.ledger.full"],
        DEFAULT: ["task.plans.c"],
    }
    told = [(answer.stream, answer.sequence) if isinstance(answer, PubAck) else type(answer) for answer in answers]
    assert told == [("west", 0), ("east", 0), StreamRefused, (DEFAULT, 0), ("east", 1)]
    transport.send([Outgoing("call.ledger.x", b""), Outgoing("_INBOX.works.reply.1", b""), Outgoing("_R_.1", b"")])
    assert (cells["west"].sent, cells["east"].sent) == (["call.ledger.x"], ["_INBOX.works.reply.1", "_R_.1"])


@pytest.mark.parametrize("failing", [("west",), (DEFAULT,), ("west", DEFAULT)])
async def test_the_failure_of_a_cell_is_the_answer_to_its_messages(failing: Sequence[str]) -> None:
    transport, cells = over(EAST)
    away = BusUnavailable("away")
    for name in failing:
        cast("OneCell", transport.cells_of("*.*")[name]).failure = away
    subjects = ["task.ledger.a", "task.works.b", "task.plans.c"]
    answers = await transport.publish([Outgoing(subject, b"") for subject in subjects], deadline=3.0)
    assert [answer is away for answer in answers] == ["west" in failing, False, DEFAULT in failing]
    assert cells["east"].published == ["task.works.b"]


async def test_what_may_not_be_written_is_raised_as_it_is() -> None:
    transport, cells = over(EAST)
    cast("OneCell", transport.cells_of("*.*")["west"]).failure = ConfigurationError("a space in the subject")
    messages = [Outgoing(subject, b"") for subject in ("task.ledger.a", "task.works.b")]
    with pytest.raises(ConfigurationError, match="a space"):
        await transport.publish(messages, deadline=3.0)
    assert cells["east"].published == ["task.works.b"]


async def test_without_cells_all_is_in_the_own_one() -> None:
    transport, cells = over(Cells())
    await transport.publish([Outgoing("task.ledger.a", b""), Outgoing("task.works.b", b"")], deadline=3.0)
    transport.send([Outgoing("call.ledger.x", b"")])
    assert list(cells) == [DEFAULT]
    assert cells[DEFAULT].published == ["task.ledger.a", "task.works.b"]
    assert cells[DEFAULT].sent == ["call.ledger.x"]
    assert list(transport.cells_of("state.*.stop.*.*")) == [DEFAULT]


async def test_who_may_read_no_other_cell_reads_its_own() -> None:
    transport, cells = over(EAST)
    home = own_cell(transport)
    assert home is cast("Transport", cells["east"])
    assert await home.last("STATE", "state.ledger.x", within=1.0) == StoredValue(1, b"east", 2)
    assert list(cells) == ["east", DEFAULT, "west"]


async def test_a_stream_is_read_where_its_subject_is() -> None:
    transport, _ = over(EAST)
    assert await transport.last("STATE", "state.ledger.x", within=1.0) == StoredValue(1, b"west", 2)
    async with aclosing(transport.read("STATE", ["state.plans.x"], start=4)) as batches:
        assert [delivery.payload async for batch in batches for delivery in batch] == [DEFAULT.encode()]


def test_what_may_be_anybodys_is_in_every_cell_the_own_one_first() -> None:
    transport, _ = over(EAST)
    assert list(transport.cells_of("held.*.stop.*.*")) == ["east", DEFAULT, "west"]
    assert list(transport.cells_of("held.ledger.stop.*.*")) == ["west"]


def test_a_process_learns_of_new_cells_but_stays_in_its_own() -> None:
    registry = {"works": Placement("east")}
    present = placed_by(lambda: registry, "works")
    assert present() == Cells(own="east", of=registry)
    registry = {"works": Placement("east"), "ledger": Placement("west")}
    assert present() == Cells(own="east", of=registry)
    for moved in ({"works": Placement("west", "east", 1)}, {"ledger": Placement("west")}):
        registry = moved
        with pytest.raises(
            ConfigurationError, match=r"works is in the cell (west|default) now: start this process again"
        ):
            present()


@pytest.mark.parametrize(
    ("subject", "identifier", "cell"),
    [
        ("task.works.pay", BEFORE, "west"),
        ("task.works.pay", AFTER, "east"),
        ("control.works.cancel", BEFORE, "west"),
        ("event.works.made", AFTER, "east"),
        ("orders.late", BEFORE, "west"),
        ("orders.late", AFTER, "east"),
        # What is no id with a time is of now.
        ("task.works.pay", "", "east"),
        ("task.works.pay", BEFORE[:-1], "east"),
        ("task.works.pay", BEFORE.upper(), "east"),
        # A status is where its task is, whenever it was made.
        (f"status.works.{BEFORE}", AFTER, "west"),
        (f"status.works.{AFTER}", BEFORE, "east"),
        # A call is where its callee listens, and what is written at home is there.
        ("call.works.price", BEFORE, "east"),
        ("state.works.effect.00", BEFORE, "east"),
        ("held.works.keys", BEFORE, "east"),
        ("audit.works", BEFORE, "east"),
        ("dead.works.pay", BEFORE, "east"),
        # Others are where they are.
        ("task.ledger.pay", BEFORE, "west"),
        ("task.plans.pay", BEFORE, DEFAULT),
    ],
)
def test_what_is_said_to_a_moved_agent_is_in_the_cell_of_its_time(subject: str, identifier: str, cell: str) -> None:
    assert AWAY.cell_of(subject, {"orders.late": "works"}, identifier) == cell


@pytest.mark.parametrize(
    ("pattern", "cells"),
    [
        ("task.works.>", ["east", "west"]),
        ("held.works.task.*.00", ["east", "west"]),
        (f"status.works.{BEFORE}", ["west", "east"]),
        (f"status.works.{AFTER}", ["east", "west"]),
        ("task.ledger.>", ["west"]),
        ("task.plans.>", [DEFAULT]),
        ("held.*.stop.*.*", [DEFAULT, "east", "west"]),
    ],
)
def test_a_moved_agent_has_something_in_two_cells(pattern: str, cells: list[str]) -> None:
    assert list(AWAY.cells_of(pattern, {})) == cells


async def test_a_moved_agent_is_told_in_the_cell_of_each_message() -> None:
    transport, cells = over(AWAY)
    sent = [Outgoing("task.works.a", b"", BEFORE), Outgoing("task.works.b", b"", AFTER)]
    await transport.publish(sent, deadline=3.0)
    assert (cells["west"].published, cells["east"].published) == (["task.works.a"], ["task.works.b"])


@pytest.mark.parametrize(
    ("identifier", "cell", "is_there"),
    [(BEFORE, "west", True), (BEFORE, "", False), (AFTER, "", True), (AFTER, "west", False)],
)
def test_a_message_counts_in_one_cell(identifier: str, cell: str, is_there: bool) -> None:
    transport, _ = over(Cells(own="east", of=AWAY.of))
    arrival = StreamArrival("task.works.a", b"", "TASKS", 1, 2, 3, 1, cell)
    assert transport.is_at_home(Delivery("task.works.a", b"", b"", arrival), identifier) is is_there


async def test_what_a_moved_agent_has_stored_before_stands_at_no_place_of_its_cell() -> None:
    transport, cells = over(Cells(own="east", of=AWAY.of))
    subject = "state.works.effect.00"
    assert await transport.last("STATE", subject, within=1.0) == StoredValue(1, b"east", 2)
    cells["east"].holds = False
    assert await transport.last("STATE", subject, within=1.0) == StoredValue(0, b"west", 2)
    assert await KeyValue(transport).create(subject, b"mine") is None
    assert cells["east"].published == []
    cells["west"].holds = False
    assert await transport.last("STATE", subject, within=1.0) is None
    assert await KeyValue(transport).create(subject, b"mine", within=3.0) == 0
    assert cells["east"].published == [subject]
    assert not cells["west"].published


async def test_a_change_of_the_cells_is_told_soon_and_once_more_later() -> None:
    registry: dict[str, Placement] = {}
    told = asyncio.Queue[dict[str, Placement]]()
    following = asyncio.create_task(
        follow_cells(
            lambda: registry,
            lambda: told.put_nowait(registry),
            every=0.0,
            spread=0.001,
            again=0.001,
            random=lambda: 1.0,
        )
    )
    await asyncio.sleep(0)
    for registry in ({"works": Placement("east")}, {"works": Placement("west")}, {}):
        assert [await told.get(), await told.get()] == [registry, registry]
    # The same cells of another bundle are no change.
    registry = {}
    for _ in range(10):
        await asyncio.sleep(0)
    registry = {"works": Placement("east")}
    assert [await told.get(), await told.get()] == [registry, registry]
    assert told.empty()
    following.cancel()
    await asyncio.wait({following})
