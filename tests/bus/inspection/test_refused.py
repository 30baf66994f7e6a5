"""Counts of refusals read again: by whom, how many, and whom the first of them claims to be from."""

from __future__ import annotations

import json

import pytest
from support.shop import Shop, Update

from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.agents.control.callout.role import into_refusals
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.clocks import BusClock
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.inspection.refused import RefusedMessages, refused_messages, summed
from sealbus.bus.ports import Delivery
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus

SUBJECT = "task.inventory.update"


class Site:
    """A stream of refusals, and those who count into it."""

    def __init__(self) -> None:
        self.now = 120 * SECOND
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("REFUSALS", ["refused.>"])

    def counting(self, subject: str) -> Refusals:
        return Refusals(
            transport=self.broker.connect(), subject=subject, counters=Counters(), clock=BusClock(lambda: self.now)
        )

    async def found(self, since: int = 0) -> list[RefusedMessages]:
        return summed([one async for one in refused_messages(self.broker.connect(), since=since)])


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def sealed() -> bytes:
    """Return the bytes of a task that shop-web has sealed."""
    async with TestBus(Shop().inventory) as bus:
        await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="42"))
        (stored,) = bus.stored("TASKS")
    return bytes(stored.payload)


def garbage(payload: bytes) -> Delivery:
    return Delivery(subject=SUBJECT, payload=payload, header_block=b"")


async def test_minutes_are_summed_and_the_claimed_sender_is_told(site: Site, sealed: bytes) -> None:
    refusals = site.counting("refused.inventory")
    for minute, many in ((2, 3), (3, 4)):
        site.now = minute * 60 * SECOND
        for _ in range(many):
            refusals.count(EnvelopeError(Code.BAD_SIGNATURE, 8, f"in minute {minute}"), garbage(sealed))
        await refusals.flush()
    refusals.count(EnvelopeError(Code.MALFORMED, 1, "no envelope"), garbage(b"x"))
    await refusals.flush()
    signed, other = await site.found()
    assert signed == RefusedMessages(
        by="inventory", code="bad_signature", subject=SUBJECT, minute=180 * SECOND, count=7, step=8,
        detail="in minute 3", claimed="spiffe://example.org/agent/shop-web",
    )  # fmt: skip
    assert (other.code, other.count, other.claimed) == ("malformed", 1, "")
    assert [one.count for one in await site.found(since=180 * SECOND)] == [4, 1]


async def test_a_refused_connection_names_its_workload(site: Site) -> None:
    refusals = site.counting("refused.control")
    into_refusals(refusals)(RefusedConnection(code=Code.DENIED, detail="", subject="spiffe://example.org/agent/a1"))
    await refusals.flush()
    [one] = await site.found()
    assert (one.by, one.code, one.claimed) == ("control", "denied", "spiffe://example.org/agent/a1")


async def test_of_what_is_cut_off_no_sender_is_told(sealed: bytes) -> None:
    for cut in (0, 1, 2, 3, 4, 5, 40):
        found = RefusedMessages.parse("refused.inventory", counted(sample=sealed[:cut].hex()))
        assert found is not None
        assert found.claimed == ""


@pytest.mark.parametrize(
    "sample", [b"{", b"[]", b"{}", b"\x97\x01\xc4\x03abc", b"\x97\x01\xa1a", b'{"spiffe_id":' + b"[" * 900]
)
def test_what_anybody_may_send_is_no_sender(sample: bytes) -> None:
    found = RefusedMessages.parse("refused.inventory", counted(sample=sample.hex()))
    assert found is not None
    assert found.claimed == ""


def counted(**changed: object) -> bytes:
    told = {"code": "x", "subject": SUBJECT, "minute": 60, "count": 1, "step": 1, "detail": "", "sample": ""}
    return json.dumps(told | changed).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"a":' + b"[" * 2_000,
        counted(count=-1),
        counted(count="1e3"),
        counted(minute=10**12),
        counted(minute=True),
        counted(sample="xy"),
        counted(step=[]),
    ],
)
def test_what_an_agent_makes_up_is_no_count(payload: bytes) -> None:
    assert RefusedMessages.parse("refused.inventory", payload) is None
