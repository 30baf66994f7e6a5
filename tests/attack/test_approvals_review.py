"""What a review of approvals found: values that an agent makes up, stores that fail halfway, and decisions that change.

Each test is what went wrong: a worker or a queue that one value brought down, a task that got stuck, or one whose requester
was told something else than happened.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support.payments import ASKED, Payments

from sealbus.agents.edge import approvals as shown
from sealbus.agents.edge.approvals import Waiting
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.handling.approvals.parked_tasks import PARKED_TYPE
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.held import VERSIONS
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.testing import TestBus


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
async def bus(payments: Payments) -> AsyncIterator[TestBus]:
    async with TestBus(payments.agent, engine=payments.engine) as running:
        yield running


class Clock:
    """A clock that stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: int) -> None:
        self.now += seconds * SECOND


def boss(bus: TestBus) -> UserContext:
    return parse_payload(bus.user("boss", "edge").payload)


async def waiting(bus: TestBus) -> Waiting:
    return Waiting((await bus.client("edge")).node)


async def rewritten(bus: TestBus, handle: TaskHandle, **changed: Any) -> None:
    """Have the agent itself store another record of its parked task, as if it had gone bad."""
    [parked] = [one for one in await bus.waiting() if one.digest == handle.digest]
    node = bus.workers["payments"].node
    keys: dict[str, Value] = {**parked.keys(), "rec": parked.decision._replace(**changed).encode()}
    assert parked.value is not None
    assert await node.held.write(
        parked.value.subject,
        keys,
        PARKED_TYPE,
        node.identity.sealer(),
        own=node.own,
        before=parked.value,
        extra=parked.envelope,
    )


DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    "changed",
    [
        {"obligations": b"[1]"},
        {"obligations": b"{}"},
        {"obligations": b"7"},
        {"obligations": DEEP},
        {"obligations": json.dumps([{**ASKED, "until": float("inf")}]).encode()},
        {"input": b"no document"},
        {"input": DEEP},
        {"input": b'{"action":"pay"}'},
        {"input": b'{"action":{"properties":[]},"resource":7}'},
    ],
)
async def test_what_one_agent_makes_up_does_not_hide_what_others_parked(
    bus: TestBus, payments: Payments, changed: dict[str, Any]
) -> None:
    bad, good = await payments.submitted(bus), await payments.submitted(bus, invoice="43")
    await rewritten(bus, bad, **changed)
    edge = await waiting(bus)
    page = await edge.page("managers", boss(bus))
    documents = [one.document() for one in page.tasks]
    assert good.digest.hex() in [one["id"] for one in documents]
    await edge.find(bad.digest, boss(bus))
    await edge.ended(bad.digest, boss(bus))


async def test_a_document_that_is_too_large_for_one_person_does_not_end_their_page(
    bus: TestBus, payments: Payments
) -> None:
    await payments.submitted(bus)
    claims = {f"claim{number}": "x" * 240 for number in range(400)}
    context = boss(bus)
    page = await (await waiting(bus)).page("managers", replace(context, clm=claims))
    assert not page.tasks


async def test_a_subject_that_was_flooded_does_not_hide_the_rest_of_its_queue(bus: TestBus, payments: Payments) -> None:
    good = await payments.submitted(bus)
    flooded = f"held.pricing.task.managers.{'0' * 64}"
    for _ in range(VERSIONS + 1):
        bus.broker.inject(flooded, b"")
    page = await (await waiting(bus)).page("managers", boss(bus))
    assert [one.parked.digest for one in page.tasks] == [good.digest]


async def test_another_agents_flood_does_not_keep_a_task_from_being_found(bus: TestBus, payments: Payments) -> None:
    good = await payments.submitted(bus)
    for _ in range(VERSIONS + 1):
        bus.broker.inject(f"held.pricing.task.managers.{good.digest.hex()}", b"")
    found = await (await waiting(bus)).find(good.digest, boss(bus))
    assert found is not None
    assert found.parked.digest == good.digest


async def test_a_page_looks_at_so_much_and_no_more(bus: TestBus, payments: Payments) -> None:
    for _ in range(shown.LOOKED_AT + 1):
        bus.broker.inject(f"held.pricing.task.managers.{'0' * 64}", b"")
    good = await payments.submitted(bus)
    edge = await waiting(bus)
    page = await edge.page("managers", boss(bus))
    assert page.after
    page = await edge.page("managers", boss(bus), after=page.after)
    assert [one.parked.digest for one in page.tasks] == [good.digest]
    assert not page.after


async def test_who_may_see_nothing_costs_nothing_but_a_question(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    await payments.submitted(bus)
    payments.may = lambda _: False

    async def reopened(*_: object, **__: object) -> None:
        raise AssertionError("a task was verified for somebody who may not see it")

    monkeypatch.setattr(shown, "reopened", reopened)
    assert not (await (await waiting(bus)).page("managers", boss(bus))).tasks


async def test_a_body_that_is_no_json_for_a_browser_is_shown_as_bytes(bus: TestBus, payments: Payments) -> None:
    client = await bus.client("shop")
    for amount in ('5000,"x":NaN', '5000,"x":1e999', '5000,"x":' + "[" * 150 + "]" * 150, '1,"amount":5000'):
        body = f'{{"invoice":"42","amount":{amount}}}'.encode()
        await client.submit("payments.pay", Content(body=body, typ="application/json"), user=bus.user("alice", "shop"))
    await bus.idle()
    page = await (await waiting(bus)).page("managers", boss(bus))
    assert len(page.tasks) == 4
    for one in page.tasks:
        document = one.document()
        json.dumps(document, allow_nan=False)
        assert "base64" in document["body"]  # type: ignore[operator]
