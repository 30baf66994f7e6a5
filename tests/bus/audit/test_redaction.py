"""What is recorded beside a decision: parts of the input left out, chosen by subject and named; and a body where said."""

from __future__ import annotations

import json
import weakref
from contextlib import aclosing

import pytest
from support.engines import ScriptedEngine, allow
from support.shop import Price, Shop, Update

from sealbus.bus.audit import redaction as module
from sealbus.bus.audit.redaction import DECISIONS_ALONE, Recording
from sealbus.bus.audit.trail import AuditEntry, AuditTrail
from sealbus.envelopes.errors import Code, ConfigurationError, SealError
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.trust.proof import Proof
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
    recording = Recording({"task.payroll.>": ["/b/c"], "task.*.raise": ["/a", "/b/c"], "event.>": ["/x"]})
    assert recording.record(RECORD, "task.payroll.pay", b"body") == RECORD._replace(
        input=b'{"a":1,"b":{"c":null}}', redacted=("/b/c",)
    )
    both = recording.record(RECORD, "task.payroll.raise", b"body")
    assert (both.input, both.redacted) == (b'{"a":null,"b":{"c":null}}', ("/b/c", "/a"))
    for subject in ("task.inventory.update", "event.payroll.paid"):
        assert recording.record(RECORD, subject, b"body") is RECORD
        assert recording.record(RECORD, subject, b"body") is RECORD
    assert DECISIONS_ALONE.record(RECORD, "task.payroll.pay", b"body") is RECORD


@pytest.mark.parametrize(
    "pointer", ["/context", "/context/approvals", "/context/approvals/0", "/context/approvals/0/user"]
)
def test_who_approved_is_always_recorded(pointer: str) -> None:
    with pytest.raises(ConfigurationError, match="always recorded"):
        Recording({"task.a.b": ["/a"], "task.payments.pay": ["/context/user/id", pointer]})
    Recording(
        {"task.payments.pay": ["/context/user", "/context/parked", "/contexts", "/context/approvals2", "/a/context"]}
    )


@pytest.mark.parametrize(
    "recording", [DECISIONS_ALONE, Recording({"task.>": ["/context/user"]}), Recording({}, ["task.>"])]
)
def test_bodies_that_are_evidence_of_what_is_done_later_are_always_recorded(recording: Recording) -> None:
    for what in ("approve", "schedule"):
        assert recording.record(RECORD, f"control.payroll.{what}", b"body").body == b"body"
    assert recording.record(RECORD, "control.payroll.cancel", b"body").body is None


def test_a_record_without_an_input_stays_as_it_is() -> None:
    none = RECORD._replace(
        allow=False, code=Code.BAD_BODY, input=None, revision=None, policy=None, engine=None, micros=None
    )
    assert Recording({">": ["/a"]}).record(none, "task.a.b", b"body") is none


def test_what_is_too_long_then_cannot_be_recorded() -> None:
    longest = RECORD._replace(input=b'{"a":1,"b":"' + b"x" * (65_536 - 14) + b'"}')
    with pytest.raises(SealError, match="input is not"):
        Recording({">": ["/a"]}).record(longest, "task.a.b", b"body")


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b", "a.b*", "a b.c", "*>"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a subject pattern"):
        Recording({pattern: ["/a"]})


def test_more_than_a_record_can_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is not a JSON pointer"):
        Recording({">": ["a"]})
    Recording({str(number): [f"/{number}", "/a"] for number in range(31)})
    with pytest.raises(ConfigurationError, match="can name at most 32"):
        Recording({str(number): [f"/{number}"] for number in range(33)})


class Subject(str):
    """A subject that can be seen to be forgotten."""

    __slots__ = ("__weakref__",)


def test_subjects_that_come_and_go_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 8)
    recording = Recording({"task.>": ["/a"]})
    seen = []
    for number in range(100):
        subject = Subject(f"task.a.{number}")
        seen.append(weakref.ref(subject))
        assert recording.record(RECORD, subject, b"body").redacted == ("/a",)
    assert sum(one() is not None for one in seen) <= 8


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


def test_a_body_is_recorded_only_where_said_and_only_a_short_one() -> None:
    recording = Recording({"task.payroll.pay": ["/a"]}, ["task.payroll.>", "event.a.b"])
    for subject in ("task.payroll.raise", "event.a.b"):
        assert recording.record(RECORD, subject, b"body") == RECORD._replace(body=b"body")
    assert recording.record(RECORD, "task.payroll.raise", b"").body == b""
    assert recording.record(RECORD, "task.payroll.raise", bytes(65_536)).body == bytes(65_536)
    assert recording.record(RECORD, "task.payroll.raise", bytes(65_537)).body is None
    assert recording.record(RECORD, "event.a.c", b"body") is RECORD
    both = recording.record(RECORD, "task.payroll.pay", b"body")
    assert (both.body, both.redacted) == (b"body", ("/a",))
    with pytest.raises(ConfigurationError, match="is not a subject pattern"):
        Recording({}, ["a..b"])


async def test_a_recorded_body_is_the_one_that_was_signed() -> None:
    shop = Shop()
    engine = ScriptedEngine(lambda _: allow())
    async with TestBus(shop.inventory, shop.pricing, engine=engine, bodies=["task.inventory.*"]) as bus:
        client = await bus.client("shop-web")
        update = Update(item_id="42", quantity=3)
        await client.submit("inventory.update", update)
        await bus.idle()
        await client.call("pricing.quote", update, returns=Price)
        # Reading verifies it: `accept_decided` compares it with the header's `dig`.
        (task,) = await bus.decisions("inventory.update")
        (call,) = await bus.decisions("pricing.quote")
    assert (task.body, call.body) == (update.model_dump_json().encode(), None)


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


@pytest.mark.parametrize(
    ("pointer", "shown"),
    [
        ("/context/user/id", False),
        ("/context/user", False),
        ("/context/user/id/more", True),
        ("/context/user/claims", True),
        ("/action/properties/salary", True),
    ],
)
def test_a_user_who_is_taken_out_of_records_is_shown_nowhere_else(pointer: str, shown: bool) -> None:
    recording = Recording({"task.payroll.>": [pointer]})
    assert recording.shows_user("task.payroll.pay") is shown
    assert recording.shows_user("task.inventory.update")
    assert Recording({}).shows_user("task.payroll.pay")
