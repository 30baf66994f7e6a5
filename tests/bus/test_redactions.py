"""What is not recorded of an input document: chosen by subject, named in the record, and still decided on."""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest
from support.engines import ScriptedEngine, allow
from support.shop import Price, Shop, Update

from sealbus.bus import redactions as module
from sealbus.bus.audit_trail import AuditEntry, AuditTrail
from sealbus.bus.redactions import NO_REDACTIONS, Redactions
from sealbus.envelopes.archive import ArchiveProfile
from sealbus.envelopes.decision_record import CorePlace, DecisionRecord
from sealbus.envelopes.errors import Code, ConfigurationError, SealError
from sealbus.envelopes.wire import Proof
from sealbus.testing import TestBus

RECORD = DecisionRecord(
    header=b"\x80",
    proof=Proof(1, 0, (), b"s" * 64),
    action="inventory.update",
    place=CorePlace(opened=5),
    delivery=1,
    allow=True,
    input=b'{"a":1,"b":{"c":"secret"}}',
    revision="r1",
    policy="starter",
    engine="embedded",
    micros=17,
)


def test_a_record_says_what_was_taken_out_of_it() -> None:
    redactions = Redactions({"task.payroll.>": ["/b/c"], "task.*.raise": ["/a", "/b/c"], "event.>": ["/x"]})
    assert redactions.record(RECORD, "task.payroll.pay") == RECORD._replace(
        input=b'{"a":1,"b":{"c":null}}', redacted=("/b/c",)
    )
    both = redactions.record(RECORD, "task.payroll.raise")
    assert (both.input, both.redacted) == (b'{"a":null,"b":{"c":null}}', ("/b/c", "/a"))
    for subject in ("task.inventory.update", "event.payroll.paid"):
        assert redactions.record(RECORD, subject) is RECORD
        assert redactions.record(RECORD, subject) is RECORD
    assert NO_REDACTIONS.record(RECORD, "task.payroll.pay") is RECORD


def test_a_record_without_an_input_stays_as_it_is() -> None:
    none = RECORD._replace(
        allow=False, code=Code.BAD_BODY, input=None, revision=None, policy=None, engine=None, micros=None
    )
    assert Redactions({">": ["/a"]}).record(none, "task.a.b") is none


def test_what_is_too_long_then_cannot_be_recorded() -> None:
    longest = RECORD._replace(input=b'{"a":1,"b":"' + b"x" * (65_536 - 14) + b'"}')
    with pytest.raises(SealError, match="input is not"):
        Redactions({">": ["/a"]}).record(longest, "task.a.b")


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b", "a.b*", "a b.c", "*>"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a subject pattern"):
        Redactions({pattern: ["/a"]})


def test_more_than_a_record_can_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is not a JSON pointer"):
        Redactions({">": ["a"]})
    Redactions({str(number): [f"/{number}", "/a"] for number in range(31)})
    with pytest.raises(ConfigurationError, match="can name 32"):
        Redactions({str(number): [f"/{number}"] for number in range(33)})


def test_subjects_that_come_and_go_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 8)
    redactions = Redactions({"task.>": ["/a"]})
    for number in range(100):
        assert redactions.record(RECORD, f"task.a.{number}").redacted == ("/a",)
    assert len(redactions._remembered) <= 8


async def noted(bus: TestBus, action: str) -> DecisionRecord:
    """Return the decision on an answer, whose record nobody waits for."""
    trail = AuditTrail(
        transport=bus.broker.connect(),
        profile=ArchiveProfile(names=bus.names, minters=bus.deployment.minters),
        bundles=bus.edge.bundles,
    )
    async with aclosing(trail.entries(follow=True)) as entries:
        async for entry in entries:
            record = entry.record if isinstance(entry, AuditEntry) else None
            if isinstance(record, DecisionRecord) and record.action == action:
                return record
    raise AssertionError("the stream ended")


async def test_the_policy_sees_what_is_not_recorded() -> None:
    engine = ScriptedEngine(lambda _: allow())
    shop = Shop()
    redact = {"task.inventory.>": ["/action/properties/quantity", "/context/user/id"], "call.>": ["/resource/id"]}
    async with TestBus(shop.inventory, shop.pricing, engine=engine, redact=redact) as bus:
        client = await bus.client("shop-web")
        user = bus.user("alice", "shop-web")
        await client.submit("inventory.update", Update(item_id="42", quantity=77), user=user)
        await bus.idle()
        await client.call("pricing.quote", Update(item_id="42"), returns=Price, user=user)
        (task,) = await bus.decisions("inventory.update")
        (call,) = await bus.decisions("pricing.quote")
        reply = await noted(bus, "pricing.quote.reply")
    assert task.input is not None
    assert engine.asked[0]["action"]["properties"] == {"quantity": 77}
    assert engine.asked[0]["context"]["user"]["id"] == "alice"
    recorded = json.loads(task.input)
    assert (recorded["action"]["properties"], recorded["context"]["user"]["id"]) == ({"quantity": None}, None)
    assert task.redacted == ("/action/properties/quantity", "/context/user/id")
    assert b'"quantity":77' not in task.input
    assert call.redacted == ("/resource/id",)
    # The subject of an answer is where it came to: none of these.
    assert reply.redacted == ()


async def test_answers_are_redacted_by_the_subject_that_they_came_to() -> None:
    shop = Shop()
    async with TestBus(shop.pricing, engine=ScriptedEngine(lambda _: allow()), redact={">": ["/context/user"]}) as bus:
        client = await bus.client("shop-web")
        await client.call("pricing.quote", Update(item_id="42"), returns=Price, user=bus.user("alice", "shop-web"))
        found = [*await bus.decisions("pricing.quote"), await noted(bus, "pricing.quote.reply")]
    assert [one.redacted for one in found] == [("/context/user",)] * 2


async def test_no_body_is_in_the_log() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine(lambda _: allow())) as bus:
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="a-secret-item", quantity=123_456_789))
        await bus.idle()
        (decision,) = await bus.decisions("inventory.update")
        stored = b"".join(one.payload for one in bus.stored("AUDIT"))
    # The loaded resource's id and the declared fact are; nothing else of the body is.
    assert decision.input is not None
    assert stored.count(b"a-secret-item") == decision.input.count(b'"id":"a-secret-item"') == 1
    assert stored.count(b"123456789") == decision.input.count(b'"quantity":123456789') == 1
    assert b"item_id" not in stored
