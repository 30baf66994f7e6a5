"""Lines for operators: one for each notable message, with no content of it, and not more than can be read."""

from __future__ import annotations

import logging

import pytest
from support.acceptance import Delivery, Message
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop, Update

from sealbus import Agent, Context
from sealbus.bus.telemetry import FIELDS, OperatorLog
from sealbus.testing import TestBus

LOG = logging.getLogger("sealbus.test")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="sealbus")
    return caplog


def test_a_line_says_who_where_what_and_why(lines: pytest.LogCaptureFixture) -> None:
    header = Delivery().accept(Message()).header
    OperatorLog(LOG).message("denied", header, action="inventory.update", code="denied", extra="attempt 2")
    (line,) = lines.messages
    for part in ("denied: inventory.update", header.id.hex(), header.to, str(header.iss), "attempt 2"):
        assert part in line


def test_a_denial_says_for_whom_and_why_in_fields_of_fixed_names(lines: pytest.LogCaptureFixture) -> None:
    message = Delivery().accept(Message())
    header = message.header._replace(tid=bytes(range(16)))
    reasons = ["not_owner", "over\x1b[2J", *["x" * 1_000] * 9]
    said = OperatorLog(LOG)
    assert message.context is not None
    for user in (True, False):
        said.message(
            "denied",
            header,
            action="inventory.update",
            code="denied",
            reasons=reasons,
            context=message.context,
            user=user,
        )
    first, second = (vars(record)[FIELDS] for record in lines.records)
    assert first == {
        "event": "denied",
        "action": "inventory.update",
        "code": "denied",
        "reasons": ["not_owner", r"over\x1b[2J", *["x" * 256] * 6],
        "agent": str(header.aud),
        "sender": str(header.iss),
        "user": message.context.sub,
        "subject": header.to,
        "message_id": header.id.hex(),
        "request_id": message.context.txn.hex(),
        "trace_id": bytes(range(16)).hex(),
    }
    assert second == {name: one for name, one in first.items() if name != "user"}
    line, without = lines.messages
    for part in (
        f"user {message.context.sub}",
        f"request {message.context.txn.hex()}",
        "trace 00010203",
        "(not_owner, ",
    ):
        assert part in line
    assert line.isprintable()
    assert len(line) < 4_096
    assert message.context.sub not in without


def test_a_flood_is_cut_off_and_counted(lines: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = OperatorLog(LOG, most=3, seconds=10.0, clock=clock)
    for _ in range(50):
        log.refused("task.inventory.update", code="malformed", step=1)
    assert len(lines.messages) == 3
    clock.now += 10.0
    log.refused("task.inventory.update", code="malformed", step=1)
    log.refused("task.inventory.update", code="malformed", step=1)
    assert len(lines.messages) == 5
    assert "47 such lines" in lines.messages[3]
    assert "left out" not in lines.messages[4]


def test_a_strangers_subject_cannot_write_lines_or_move_a_cursor(lines: pytest.LogCaptureFixture) -> None:
    OperatorLog(LOG).refused("task.\x1b[2J\u202e" + "x" * 1_000, code="malformed", step=1)
    (line,) = lines.messages
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 400


def test_nothing_is_counted_where_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="sealbus")
    OperatorLog(LOG).refused("task.a.b", code="malformed", step=1)
    assert caplog.messages == []


async def test_each_notable_thing_has_its_line(lines: pytest.LogCaptureFixture) -> None:
    shop, engine = Shop(fail=1), ScriptedEngine()
    async with TestBus(shop.inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        user = bus.user("alice", "shop-web", claims={"department": "a private claim"})
        failed = await client.submit("inventory.update", Update(item_id="a private item"), user=user)
        buried = await client.submit("inventory.hang", Update(item_id="1"))
        await bus.idle()
        engine.verdict = lambda _: deny("a private reason")
        denied = await client.submit("inventory.update", Update(item_id="1"))
        bus.broker.inject("task.inventory.update", b"a private payload")
        await bus.idle()
    said = "\n".join(one for one in lines.messages if one.startswith(("retried", "dead", "denied", "refused")))
    assert f"retried: inventory.update, message {failed.message_id}" in said
    assert f"dead-lettered: inventory.hang, message {buried.message_id}" in said
    assert f"denied: inventory.update, message {denied.message_id}" in said
    assert "refused: on 'task.inventory.update', malformed at step 1" in said
    # Reasons are words of the policy, for whoever operates it.
    assert "private" not in said.replace("(a private reason)", "")
    assert f"message {denied.message_id} on task.inventory.update" in said


async def test_an_idempotency_conflict_and_a_second_copy_have_their_lines(lines: pytest.LogCaptureFixture) -> None:
    agent = Agent("payer")

    @agent.task("pay", once=True)
    async def pay(body: Update, ctx: Context) -> None: ...

    async with TestBus(agent, engine=ScriptedEngine(lambda _: allow())) as bus:
        client = await bus.client("shop-web")
        await client.submit("payer.pay", Update(item_id="1"), idempotency_key="k")
        await bus.idle()
        await client.submit("payer.pay", Update(item_id="1"), idempotency_key="k")
        await client.submit("payer.pay", Update(item_id="2"), idempotency_key="k")
        await bus.idle()
    said = "\n".join(lines.messages)
    assert "not done again: payer.pay" in said
    assert "idempotency_conflict" in said
