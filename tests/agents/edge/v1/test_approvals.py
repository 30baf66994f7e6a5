"""What of the parked tasks an edge shows: what it has proved again, to whom the policy lets see it, and nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
from support.engines import deny
from support.floods import forged_value
from support.payments import ASKED, Payments

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.edge.v1.approvals import PAGE_LIMITS, PageLimits, ParkedTask, ParkedTaskReader
from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.message import Content
from sealbus.bus.stream_names import HELD
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.envelopes.records.decision import StreamPlace
from sealbus.testing import TestBus


class Clock:
    """A clock that stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: int) -> None:
        self.now += seconds * SECOND


@dataclass(kw_only=True)
class Site:
    """A bus with an agent that pays, and what its edge sees of what waits."""

    bus: TestBus
    payments: Payments
    clock: Clock
    node: Node
    edge: ParkedTaskReader

    def bounded(self, **limits: Any) -> ParkedTaskReader:
        """Return the edge's reader with other bounds of a page."""
        return ParkedTaskReader(self.node, limits=PageLimits(**limits))

    def person(self, name: str) -> UserContext:
        return parse_payload(self.bus.user(name, "edge").payload)

    async def page(self, queue: str = "managers", *, name: str = "boss", after: int = 0) -> list[ParkedTask]:
        return list((await self.edge.page(queue, self.person(name), after=after)).tasks)

    async def shown(self, handle: TaskHandle, name: str = "boss") -> ParkedTask | None:
        """Return what is found of a task by itself, after it was looked whether its page says the same."""
        listed = [one for one in await self.page(name=name) if one.parked.digest == handle.digest]
        found = await self.edge.find_task(handle.digest, self.person(name))
        assert [one.document() for one in listed] == ([found.document()] if found is not None else [])
        return found

    async def parked(self, handle: TaskHandle) -> Parked:
        [parked] = [one for one in await self.bus.waiting() if one.digest == handle.digest]
        return parked

    async def rewritten(
        self,
        handle: TaskHandle,
        *,
        envelope: bytes | None = None,
        keys: Mapping[str, Value] = MappingProxyType({}),
        **changed: Any,
    ) -> None:
        """Have the agent itself store another record of its parked task, or another message, as if it had gone bad."""
        parked = await self.parked(handle)
        node = self.bus.workers["payments"].node
        said: dict[str, Value] = {**parked.keys(), "rec": parked.decision._replace(**changed).encode(), **keys}
        assert parked.value is not None
        assert await node.held.write(
            parked.value.subject,
            said,
            PARKED_TYPE,
            node.identity.sealer(),
            before=parked.value,
            extra=parked.envelope if envelope is None else envelope,
        )


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
async def site(payments: Payments) -> AsyncIterator[Site]:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        node = (await bus.client("edge")).node
        yield Site(bus=bus, payments=payments, clock=clock, node=node, edge=ParkedTaskReader(node))


async def test_a_person_is_shown_what_would_be_done_to_what_and_for_whom(site: Site) -> None:
    site.payments.asked = {**ASKED, "acr": ["gold"], "max_age": 60, "follows": ["payments.note"]}
    handle = await site.payments.submitted(site.bus)
    parked = await site.parked(handle)
    task = await site.shown(handle)
    assert task is not None
    document = task.document()
    times = [document.pop(name) for name in ("since", "until")]
    assert all(isinstance(one, str) and one.endswith("Z") for one in times)
    assert document == {
        "id": handle.digest.hex(),
        "task": handle.message_id,
        "decision": parked.leaf.hex(),
        "queue": "managers",
        "text": "Pay ACME",
        "action": "payments.pay",
        "agent": "spiffe://example.org/agent/payments",
        "requester": "spiffe://example.org/agent/shop",
        "chain": ["spiffe://example.org/agent/shop"],
        "user": {"id": "alice", "idp": "https://idp.sealbus.invalid"},
        "resource": {"type": "none", "id": "none", "properties": {}},
        "facts": {"amount": 5_000},
        "reasons": ["over_limit"],
        "needs": {"acr": ["gold"], "max_age": 60},
        "follows": ["payments.note"],
        "verdicts": [],
        "body": {"type": "application/json", "json": {"invoice": "42", "amount": 5_000}},
    }


