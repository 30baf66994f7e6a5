"""Steps 3 to 6, 9, 12 and 13 of the live profile, clause by clause (SPEC.md section 7).

Steps 1 and 2 are in `test_accept_steps_form.py`, steps 7, 8, 10 and 11 in `test_accept_steps_trust.py`. Each message is
refused for one reason: without it, it would be accepted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from support.acceptance import EDGE, INVENTORY, ISSUER, PLANNER, Delivery, Message, header_block, refuses
from support.envelopes import HOUR, MINUTE, NAMES, NOW, agent, message_id

from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject, action_of, check_addressing, own_subjects
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.caches import ReplayKey, ReplayMemory
from sealbus.envelopes.trust.spiffe_id import SpiffeId

TASK = Message()
CALL_ENTRIES: dict[str, object] = {
    "t": "call",
    "to": "call.inventory.update",
    "rpl": "_INBOX.planner.1",
    "exp": NOW + MINUTE,
    "end": NOW + MINUTE,
}
CALL = Message(fields=CALL_ENTRIES)
CALLED = Delivery(core=True, subject="call.inventory.update")
PLAIN: dict[str, object] = {"aud": None, "end": None}
EVENT = Message(fields={**PLAIN, "t": "event", "to": "event.planner.done"}, context=None, ancestors=())
EMITTED = Delivery(subject="event.planner.done")


def called() -> Delivery:
    """Return how a call arrives, with memories of its own."""
    return replace(CALLED, caches=Delivery().caches, replay=ReplayMemory(8))


# Step 3.


def test_step_03_accepts_a_task_a_call_and_an_event() -> None:
    assert Delivery().accept(TASK).header.kind is Kind.TASK
    assert called().accept(CALL).header.kind is Kind.CALL
    assert EMITTED.accept(EVENT).header.kind is Kind.EVENT


def test_step_03_accepts_a_task_with_a_partition() -> None:
    task = Message(fields={"to": "task.inventory.update.7"})
    assert Delivery(subject="task.inventory.update.7").accept(task).header.to == "task.inventory.update.7"


def test_step_03_accepts_a_task_that_tells_its_agent_something() -> None:
    told = Delivery(subject="control.inventory.cancel", action="inventory._cancel")
    assert told.accept(Message(fields={"to": "control.inventory.cancel"})).header.to == "control.inventory.cancel"


def test_step_03_refuses_a_kind_that_the_subscription_does_not_handle() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(kinds=frozenset({Kind.EVENT})).accept(TASK))
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(kinds=frozenset({Kind.CALL})).accept(TASK))


def test_step_03_refuses_a_result_and_a_record() -> None:
    results: dict[str, dict[str, object]] = {
        "reply": {"re": bytes(32)},
        "chunk": {"re": bytes(32), "seq": 0},
        "status": {"re": bytes(32), "seq": 0},
        "record": {"aud": None},
    }
    for kind, entries in results.items():
        message = Message(fields={"t": kind, "end": None, "exp": NOW + MINUTE, **entries}, context=None, ancestors=())
        refuses(Code.WRONG_KIND, 3, partial(Delivery().accept, message))


def test_step_03_refuses_a_kind_that_does_not_travel_this_way() -> None:
    refuses(Code.WRONG_KIND, 3, lambda: replace(CALLED, core=False).accept(CALL))
    refuses(Code.WRONG_KIND, 3, lambda: Delivery(core=True).accept(TASK))
    refuses(Code.WRONG_KIND, 3, lambda: replace(EMITTED, core=True).accept(EVENT))


@pytest.mark.parametrize(
    "subject", ["task.inventory.other", "task.other.update", "task.inventory.update.1", "call.inventory.update"]
)
def test_step_03_refuses_another_subject_than_was_signed(subject: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery(subject=subject).accept(TASK))


@pytest.mark.parametrize(
    "to",
    [
        "task.other.update",
        "task.inventory",
        "task",
        "task.inventory.update.1.2",
        "event.inventory.update",
        "call.inventory.update",
        "status.inventory.update",
        "orders.inventory.update",
        "task.id-00000000000000000000000000000000.update",
        "task.inventory._cancel",
        "task.inventory._cancel.1",
        "control.inventory",
        "control.inventory.pause",
        "control.inventory.cancel.1",
        "control.inventory.Cancel",
        "control.inventory.cance",
        "control.planner.cancel",
        "Control.inventory.cancel",
        "kontrol.inventory.cancel",
    ],
)
def test_step_03_refuses_a_subject_that_does_not_fit_a_task_for_us(to: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery(subject=to).accept(Message(fields={"to": to})))


@pytest.mark.parametrize(
    "to",
    [
        "call.inventory.update.1",
        "call.inventory",
        "call.other.update",
        "task.inventory.update",
        "call.inventory._cancel",
        "control.inventory.cancel",
    ],
)
def test_step_03_refuses_a_subject_that_does_not_fit_a_call_for_us(to: str) -> None:
    call = Message(fields={**CALL_ENTRIES, "to": to})
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery(core=True, subject=to).accept(call))


@pytest.mark.parametrize(
    "to",
    [
        "event.inventory.done",
        "event.planner",
        "event.planner.done.1",
        "task.planner.done",
        "event.planner._done",
        "control.planner.cancel",
    ],
)
def test_step_03_refuses_a_subject_that_does_not_fit_an_event_of_its_sender(to: str) -> None:
    event = replace(EVENT, fields={**EVENT.fields, "to": to})
    refuses(Code.WRONG_SUBJECT, 3, lambda: Delivery(subject=to).accept(event))


@pytest.mark.parametrize("rpl", ["_INBOX.inventory.1", "_INBOX.planner2.1", "_INBOXplanner.1", "task.planner.x", "x"])
def test_step_03_refuses_an_inbox_of_another(rpl: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: called().accept(Message(fields={**CALL_ENTRIES, "rpl": rpl})))


def test_step_03_accepts_an_agent_without_a_name_under_its_token() -> None:
    edge_token = NAMES.token(EDGE.iss)
    call = Message(sealer=EDGE, fields={**CALL_ENTRIES, "rpl": f"_INBOX.{edge_token}.1"}, context=None, ancestors=())
    assert called().accept(call).header.iss == EDGE.iss


OWN = own_subjects(
    OwnSubject(subject="orders.created", kind=Kind.TASK, owner=INVENTORY, action="inventory.order"),
    OwnSubject(subject="orders.shipped", kind=Kind.EVENT, owner=agent("planner"), action="orders.shipped"),
)


def on_own_subjects(subject: str) -> Delivery:
    """Return a delivery to a subscription with own subjects."""
    return Delivery(subject=subject, profile=replace(Delivery().profile, own_subjects=OWN))


def test_step_03_accepts_own_subjects() -> None:
    task = Message(fields={"to": "orders.created"})
    event = replace(EVENT, fields={**EVENT.fields, "to": "orders.shipped"})
    assert on_own_subjects("orders.created").accept(task).header.kind is Kind.TASK
    assert on_own_subjects("orders.shipped").accept(event).header.kind is Kind.EVENT


def test_step_03_refuses_an_own_subject_of_another_kind() -> None:
    task = Message(sealer=PLANNER, fields={"to": "orders.shipped", "aud": agent("planner").value})
    refuses(Code.WRONG_SUBJECT, 3, lambda: on_own_subjects("orders.shipped").accept(task))


def test_step_03_refuses_an_own_subject_of_another_owner() -> None:
    task = Message(fields={"to": "orders.created", "aud": agent("other").value})
    event = replace(EVENT, sealer=ISSUER.sealer(agent("mallory")), fields={**EVENT.fields, "to": "orders.shipped"})
    refuses(Code.WRONG_SUBJECT, 3, lambda: on_own_subjects("orders.created").accept(task))
    refuses(Code.WRONG_SUBJECT, 3, lambda: on_own_subjects("orders.shipped").accept(event))


def header_on(to: str, **entries: object) -> Header:
    """Return the header of a result or record from the planner to the inventory."""
    fields = {"to": to, "end": None, "exp": NOW + MINUTE, **entries}
    return parse_header(Message(fields=fields, context=None, ancestors=()).raw())


RESULTS: dict[str, dict[str, object]] = {
    "_INBOX.inventory.1": {"t": "reply", "re": bytes(32)},
    "_INBOX.inventory.2": {"t": "chunk", "re": bytes(32), "seq": 0},
    f"status.inventory.{bytes(16).hex()}": {"t": "status", "re": bytes(32), "seq": 0},
    "audit.planner": {"t": "record", "aud": None},
}


@pytest.mark.parametrize("to", RESULTS)
def test_step_03_accepts_a_result_and_a_record_on_their_subjects(to: str) -> None:
    check_addressing(header_on(to, **RESULTS[to]), to, NAMES, {})


@pytest.mark.parametrize(
    ("like", "to"),
    [
        ("_INBOX.inventory.1", "_INBOX.planner.1"),
        ("_INBOX.inventory.2", "_INBOX.planner.1"),
        (f"status.inventory.{bytes(16).hex()}", f"status.planner.{bytes(16).hex()}"),
        (f"status.inventory.{bytes(16).hex()}", f"states.inventory.{bytes(16).hex()}"),
        (f"status.inventory.{bytes(16).hex()}", f"status.inventory.{bytes(16).hex()}.1"),
        (f"status.inventory.{bytes(16).hex()}", f"status.inventory.{bytes(15).hex()}"),
        (f"status.inventory.{bytes(16).hex()}", f"status.inventory.{(b'x' * 16).hex()[:-1]}F"),
        (f"status.inventory.{bytes(16).hex()}", "status.inventory"),
        ("audit.planner", "audit.inventory"),
        ("audit.planner", "audits.planner"),
        ("audit.planner", "audit.planner.1"),
        ("audit.planner", "audit"),
    ],
)
def test_step_03_refuses_a_result_or_a_record_on_another_subject(like: str, to: str) -> None:
    header = header_on(to, **RESULTS[like])
    refuses(Code.WRONG_SUBJECT, 3, lambda: check_addressing(header, to, NAMES, {}))


def test_step_03_refuses_a_task_for_nobody() -> None:
    # Step 2 asks for `aud`; whoever asks about another header's subject is not left with a guess.
    header = parse_header(TASK.raw())._replace(aud=None)
    refuses(Code.WRONG_SUBJECT, 3, lambda: check_addressing(header, header.to, NAMES, {}))


@pytest.mark.parametrize(
    "subject",
    [
        *("", "task", "task.inventory", "call.inventory.x.1", "task.inventory.x.1.2", "status.inventory.x", "x.y.z"),
        *("control.inventory", "control.inventory.pause", "control.inventory.cancel.1", "status.inventory.cancel"),
        *(
            "Control.inventory.cancel",
            "control2.inventory.cancel",
            "control.inventory.Cancel",
            "control.inventory.cance",
        ),
    ],
)
def test_step_03_refuses_a_subject_without_an_action(subject: str) -> None:
    refuses(Code.WRONG_SUBJECT, 3, lambda: action_of(subject, {}))


# Step 4.


def test_step_04_accepts_an_event_for_us_and_for_everybody() -> None:
    for_us = replace(EVENT, fields={**EVENT.fields, "aud": INVENTORY.value})
    assert EMITTED.accept(for_us).header.aud == INVENTORY
    assert EMITTED.accept(EVENT).header.aud is None


def test_step_04_refuses_a_message_for_another() -> None:
    task = Message(fields={"aud": agent("other").value, "to": "task.other.update"})
    refuses(Code.WRONG_AUDIENCE, 4, lambda: Delivery(subject="task.other.update").accept(task))
    event = replace(EVENT, fields={**EVENT.fields, "aud": agent("other").value})
    refuses(Code.WRONG_AUDIENCE, 4, lambda: EMITTED.accept(event))


def test_step_04_refuses_our_name_in_another_trust_domain() -> None:
    foreign = SpiffeId("spiffe://other.org/agent/inventory")
    event = replace(EVENT, fields={**EVENT.fields, "aud": foreign.value})
    refuses(Code.WRONG_AUDIENCE, 4, lambda: EMITTED.accept(event))


# Step 5.


def test_step_05_accepts_the_edges_of_its_time() -> None:
    Delivery(stored=NOW - 5 * SECOND).accept(TASK)
    Delivery(now=NOW + HOUR - 1).accept(TASK)
    called_early = replace(called(), now=NOW - 5 * SECOND)
    called_early.accept(CALL)


def test_step_05_refuses_what_is_not_of_now_yet() -> None:
    refuses(Code.NOT_YET_VALID, 5, lambda: Delivery(stored=NOW - 5 * SECOND - 1).accept(TASK))
    refuses(Code.NOT_YET_VALID, 5, lambda: replace(called(), now=NOW - 5 * SECOND - 1).accept(CALL))


def test_step_05_refuses_what_had_expired_when_it_was_stored() -> None:
    brief = Message(fields={"exp": NOW + SECOND})
    refuses(Code.EXPIRED, 5, lambda: Delivery(stored=NOW + SECOND, now=NOW).accept(brief))


def test_step_05_refuses_what_expired_before_it_is_handled() -> None:
    refuses(Code.EXPIRED, 5, lambda: Delivery(now=NOW + HOUR).accept(TASK))
    refuses(Code.EXPIRED, 5, lambda: replace(called(), now=NOW + MINUTE).accept(CALL))


# Step 6, stream.

ID = message_id(2)
HEX = ID.hex().encode()
OWN_LINE = b"Nats-Msg-Id: " + HEX + b"\r\n"


def test_step_06_accepts_other_headers_beside_the_id() -> None:
    block = header_block(ID, b"traceparent: 00-1-2-01", b"Content-Type: x", b"X-Nats-Msg-Id: 1", b"empty:", b"no colon")
    Delivery(header_block=block).accept(TASK)
    first = b"NATS/1.0\r\ntraceparent: 00-1-2-01\r\n" + OWN_LINE + b"\r\n"
    Delivery(header_block=first).accept(TASK)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n\r\n", id="no version"),
        pytest.param(b"NATS/1.0", id="version only"),
        pytest.param(b"NATS/1.0\r\n", id="no end"),
        pytest.param(b"NATS/1.0\r\n\r\n", id="no lines"),
        pytest.param(b"NATS/1.1\r\n" + OWN_LINE + b"\r\n", id="another version"),
        pytest.param(b"NATS/1.0 \r\n" + OWN_LINE + b"\r\n", id="a space after the version"),
        pytest.param(b"NATS/1.0 503\r\n" + OWN_LINE + b"\r\n", id="a status"),
        pytest.param(b" NATS/1.0\r\n" + OWN_LINE + b"\r\n", id="a space before the version"),
        pytest.param(b"NATS/1.0\n" + OWN_LINE + b"\r\n", id="a version that ends in LF"),
        pytest.param(b"nats/1.0\r\n" + OWN_LINE + b"\r\n", id="a version in lower case"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE, id="no empty line"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"\r\n\r\n", id="two empty lines"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"\r\nx: y\r\n\r\n", id="a line after the end"),
        pytest.param(b"NATS/1.0\r\n\r\n" + OWN_LINE + b"\r\n", id="an empty line first"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"\r\nx", id="something after the end"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"a\rb: c\r\n\r\n", id="a bare CR"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"a: c\r\r\n\r\n", id="a CR before CRLF"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"a: b\nc: d\r\n\r\n", id="a bare LF"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"a: b\r\n folded\r\n\r\n", id="a line folded by a space"),
        pytest.param(b"NATS/1.0\r\n" + OWN_LINE + b"a: b\r\n\tfolded\r\n\r\n", id="a line folded by a tab"),
        pytest.param(b"NATS/1.0\r\n " + OWN_LINE + b"\r\n", id="a space before the id's name"),
        pytest.param(header_block(message_id(3)), id="another id"),
        pytest.param(header_block(ID, b"Nats-Msg-Id: " + HEX), id="the id twice"),
        pytest.param(header_block(ID, b"nats-msg-id: " + message_id(3).hex().encode()), id="another in lower case"),
        pytest.param(header_block(ID, b"Nats-Msg-Id : " + message_id(3).hex().encode()), id="another before a space"),
        pytest.param(header_block(ID, b"Nats-Msg-Id\t: 1"), id="another before a tab"),
        pytest.param(header_block(ID, b"NATS-MSG-ID:1"), id="another in upper case"),
        pytest.param(header_block(ID, b"Nats-Msg-Id"), id="the name alone"),
        pytest.param(header_block(ID, b"Nats-Expected-Stream: TASKS"), id="another name of the server's"),
        pytest.param(header_block(ID, b"nats-rollup: all"), id="another in lower case of the server's"),
        pytest.param(b"NATS/1.0\r\nnats-msg-id: " + HEX + b"\r\n\r\n", id="name in lower case"),
        pytest.param(b"NATS/1.0\r\nNats-Msg-Id:" + HEX + b"\r\n\r\n", id="no space"),
        pytest.param(b"NATS/1.0\r\nNats-Msg-Id:  " + HEX + b"\r\n\r\n", id="two spaces"),
        pytest.param(b"NATS/1.0\r\nNats-Msg-Id: " + HEX + b" \r\n\r\n", id="a space behind"),
        pytest.param(b"NATS/1.0\r\nNats-Msg-Id: " + HEX[:-1] + b"\r\n\r\n", id="a digit missing"),
        pytest.param(b"NATS/1.0\r\nNats-Msg-Id: " + HEX + b"0\r\n\r\n", id="a digit more"),
        pytest.param(b"NATS/1.0\r\nx: Nats-Msg-Id: " + HEX + b"\r\n\r\n", id="the id in a value"),
        pytest.param(b"NATS/1.0\r\nNats-X: 1\r\nx: Nats-Msg-Id: " + HEX + b"\r\n\r\n", id="both wrong"),
    ],
)  # fmt: skip
def test_step_06_refuses_a_header_block(block: bytes) -> None:
    refuses(Code.MALFORMED, 6, lambda: Delivery(header_block=block).accept(TASK))


def test_step_06_refuses_hex_digits_in_upper_case() -> None:
    task = Message(fields={"id": message_id(0xABC)})
    Delivery(header_block=header_block(message_id(0xABC))).accept(task)
    upper = b"NATS/1.0\r\nNats-Msg-Id: " + message_id(0xABC).hex().upper().encode() + b"\r\n\r\n"
    refuses(Code.MALFORMED, 6, lambda: Delivery(header_block=upper).accept(task))


def test_step_06_accepts_the_edges_of_the_window() -> None:
    Delivery(stored=NOW + MINUTE).accept(TASK)
    Delivery(stored=NOW - 5 * SECOND, created=NOW).accept(TASK)


def test_step_06_refuses_what_was_stored_too_late() -> None:
    refuses(Code.REPLAYED, 6, lambda: Delivery(stored=NOW + MINUTE + 1).accept(TASK))


def test_step_06_refuses_what_was_made_before_the_stream() -> None:
    refuses(Code.REPLAYED, 6, lambda: Delivery(created=NOW + 1).accept(TASK))


# Step 6, core.


def test_step_06_accepts_a_call_as_old_as_its_guards() -> None:
    replace(called(), started=NOW, audit_created=NOW).accept(CALL)


def test_step_06_refuses_a_call_from_before_this_process() -> None:
    refuses(Code.REPLAYED, 6, lambda: replace(called(), started=NOW + 1).accept(CALL))


def test_step_06_refuses_a_call_from_before_the_audit_stream() -> None:
    refuses(Code.REPLAYED, 6, lambda: replace(called(), audit_created=NOW + 1).accept(CALL))


def test_step_06_refuses_a_call_again_until_it_expires() -> None:
    delivery = called()
    delivery.accept(CALL)
    refuses(Code.REPLAYED, 6, lambda: delivery.accept(CALL))
    refuses(Code.REPLAYED, 6, lambda: replace(delivery, now=NOW + MINUTE - 1).accept(CALL))
    refuses(Code.EXPIRED, 5, lambda: replace(delivery, now=NOW + MINUTE).accept(CALL))


def test_step_06_refuses_another_call_under_a_known_id() -> None:
    delivery = called()
    delivery.accept(CALL)
    refuses(Code.REPLAYED, 6, lambda: delivery.accept(replace(CALL, body=b"another")))


def test_step_06_accepts_the_same_id_from_another_sender() -> None:
    delivery = called()
    delivery.accept(CALL)
    other = Message(
        sealer=ISSUER.sealer(agent("other")),
        fields={**CALL_ENTRIES, "rpl": "_INBOX.other.1"},
        context=None,
        ancestors=(),
    )
    assert delivery.accept(other).header.id == ID


def test_step_06_refuses_when_its_memory_is_full_and_forgets_nothing() -> None:
    delivery = replace(called(), replay=ReplayMemory(1))
    delivery.accept(CALL)
    second = replace(CALL, fields={**CALL_ENTRIES, "id": message_id(3), "exp": NOW + 30 * SECOND})
    refuses(Code.OVERLOADED, 6, lambda: delivery.accept(second))
    refuses(Code.REPLAYED, 6, lambda: delivery.accept(CALL))


def test_step_06_accepts_again_when_what_filled_its_memory_has_expired() -> None:
    delivery = replace(called(), replay=ReplayMemory(1))
    delivery.accept(CALL)
    free = NOW + MINUTE + DEFAULT_LIMITS.remembered_after
    later = replace(CALL, fields={**CALL_ENTRIES, "id": message_id(3), "iat": free, "exp": free + MINUTE})
    later = replace(later, fields={**later.fields, "end": free + MINUTE})
    refuses(Code.OVERLOADED, 6, lambda: replace(delivery, now=free - 1).accept(later))
    assert replace(delivery, now=free).accept(later).header.id == message_id(3)


def test_step_06_does_not_remember_a_call_that_fails_later() -> None:
    delivery = called()
    refuses(Code.BAD_DIGEST, 9, lambda: delivery.accept(replace(CALL, elements={2: b"another"})))
    assert len(delivery.replay) == 0
    delivery.accept(CALL)


# Step 9.


def test_step_09_accepts_an_empty_body() -> None:
    assert Delivery().accept(Message(body=b"")).body == b""


@pytest.mark.parametrize("body", [b"", b'{"item":"43"}', b'{"item":"42"} '])
def test_step_09_refuses_another_body(body: bytes) -> None:
    refuses(Code.BAD_DIGEST, 9, lambda: Delivery().accept(Message(elements={2: body})))


# Step 12.


def granted(*grants: str, action: str = "inventory.update") -> Delivery | None:
    """Accept a task whose parent has `grants`, and return the delivery."""
    parent = Message(
        sealer=EDGE,
        fields={"aud": agent("planner").value, "to": "task.planner.plan", "grt": list(grants), "id": message_id(1)},
        ancestors=(),
    )
    delivery = Delivery(action=action)
    delivery.accept(Message(ancestors=(parent.ancestor(),)))
    return delivery


@pytest.mark.parametrize(
    "grants", [("inventory.update",), ("inventory.*",), ("other.x", "inventory.update"), ("a.*", "inventory.*")]
)
def test_step_12_accepts_what_the_parent_granted(grants: tuple[str, ...]) -> None:
    granted(*grants)


def test_step_12_accepts_anything_where_nothing_is_said() -> None:
    Delivery(action="anything.at-all").accept(TASK)


@pytest.mark.parametrize(
    "grants",
    [
        (),
        ("inventory.read",),
        ("inventory",),
        ("inventory.updat",),
        ("inventory.update.*",),
        ("inventor.*",),
        ("nventory.update",),
        ("inventory.update2", "inventory.updat.*"),
    ],
)
def test_step_12_refuses_what_the_parent_did_not_grant(grants: tuple[str, ...]) -> None:
    refuses(Code.GRANT_EXCEEDED, 12, lambda: granted(*grants))


def test_step_12_refuses_the_prefix_itself_and_a_longer_name() -> None:
    refuses(Code.GRANT_EXCEEDED, 12, lambda: granted("inventory.update.*"))
    refuses(Code.GRANT_EXCEEDED, 12, lambda: granted("inventory.*", action="inventory2.update"))
    refuses(Code.GRANT_EXCEEDED, 12, lambda: granted("inventory.update", action="inventory.update2"))


def long_chain(limits: dict[int, list[str]]) -> tuple[Ancestor, ...]:
    """Return the ancestors of a chain edge, hop 1, hop 2, planner; `limits` are grants by place, 0 the root."""
    hops = ["hop-1", "hop-2", "planner"]
    ancestors: tuple[Ancestor, ...] = ()
    sender = EDGE
    for place, hop in enumerate(hops):
        message = Message(
            sealer=sender,
            fields={
                "aud": agent(hop).value,
                "to": f"task.{hop}.do",
                "id": message_id(10 + place),
                "grt": limits.get(place),
            },
            ancestors=ancestors,
        )
        ancestors = (message.ancestor(), *ancestors)
        sender = ISSUER.sealer(agent(hop))
    return ancestors


def test_step_12_accepts_what_every_ancestor_grants() -> None:
    limits = {0: ["inventory.*"], 1: ["inventory.update"], 2: ["inventory.*", "x"]}
    assert len(Delivery().accept(Message(ancestors=long_chain(limits))).chain) == 4


@pytest.mark.parametrize("place", [0, 1, 2])
def test_step_12_refuses_what_one_ancestor_does_not_grant(place: int) -> None:
    limits = {0: ["inventory.*"], 1: ["inventory.update"], 2: ["inventory.*"]} | {place: ["pricing.*"]}
    refuses(Code.GRANT_EXCEEDED, 12, lambda: Delivery().accept(Message(ancestors=long_chain(limits))))


def test_step_12_accepts_a_message_that_limits_only_what_follows() -> None:
    assert Delivery().accept(Message(fields={"grt": []})).header.grt == ()


# Step 13.


def test_step_13_accepts_and_remembers_a_call_until_now_cannot_be_before_its_exp_again() -> None:
    delivery = called()
    delivery.accept(CALL)
    key: ReplayKey = (PLANNER.iss, ID)
    forgotten = NOW + MINUTE + 2 * DEFAULT_LIMITS.clock_skew + 2 * SECOND
    assert delivery.replay.seen(key, now=forgotten - 1)
    assert not delivery.replay.seen(key, now=forgotten)


def test_step_13_accepts_a_task_without_remembering_it() -> None:
    delivery = Delivery()
    delivery.accept(TASK)
    delivery.accept(TASK)
    assert len(delivery.replay) == 0


class Racing(ReplayMemory):
    """A memory in which the call appears between steps 6 and 13, as another thread would put it there."""

    def check(self, key: ReplayKey, *, now: int, step: int = 6) -> None:
        super().check(key, now=now, step=step)
        if step == 6:
            self.remember(key, NOW + MINUTE, now=now)


def test_step_13_refuses_a_call_that_was_remembered_meanwhile() -> None:
    refuses(Code.REPLAYED, 13, lambda: replace(called(), replay=Racing(8)).accept(CALL))
