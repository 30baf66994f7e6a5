"""Messages to be sealed: which subject and audience an action means, and what of the handled message or user goes along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.acceptance import Delivery, Message
from support.envelopes import NAMES

from sealbus.agents.sdk.messages import (
    NO_SUBJECTS,
    NOBODY,
    TASK_LIFE,
    Origin,
    call_message,
    event_message,
    own_subject,
    split_action,
    task_message,
)
from sealbus.agents.sdk.options import SubmitOptions
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.envelopes.errors import ConfigurationError, EnvelopeError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, OwnSubjects, own_subjects
from sealbus.envelopes.message.wire import Statement

BODY = Content(body=b"{}", typ="application/json")
SHOP = NAMES.id_of("shop")
STOCK = NAMES.id_of("stock")


def task(
    action: str = "stock.move", *, origin: Origin = NOBODY, own: OwnSubjects = NO_SUBJECTS, **options: Any
) -> OutgoingMessage:
    return task_message(action, BODY, names=NAMES, origin=origin, own=own, options=SubmitOptions(**options))


def call(action: str = "stock.count", origin: Origin = NOBODY, own: OwnSubjects = NO_SUBJECTS) -> OutgoingMessage:
    return call_message(action, BODY, names=NAMES, reply_to="_INBOX.shop.reply.0.1", origin=origin, own=own)


def test_an_action_is_an_agent_and_a_verb() -> None:
    assert split_action("stock.move") == ("stock", "move")


@pytest.mark.parametrize("action", ["", "stock", "stock.", ".move", "a.b.c"])
def test_anything_else_is_no_action(action: str) -> None:
    for message in (task, call):
        with pytest.raises(SealError):
            message(action)


@pytest.mark.parametrize("action", ["stock.mo*ve", "stock.mo ve", "st>ck.move"])
def test_what_cannot_stand_in_a_subject_is_refused(action: str) -> None:
    with pytest.raises(ConfigurationError):
        task(action)


def test_a_task_goes_to_the_stream_of_its_agent() -> None:
    message = task(grants=["pricing.*"], idempotency_key="order-7")
    assert (message.draft.kind, message.draft.to, message.draft.aud) == (Kind.TASK, "task.stock.move", STOCK)
    assert (message.draft.grt, message.draft.idm, message.draft.rpl) == (("pricing.*",), "order-7", None)
    assert message.life == TASK_LIFE
    assert message.end_after is not None
    assert message.end_after > message.life
    assert task(partition="7").draft.to == "task.stock.move.7"


def test_a_call_says_where_its_answer_goes() -> None:
    message = call()
    assert (message.draft.kind, message.draft.to, message.draft.aud) == (Kind.CALL, "call.stock.count", STOCK)
    assert message.draft.rpl == "_INBOX.shop.reply.0.1"
    assert message.life == message.end_after == 30 * SECOND


def test_an_event_is_ours_and_carries_no_user_and_no_chain() -> None:
    handled = Delivery().accept(Message())
    origin = Origin.message(handled)
    assert origin.ancestors
    message = event_message("moved", BODY, names=NAMES, own=STOCK, origin=origin, re=handled.header.digest)
    assert (message.draft.kind, message.draft.to, message.draft.aud) == (Kind.EVENT, "event.stock.moved", None)
    assert (message.draft.context, message.draft.ancestors, message.end_after) == (None, (), None)
    assert message.draft.re == handled.header.digest


def test_a_child_carries_user_and_chain_and_ends_with_its_parent() -> None:
    handled = Delivery().accept(Message())
    assert handled.context is not None
    for message in (task(origin=Origin.message(handled)), call(origin=Origin.message(handled))):
        assert message.draft.context == handled.statement
        assert message.draft.ancestors == handled.ancestors
        assert message.draft.ancestors[0].header == handled.header.raw
        assert message.end_at == handled.header.end
        assert message.not_before >= max(handled.header.iat, handled.context.iat)


def test_a_chain_starts_with_a_user_or_with_nobody() -> None:
    handled = Delivery().accept(Message())
    assert handled.statement is not None
    assert handled.context is not None
    origin = Origin.user(handled.statement)
    assert (origin.statement, origin.ancestors) == (handled.statement, ())
    assert (origin.end, origin.not_before) == (handled.context.end, handled.context.iat)
    assert Origin.user(None) == Origin()


def test_what_is_no_user_context_starts_no_chain() -> None:
    handled = Delivery().accept(Message())
    assert handled.statement is not None
    with pytest.raises(EnvelopeError):
        Origin.user(Statement(b"junk", handled.statement.proof, handled.statement.credential))


OWN = own_subjects(
    OwnSubject(subject="shop.ship", kind=Kind.TASK, owner=STOCK, action="orders.ship"),
    OwnSubject(subject="shop.ask", kind=Kind.CALL, owner=STOCK, action="orders.ask"),
    OwnSubject(subject="shop.sold", kind=Kind.EVENT, owner=SHOP, action="orders.sold"),
    OwnSubject(subject="a.one", kind=Kind.TASK, owner=STOCK, action="orders.twice"),
    OwnSubject(subject="a.two", kind=Kind.TASK, owner=STOCK, action="orders.twice"),
)


@pytest.mark.parametrize("name", ["ship", "ask", "sold"])
def test_an_own_subject_goes_by_its_text_or_its_action_and_its_kind_alone(name: str) -> None:
    kind = {"ship": Kind.TASK, "ask": Kind.CALL, "sold": Kind.EVENT}[name]
    for said in (f"shop.{name}", f"orders.{name}"):
        found = own_subject(kind, said, OWN)
        assert found is not None
        assert found.subject == f"shop.{name}"
        for other in {Kind.TASK, Kind.CALL, Kind.EVENT} - {kind}:
            assert own_subject(other, said, OWN) is None


def test_an_action_of_two_own_subjects_is_not_guessed() -> None:
    with pytest.raises(SealError):
        task("orders.twice", own=OWN)
    assert task("a.two", own=OWN).draft.to == "a.two"


@pytest.mark.parametrize(
    ("make", "to"),
    [(lambda: task("orders.ship", own=OWN), "shop.ship"), (lambda: call("shop.ask", own=OWN), "shop.ask")],
)
def test_its_owner_is_the_audience(make: Callable[[], OutgoingMessage], to: str) -> None:
    message = make()
    assert (message.draft.to, message.draft.aud) == (to, STOCK)


def test_an_own_event_is_its_owners() -> None:
    def emit(own: object) -> OutgoingMessage:
        return event_message("shop.sold", BODY, names=NAMES, own=own, origin=Origin(), own_subjects=OWN)  # type: ignore[arg-type]

    assert emit(SHOP).draft.to == "shop.sold"
    with pytest.raises(SealError):
        emit(STOCK)
    with pytest.raises(SealError):
        task("shop.ship", own=OWN, partition="1")


def test_a_verb_that_no_handler_has_is_refused_at_the_sender() -> None:
    with pytest.raises(SealError, match="begins with _"):
        split_action("inventory._cancel")