async def test_the_body_is_shown_unless_the_policy_says_no(site: Site) -> None:
    site.payments.asked = {**ASKED, "body": False}
    task = await site.shown(await site.payments.submitted(site.bus))
    assert task is not None
    assert "body" not in task.document()


async def test_what_misleads_a_reader_is_written_as_an_escape(site: Site) -> None:
    client = await site.bus.client("shop")
    body = Content(body='{"invoice":"4\u202e2","amount":7}'.encode(), typ="application/json")
    await client.submit("payments.pay", body, user=site.bus.user("al\u200bice", "shop"))
    await site.bus.idle()
    [task] = await site.page()
    document = task.document()
    assert document["body"] == {"type": "application/json", "json": {"invoice": "4\\u{202e}2", "amount": 7}}
    assert document["user"] == {"id": "al\\u{200b}ice", "idp": "https://idp.sealbus.invalid"}


async def test_who_has_said_something_is_shown(site: Site) -> None:
    site.payments.enough = 2
    handle = await site.payments.submitted(site.bus)
    await site.bus.approve(handle, "boss")
    await site.bus.idle()
    task = await site.shown(handle)
    assert task is not None
    said: Any = task.document()["verdicts"]
    assert [(one["verdict"], one["user"], one["idp"]) for one in said] == [
        ("approve", "boss", "https://idp.sealbus.invalid")
    ]


async def test_who_may_not_view_sees_nothing_and_does_not_learn_that_it_has_ended(site: Site) -> None:
    site.payments.may = lambda user: user == "boss"
    handle = await site.payments.submitted(site.bus)
    assert await site.shown(handle) is not None
    assert await site.shown(handle, "clerk") is None
    [asked] = [one for one in site.payments.engine.asked if "of" in one and one["context"]["user"]["id"] == "clerk"][:1]
    assert (asked["action"]["name"], asked["action"]["properties"]["verdict"]) == ("payments._approve", "view")
    await site.bus.approve(handle, "boss")
    await site.bus.idle()
    assert await site.shown(handle) is None
    assert await site.edge.ended(handle.digest, site.person("boss"))
    assert not await site.edge.ended(handle.digest, site.person("clerk"))


async def test_what_has_ended_expired_or_was_canceled_is_not_shown(site: Site) -> None:
    done, canceled, late = [await site.payments.submitted(site.bus, invoice=str(one), wait=600) for one in range(3)]
    await site.bus.approve(done, "boss")
    await canceled.cancel("a mistake")
    await site.bus.idle()
    assert [one.parked.digest for one in await site.page()] == [late.digest]
    site.clock.forward(601)
    assert not await site.page()
    assert await site.edge.find_task(late.digest, site.person("boss")) is None


async def test_another_queue_and_another_hash_are_empty(site: Site) -> None:
    await site.payments.submitted(site.bus)
    assert not await site.page("directors")
    assert await site.edge.find_task(bytes(32), site.person("boss")) is None
    assert not await site.edge.ended(bytes(32), site.person("boss"))


async def test_what_others_planted_is_not_shown(site: Site) -> None:
    handle = await site.payments.submitted(site.bus)
    [stored] = [one for one in site.bus.stored(HELD) if ".task." in one.subject]
    digest = handle.digest.hex()
    for subject in (
        stored.subject.replace("payments", "pricing"),
        stored.subject.replace("managers", "directors"),
        stored.subject.replace(digest, "0" * 64),
    ):
        site.bus.broker.inject(subject, stored.payload)
    for junk in (b"", b"\x85", stored.payload[:-1], stored.payload.replace(b"Pay ACME", b"Pay MALL")):
        site.bus.broker.inject(stored.subject, junk)
    assert [one.parked.digest for one in await site.page()] == [handle.digest]
    assert not await site.page("directors")
    assert await site.edge.find_task(bytes(32), site.person("boss")) is None


