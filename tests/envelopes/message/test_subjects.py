"""Subjects and step 3: which message may travel where (SPEC.md sections 1, 3 and 7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.envelopes import (
    NAMES,
    Issuer,
    agent,
    call_draft,
    event_draft,
    message_id,
    record_draft,
    reply_draft,
    status_draft,
    task_draft,
)

from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.message.subjects import (
    OwnSubject,
    OwnSubjects,
    action_of,
    audit_subject,
    call_subject,
    check_addressing,
    control_subject,
    dead_subject,
    event_subject,
    own_subjects,
    refused_subject,
    status_subject,
    task_subject,
)
from sealbus.envelopes.trust.spiffe_id import SpiffeId

PLANNER = agent("planner")
EDGE = SpiffeId("spiffe://example.org/edge")
"""An ID without a name."""
NONE: OwnSubjects = {}


def test_subjects_as_they_are_built() -> None:
    assert task_subject("inventory", "update") == "task.inventory.update"
    assert task_subject("inventory", "update", "7") == "task.inventory.update.7"
    assert call_subject("pricing", "quote") == "call.pricing.quote"
    assert control_subject("pricing", "cancel") == "control.pricing.cancel"
    assert event_subject("inventory", "changed") == "event.inventory.changed"
    assert status_subject("planner", bytes(range(16))) == "status.planner.000102030405060708090a0b0c0d0e0f"
    assert dead_subject("inventory", "task.inventory.update") == "dead.inventory.update"
    assert dead_subject("inventory", "task.inventory.update.7") == "dead.inventory.update.7"
    assert dead_subject("mail", "mail.send") == "dead.mail.send"
    assert audit_subject("inventory") == "audit.inventory"
    assert refused_subject("inventory") == "refused.inventory"


@pytest.mark.parametrize("what", ["", "stop", "_cancel", "Cancel", "can", "cancelled", "cancel.1"])
def test_an_agent_is_told_what_it_can_be_told_alone(what: str) -> None:
    with pytest.raises(ConfigurationError):
        control_subject("pricing", what)


@pytest.mark.parametrize("token", ["", "a.b", "*", ">", "a b", "a\n", "a\r\nPUB x", "ä", "$SYS", "a*"])
def test_no_other_token_gets_into_a_subject(token: str) -> None:
    builds: list[Callable[[], str]] = [
        lambda: task_subject(token, "x"),
        lambda: task_subject("x", token),
        lambda: task_subject("x", "x", token),
        lambda: call_subject(token, "x"),
        lambda: event_subject("x", token),
        lambda: status_subject(token, bytes(16)),
        lambda: audit_subject(token),
        lambda: refused_subject(token),
    ]
    for build in builds:
        with pytest.raises(ConfigurationError, match="subject token"):
            build()


def test_a_subject_has_at_most_255_bytes() -> None:
    assert len(call_subject("a", "b" * (255 - len("call.a.")))) == 255
    with pytest.raises(ConfigurationError, match="256 bytes"):
        call_subject("a", "b" * (256 - len("call.a.")))


def own(**changes: object) -> OwnSubject:
    values = {"subject": "orders.created", "kind": Kind.EVENT, "owner": agent("shop"), "action": "shop.created"}
    return OwnSubject(**(values | changes))  # type: ignore[arg-type]


def test_own_subjects_are_declared() -> None:
    for kind in (Kind.TASK, Kind.CALL, Kind.EVENT):
        assert own(kind=kind).kind is kind
    assert own(subject="orders").subject == "orders"
    assert own(subject="tasks.x").subject == "tasks.x"
    table = own_subjects(own(), own(subject="orders.deleted"))
    assert sorted(table) == ["orders.created", "orders.deleted"]
    with pytest.raises(ConfigurationError, match="twice"):
        own_subjects(own(), own(kind=Kind.TASK))


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "orders."},
        {"subject": ".orders"},
        {"subject": "orders..created"},
        {"subject": "orders.*"},
        {"subject": "orders.>"},
        {"subject": "orders created"},
        {"subject": "$SYS.x"},
        {"subject": "a" * 256},
        *[
            {"subject": f"{token}{rest}"}
            for token in (
                "task",
                "call",
                "event",
                "status",
                "dead",
                "audit",
                "refused",
                "state",
                "control",
                "held",
                "_INBOX",
            )
            for rest in ("", ".x")
        ],
        *[{"kind": kind} for kind in (Kind.REPLY, Kind.CHUNK, Kind.STATUS, Kind.RECORD)],
        {"action": ""},
        {"action": "created"},
        {"action": "shop.*"},
        {"action": "shop created"},
        {"action": "shop._cancel"},
        {"action": "a." + "b" * 255},
    ],
    ids=str,
)
def test_other_declarations_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="own subject"):
        own(**changes)


def test_actions_follow_from_subjects() -> None:
    assert action_of("task.inventory.update", NONE) == "inventory.update"
    assert action_of("task.inventory.update.7", NONE) == "inventory.update"
    assert action_of("call.pricing.quote", NONE) == "pricing.quote"
    assert action_of("control.pricing.cancel", NONE) == "pricing._cancel"
    assert action_of("event.inventory.changed", NONE) == "inventory.changed"
    assert action_of("orders.created", own_subjects(own())) == "shop.created"


@pytest.mark.parametrize(
    "subject",
    [
        "orders.created",
        "task.inventory",
        "task.a.b.c.d",
        "call.a.b.c",
        "event.a.b.c",
        "status.a.b",
        "audit.a",
        "tasks.a.b",
        "tas.a.b",
        "Task.a.b",
        "CALL.a.b",
        "Task.a.b.c",
        "task2.a.b.c",
        "task",
        "",
    ],
)
def test_other_subjects_have_no_action(subject: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        action_of(subject, NONE)
    assert (caught.value.code, caught.value.step) == (Code.WRONG_SUBJECT, 3)


def header(draft: Draft, iss: SpiffeId = PLANNER) -> Header:
    return seal([draft], Issuer().sealer(iss))[0].header


def accepted(draft: Draft, iss: SpiffeId = PLANNER, own: OwnSubjects = NONE) -> None:
    check_addressing(header(draft, iss), draft.to, NAMES, own)


def refused(draft: Draft, iss: SpiffeId = PLANNER, own: OwnSubjects = NONE, subject: str | None = None) -> str:
    with pytest.raises(EnvelopeError) as caught:
        check_addressing(header(draft, iss), draft.to if subject is None else subject, NAMES, own)
    assert (caught.value.code, caught.value.step) == (Code.WRONG_SUBJECT, 3)
    return caught.value.detail


def test_step_3_accepts_each_kind_on_its_subject() -> None:
    accepted(task_draft())
    accepted(task_draft()._replace(to="task.inventory.update.7"))
    accepted(call_draft())
    accepted(reply_draft(bytes(32), "_INBOX.planner.x.y"), agent("pricing"))
    accepted(reply_draft(bytes(32), "_INBOX.planner.1")._replace(kind=Kind.CHUNK, seq=0), agent("pricing"))
    accepted(status_draft(bytes(32), message_id(1)), agent("inventory"))
    accepted(event_draft(), agent("inventory"))
    accepted(event_draft()._replace(aud=agent("planner")), agent("inventory"))
    accepted(record_draft(b"", bytes(32)), agent("inventory"))


def test_step_3_knows_agents_without_a_name_by_their_token() -> None:
    token = NAMES.token(EDGE)
    accepted(task_draft()._replace(to=f"task.{token}.update", aud=EDGE))
    accepted(call_draft()._replace(rpl=f"_INBOX.{token}.1"), EDGE)
    accepted(event_draft()._replace(to=f"event.{token}.x"), EDGE)
    accepted(record_draft(b"", bytes(32))._replace(to=f"audit.{token}"), EDGE)
    refused(task_draft()._replace(to="task.edge.update", aud=EDGE))


def test_step_3_to_is_the_subject_of_the_delivery() -> None:
    assert refused(task_draft(), subject="task.inventory.other") == "to"
    assert refused(task_draft(), subject="task.inventory.update.7") == "to"
    assert refused(task_draft(), subject="dead.inventory.update") == "to"


@pytest.mark.parametrize(
    "to",
    [
        "task.pricing.update",
        "call.inventory.update",
        "event.inventory.update",
        "status.inventory.00000000000000000000000000000000",
        "audit.inventory",
        "dead.inventory.update",
        "refused.inventory",
        "_INBOX.inventory.x",
        "task",
        "task.inventory",
        "task.inventory.update.7.8",
        "orders.created",
        "inventory.update",
        "TASK.inventory.update",
        "tasks.inventory.update",
    ],
)
def test_step_3_refuses_a_task_elsewhere(to: str) -> None:
    refused(task_draft()._replace(to=to))


@pytest.mark.parametrize("to", ["call.inventory.quote", "call.pricing", "call.pricing.quote.7", "task.pricing.quote"])
def test_step_3_refuses_a_call_elsewhere(to: str) -> None:
    refused(call_draft()._replace(to=to))


@pytest.mark.parametrize("rpl", ["_INBOX.pricing.1", "_INBOX.planner", "_INBOX.plannerx.1", "_INBOX", "task.planner.x"])
def test_step_3_refuses_replies_to_anybody_but_the_sender(rpl: str) -> None:
    assert refused(call_draft()._replace(rpl=rpl)) == "rpl"


@pytest.mark.parametrize("kind", [Kind.REPLY, Kind.CHUNK])
@pytest.mark.parametrize("to", ["_INBOX.pricing.1", "_INBOX.planner", "_INBOX.plannerx.1", "task.planner.x", "x"])
def test_step_3_refuses_an_answer_outside_the_inbox_of_its_audience(kind: Kind, to: str) -> None:
    draft = reply_draft(bytes(32), to)._replace(kind=kind, seq=0 if kind is Kind.CHUNK else None)
    refused(draft, agent("pricing"))


@pytest.mark.parametrize(
    "to",
    [
        f"status.inventory.{'0' * 32}",
        f"status.planner.{'0' * 31}",
        f"status.planner.{'0' * 33}",
        f"status.planner.{'A' * 32}",
        f"status.planner.{'g' * 32}",
        f"status.planner.{'0' * 32}.x",
        "status.planner",
        f"task.planner.{'0' * 32}",
    ],
)
def test_step_3_refuses_a_status_elsewhere(to: str) -> None:
    refused(status_draft(bytes(32), message_id(1))._replace(to=to), agent("inventory"))


@pytest.mark.parametrize(
    "to", ["event.planner.changed", "event.inventory", "event.inventory.changed.x", "task.inventory.changed"]
)
def test_step_3_refuses_an_event_of_another_agent(to: str) -> None:
    refused(event_draft()._replace(to=to), agent("inventory"))
    refused(event_draft()._replace(to=to, aud=agent("planner")), agent("inventory"))


@pytest.mark.parametrize(
    "to", ["audit.planner", "audit", "audit.inventory.x", "event.inventory.x", "Audit.inventory", "audit.Inventory"]
)
def test_step_3_refuses_a_record_of_another_agent(to: str) -> None:
    refused(record_draft(b"", bytes(32))._replace(to=to), agent("inventory"))


def test_step_3_refuses_what_has_no_audience_where_there_must_be_one() -> None:
    with pytest.raises(EnvelopeError) as caught:
        check_addressing(header(task_draft())._replace(aud=None), "task.inventory.update", NAMES, NONE)
    assert caught.value.code is Code.WRONG_SUBJECT


def test_step_3_own_subjects_have_a_kind_and_an_owner() -> None:
    task = own_subjects(own(subject="orders.fill", kind=Kind.TASK, owner=agent("shop"), action="shop.fill"))
    event = own_subjects(own())
    accepted(task_draft()._replace(to="orders.fill", aud=agent("shop")), own=task)
    accepted(event_draft()._replace(to="orders.created"), agent("shop"), event)
    assert refused(task_draft()._replace(to="orders.fill"), own=task) == "own subject"
    assert refused(event_draft()._replace(to="orders.created"), agent("planner"), event) == "own subject"
    assert refused(event_draft()._replace(to="orders.fill"), agent("shop"), task) == "own subject"
    assert refused(task_draft()._replace(to="orders.created", aud=agent("shop")), own=event) == "own subject"
    refused(task_draft()._replace(to="orders.fill", aud=agent("shop")))


def test_step_3_a_call_on_an_own_subject_is_answered_in_the_inbox_of_its_sender() -> None:
    table = own_subjects(own(subject="quotes", kind=Kind.CALL, owner=agent("pricing"), action="pricing.quote"))
    accepted(call_draft()._replace(to="quotes"), own=table)
    assert refused(call_draft()._replace(to="quotes", rpl="_INBOX.pricing.1"), own=table) == "rpl"