async def test_an_older_version_that_was_stored_again_does_not_wait(site: Site) -> None:
    handle = await site.payments.submitted(site.bus)
    [stored] = [one for one in site.bus.stored(HELD) if ".task." in one.subject]
    await site.bus.approve(handle, "boss")
    await site.bus.idle()
    site.bus.broker.inject(stored.subject, stored.payload)
    assert await site.shown(handle) is None


async def test_another_message_under_the_decision_is_not_shown(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    first, second = await site.payments.submitted(site.bus), await site.payments.submitted(site.bus, user="eve")
    await site.rewritten(first, envelope=(await site.parked(second)).envelope)
    with caplog.at_level(logging.WARNING, logger="sealbus"):
        assert await site.shown(first) is None
    assert await site.shown(second) is not None
    assert f"parked task {first.digest.hex()} of spiffe://example.org/agent/payments is not shown" in caplog.text


async def test_a_message_that_its_agent_has_changed_is_not_shown(site: Site) -> None:
    handle = await site.payments.submitted(site.bus)
    sent = (await site.parked(handle)).envelope
    for changed in (sent.replace(b"5000", b"6000"), sent.replace(b"alice", b"carol")):
        assert changed != sent
        await site.rewritten(handle, envelope=changed)
        assert await site.shown(handle) is None
    await site.rewritten(handle, envelope=sent)
    assert await site.shown(handle) is not None


Change = Callable[[dict[str, Any]], object]

LIES: dict[str, Change] = {
    "another user": lambda of: of["context"]["user"].update(id="mallory"),
    "another identity provider": lambda of: of["context"]["user"].update(idp="https://other.example"),
    "no user": lambda of: of["context"]["user"].update(present=False, id=""),
    "claims that the user has not": lambda of: of["context"]["user"]["claims"].update(role="manager"),
    "a stronger login": lambda of: of["context"]["user"].update(acr="gold"),
    "another sender": lambda of: of["subject"].update(id="spiffe://example.org/agent/pricing"),
    "another action": lambda of: of["action"].update(name="payments.note"),
    "another subject": lambda of: of["context"].update(subject="task.payments.note"),
    "another message": lambda of: of["context"].update(message_id="0" * 32),
    "a shorter chain": lambda of: of["context"].update(chain=[]),
    "a wider grant": lambda of: of["context"].update(grant={"limited": True, "actions": ["payments.note"]}),
    "another tenant": lambda of: of["context"].update(tenant="acme"),
    "another version": lambda of: of.update(v=2),
    "more than there is": lambda of: of.update(urgent=True),
    "no context": lambda of: of.pop("context"),
    "a context that is none": lambda of: of.update(context=[]),
}
"""What an agent that has gone bad writes into the document that it says its policy was asked."""


@pytest.mark.parametrize("lie", LIES)
async def test_a_decision_about_another_message_is_not_shown(
    site: Site, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await site.payments.submitted(site.bus)
    asked = json.loads((await site.parked(handle)).decision.input or b"")
    LIES[lie](asked)
    await site.rewritten(handle, input=json.dumps(asked).encode())
    with caplog.at_level(logging.WARNING, logger="sealbus"):
        assert await site.shown(handle) is None
    assert "is not shown: its decision is about another message" in caplog.text
    assert "mallory" not in caplog.text


async def test_a_record_of_another_action_is_not_shown(site: Site) -> None:
    handle = await site.payments.submitted(site.bus)
    await site.rewritten(handle, action="payments.note")
    assert await site.shown(handle) is None


@pytest.mark.parametrize("stored", [-6, 61, 3_600])
async def test_a_message_of_another_time_is_not_brought_back(site: Site, stored: int) -> None:
    """An agent that kept a message can say when it was stored, and what its policy said of it today."""
    handle = await site.payments.submitted(site.bus)
    parked = await site.parked(handle)
    place = parked.decision.place
    assert isinstance(place, StreamPlace)
    site.clock.forward(max(stored, 0))
    await site.rewritten(handle, place=place._replace(stored=parked.header.iat + stored * SECOND))
    assert await site.shown(handle) is None


@pytest.mark.parametrize(
    "changed", [{"snc": -10 * SECOND}, {"unt": 31 * 86_400 * SECOND}, {"snc": 9 * SECOND, "unt": 8 * SECOND}]
)
async def test_what_waits_for_longer_than_a_task_waits_is_not_shown(site: Site, changed: dict[str, int]) -> None:
    handle = await site.payments.submitted(site.bus)
    stored = (await site.parked(handle)).arrival.stored
    await site.rewritten(handle, keys={name: stored + value for name, value in changed.items()})
    assert await site.shown(handle) is None


async def test_what_only_the_agent_knows_is_shown_as_it_has_signed_it(site: Site) -> None:
    """The resource and the facts are the agent's own: nobody else can say what they were."""
    handle = await site.payments.submitted(site.bus)
    asked = json.loads((await site.parked(handle)).decision.input or b"")
    asked["resource"]["id"], asked["action"]["properties"]["amount"] = "other", 1
    await site.rewritten(handle, input=json.dumps(asked).encode())
    task = await site.shown(handle)
    assert task is not None
    assert task.document()["facts"] == {"amount": 1}


async def test_a_task_that_waits_on_is_shown_anew_with_what_its_policy_was_told(site: Site) -> None:
    site.payments.asked, site.payments.enough = {**ASKED, "text": "Pay ACME, again"}, 2
    handle = await site.payments.submitted(site.bus)
    site.payments.asked = {**ASKED, "text": "Pay ACME, at last"}
    await site.bus.approve(handle, "boss")
    await site.bus.idle()
    task = await site.shown(handle)
    assert task is not None
    assert task.document()["text"] == "Pay ACME, at last"
    assert json.loads(task.parked.decision.input or b"")["context"]["approvals"]


def counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each read of HELD adds what it asks for."""
    transport = site.node.transport
    reads: list[str] = []
    true = transport.read

    def read(stream: str, subjects: Sequence[str], **named: Any) -> Any:
        assert stream == HELD
        reads.extend(subjects)
        return true(stream, subjects, **named)

    monkeypatch.setattr(transport, "read", read)
    return reads


async def test_a_page_is_read_together_and_paid_for_by_what_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in range(40):
        await site.payments.submitted(site.bus, invoice=str(one), user=f"user-{one}")
    reads, paid = counted(site, monkeypatch), list[float]()

    def pays(cost: float) -> bool:
        paid.append(cost)
        return True

    page = await site.edge.page("managers", site.person("boss"), pays=pays)
    assert (len(page.tasks), page.after) == (40, 0)
    # Which places changed, which is the request's own; then all values, and what was canceled.
    assert reads == ["held.*.task.managers.*", "held.*.task.managers.*", "held.*.stop.*.*"]
    assert sum(paid) == pytest.approx(2 + 40 / PAGE_LIMITS.tasks_of_a_request)


async def test_what_was_not_read_together_is_paid_for_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    handles = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(4)]
    # Bytes of others in the place of the first, and a cancel of the second that another agent makes up.
    site.bus.broker.inject((await site.parked(handles[0])).subject("payments"), b"x")
    site.bus.broker.inject(f"held.pricing.stop.{handles[1].digest.hex()}.shop", b"x")
    reads, paid = counted(site, monkeypatch), list[float]()

    def pays(cost: float) -> bool:
        paid.append(cost)
        return True

    page = await site.edge.page("managers", site.person("boss"), pays=pays)
    assert {one.parked.digest for one in page.tasks} == {one.digest for one in handles}
    # The stop alone: of the first all that is there was read.
    assert len(reads) == 3 + 1
    assert sum(paid) == pytest.approx(2 + 4 / PAGE_LIMITS.tasks_of_a_request + 1)


async def test_a_page_ends_after_so_many_bytes(site: Site) -> None:
    handles = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(5)]
    site.edge = site.bounded(bytes=1)
    pages, after = list[list[bytes]](), 0
    while not pages or after:
        page = await site.edge.page("managers", site.person("boss"), after=after)
        pages.append([one.parked.digest for one in page.tasks])
        after = page.after
    assert pages == [[one.digest] for one in handles]


@pytest.mark.parametrize("looked_at", [1, 2, 3, 4, 5, 6, 7, 100])
@pytest.mark.parametrize("page_bytes", [1, 1 << 20])
@pytest.mark.parametrize("together", [1, 64])
@pytest.mark.parametrize("part", [1, 2, 1_000])
async def test_each_page_shows_what_waits_now_and_each_task_once(
    site: Site, looked_at: int, page_bytes: int, together: int, part: int
) -> None:
    site.payments.enough = 2
    handles = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(4)]
    await site.bus.approve(handles[2], "boss")
    await site.bus.idle()
    await handles[1].cancel("a mistake")
    site.edge = site.bounded(looked_at=looked_at, bytes=page_bytes, together=together, part=part)
    found, after, pages = list[bytes](), 0, 0
    while pages == 0 or after:
        page = await site.edge.page("managers", site.person("boss"), after=after)
        found += [one.parked.digest for one in page.tasks]
        after, pages = page.after, pages + 1
        assert pages <= 12
    assert found == [handles[0].digest, handles[3].digest, handles[2].digest]


FORMS = ("junk", "forged")
"""Bytes without the form of a value, and values that are signed by another."""


def planted(site: Site, form: str, *places: str) -> None:
    """Store bytes at places of the agent `pricing` in the queue, or at `places`."""
    own, sealer = site.bus.names.id_of("pricing"), site.bus.workers["payments"].node.identity.sealer()
    for place in places:
        forged = forged_value(place, own, PARKED_TYPE, sealer, at=site.clock.now)
        site.bus.broker.inject(place, forged if form == "forged" else b"junk")


def made_up(number: int) -> list[str]:
    return [f"held.pricing.task.managers.{one:064x}" for one in range(number)]


@pytest.mark.parametrize("form", FORMS)
async def test_what_does_not_verify_takes_no_place_on_a_page(site: Site, form: str) -> None:
    planted(site, form, *made_up(PAGE_LIMITS.tasks + PAGE_LIMITS.part))
    handle = await site.payments.submitted(site.bus)
    page = await site.edge.page("managers", site.person("boss"))
    assert ([one.parked.digest for one in page.tasks], page.after) == ([handle.digest], 0)


async def test_what_has_ended_or_may_not_be_seen_takes_no_place_on_a_page(site: Site) -> None:
    site.edge = site.bounded(tasks=2)
    ended, others, mine = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(3)]
    for handle in (ended, others):
        await site.parked(handle)
    await site.bus.approve(ended, "boss")
    await site.bus.idle()
    hidden = others.digest.hex()
    site.payments.decide = lambda asked: deny("not_yours") if asked["resource"]["id"] == hidden else None
    further = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(3, 5)]
    pages, after = list[list[bytes]](), 0
    while not pages or after:
        page = await site.edge.page("managers", site.person("boss"), after=after)
        pages.append([one.parked.digest for one in page.tasks])
        after = page.after
    assert pages[0] == [mine.digest, further[0].digest]
    assert [one for some in pages for one in some] == [mine.digest, *[one.digest for one in further]]


@pytest.mark.parametrize("form", FORMS)
async def test_a_page_reads_so_many_parts_and_is_paid_for_them(site: Site, form: str) -> None:
    site.edge = site.bounded(part=3, parts=2)
    planted(site, form, *made_up(13))
    handle = await site.payments.submitted(site.bus)
    paid, pages, after = list[float](), list[list[bytes]](), 0

    def pays(cost: float) -> bool:
        paid.append(cost)
        return True

    while not pages or after:
        page = await site.edge.page("managers", site.person("boss"), after=after, pays=pays)
        pages.append([one.parked.digest for one in page.tasks])
        after = page.after
        if len(pages) == 1:
            # From the beginning it is known that nothing else is there.
            verified = 6 / PAGE_LIMITS.tasks_of_a_request if form == "forged" else 0
            assert sum(paid) == pytest.approx(2 * 2 + verified)
    assert pages == [[], [], [handle.digest]]


async def test_a_page_that_is_not_paid_for_ends_after_a_part_without_tasks(site: Site) -> None:
    site.edge = site.bounded(part=3)
    planted(site, "junk", *made_up(3))
    handle = await site.payments.submitted(site.bus)
    page = await site.edge.page("managers", site.person("boss"), pays=lambda _: False)
    assert not page.tasks
    assert page.after
    page = await site.edge.page("managers", site.person("boss"), after=page.after)
    assert [one.parked.digest for one in page.tasks] == [handle.digest]


async def test_a_page_that_takes_long_ends_and_the_next_goes_on(site: Site) -> None:
    handles = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(3)]
    site.edge = site.bounded(part=1, seconds=0.0)
    pages, after = list[list[bytes]](), 0
    while not pages or after:
        page = await site.edge.page("managers", site.person("boss"), after=after)
        pages.append([one.parked.digest for one in page.tasks])
        after = page.after
    assert pages == [[one.digest] for one in handles]


async def test_a_part_in_which_no_place_ends_is_paid_for(site: Site) -> None:
    site.payments.enough = 2
    changed, other = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(2)]
    await site.bus.approve(changed, "boss")
    await site.bus.idle()
    site.edge = site.bounded(bytes=1)
    page = await site.edge.page("managers", site.person("boss"), pays=lambda _: False)
    assert not page.tasks
    assert page.after
    page = await site.edge.page("managers", site.person("boss"), after=page.after)
    assert [one.parked.digest for one in page.tasks] == [other.digest]


async def test_many_forgeries_over_a_task_do_not_hide_it_from_its_page(site: Site) -> None:
    """More than are verified where many subjects are read together."""
    handle = await site.payments.submitted(site.bus)
    parked = await site.parked(handle)
    place, node = parked.subject("payments"), site.bus.workers["payments"].node
    sealer = (await site.bus.client("pricing")).node.identity.sealer()
    for _ in range(20):
        site.bus.broker.inject(place, forged_value(place, node.own, PARKED_TYPE, sealer, at=site.clock.now))
    page = await site.edge.page("managers", site.person("boss"))
    assert [one.parked.digest for one in page.tasks] == [handle.digest]


@pytest.mark.parametrize("after", [True, False], ids=["from a later page", "from the first page"])
@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n",
        (
            b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"
            b"Nats-Expected-Last-Subject-Sequence-Subject: held.pricing.x\r\n\r\n"
        ),
    ],
    ids=["bare", "twice", "of another subject"],
)
@pytest.mark.parametrize("part", [1, 1_000])
async def test_what_counts_under_a_place_is_shown_whoever_stored_something_there(
    site: Site, part: int, after: bool, block: bytes
) -> None:
    """An older version that was stored again is no newer, and bytes hide nothing, wherever a page or a part begins."""
    site.edge = site.bounded(part=part)
    ended, waits = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(2)]
    place = (await site.parked(ended)).subject("payments")
    [first] = [one.payload for one in site.bus.stored(HELD) if one.subject == place]
    await site.bus.approve(ended, "boss")
    await site.bus.idle()
    begun = len(site.bus.stored(HELD)) if after else 0
    site.bus.broker.inject(place, first, block)
    site.bus.broker.inject((await site.parked(waits)).subject("payments"), b"x", block)
    page = await site.edge.page("managers", site.person("boss"), after=begun)
    assert [one.parked.digest for one in page.tasks] == [waits.digest]


def _next(pays: Iterator[bool], cost: float) -> bool:
    return next(pays, False)


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_a_page_ends_where_it_is_not_paid_for_and_the_next_goes_on(site: Site, most: int) -> None:
    site.payments.enough = 2
    handles = [await site.payments.submitted(site.bus, invoice=str(one)) for one in range(5)]
    # The first changes again, and is last then.
    await site.bus.approve(handles[0], "boss")
    await site.bus.idle()
    site.edge = site.bounded(together=1)
    found: list[bytes] = []
    after = pages = 0
    while pages == 0 or after:
        pays = iter([True] * most)
        page = await site.edge.page("managers", site.person("boss"), after=after, pays=partial(_next, pays))
        assert len(page.tasks) <= most + 1
        found += [one.parked.digest for one in page.tasks]
        after, pages = page.after, pages + 1
        assert pages <= 6
    assert found == [one.digest for one in (*handles[1:], handles[0])]


async def test_a_task_is_found_by_its_id_for_who_submitted_it_alone(site: Site) -> None:
    context = site.bus.user("alice", "edge")
    mine = await (await site.bus.client("edge")).submit("payments.pay", {"invoice": "42"}, user=context)
    other = await site.payments.submitted(site.bus)
    await site.bus.idle()
    found = await site.edge.submitted(bytes.fromhex(mine.message_id))
    assert found is not None
    assert found.parked.digest == mine.digest
    assert await site.edge.submitted(bytes.fromhex(other.message_id)) is None
    assert await site.edge.submitted(bytes(16)) is None


@pytest.mark.parametrize("of_agent", [["east"], ["default"], ["east", "default"], ["default", "east"]])
async def test_the_cells_of_a_deployment_come_one_by_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, of_agent: Sequence[str]
) -> None:
    """Both cells have the same streams here, but a task comes once: where its agent is, also if that was moved."""
    transport = site.node.transport
    monkeypatch.setattr(
        transport,
        "cells_of",
        lambda pattern: dict.fromkeys(["default", "east"] if pattern.startswith("held.*.") else of_agent, transport),
    )
    handles = [await site.payments.submitted(site.bus) for _ in range(3)]
    edge, person, found, pages, after = site.bounded(tasks=2), site.person("boss"), list[bytes](), 0, 0
    while after or not pages:
        page = await edge.page("managers", person, after=after)
        found += [task.parked.digest for task in page.tasks]
        pages, after = pages + 1, page.after
    assert found == [handle.digest for handle in handles]


async def test_a_cell_in_which_nothing_waits_is_paid_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = site.node.transport
    monkeypatch.setattr(transport, "cells_of", lambda _pattern: {"default": transport, "east": transport})
    page = await site.edge.page("managers", site.person("boss"), pays=lambda cost: cost <= 0)
    assert (page.tasks, page.after > 0) == ([], True)
    again = await site.edge.page("managers", site.person("boss"), after=page.after, pays=lambda cost: cost <= 0)
    assert (again.tasks, again.after) == ([], 0)


async def test_a_cell_without_the_stream_does_not_read_as_if_nothing_waited(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, transport = await site.payments.submitted(site.bus), site.node.transport
    empty = MemoryBroker(lambda: 0).connect()
    monkeypatch.setattr(transport, "cells_of", lambda _pattern: {"default": transport, "east": empty})
    for lookup in (site.edge.find_task, site.edge.ended):
        with pytest.raises(StateUnavailable, match=r"cannot be read: cell east: .*HELD"):
            await lookup(handle.digest, site.person("boss"))
    with pytest.raises(StateUnavailable, match="cell east"):
        await site.edge.submitted(bytes(16))
