"""What `sealbus audit replay --into` prints of each replayed message."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from support.engines import ScriptedEngine, allow
from support.shop import Shop, Update

from sealbus.agents.cli.audit.group import command
from sealbus.agents.cli.audit.replay import as_replayed, replayed_lines
from sealbus.agents.runtime.replay.context import WouldSend
from sealbus.agents.runtime.replay.replay import Replayed, Result
from sealbus.agents.sdk.bodies import JSON
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


@pytest.fixture
async def entry() -> AuditEntry:
    async with TestBus(Shop().inventory, engine=ScriptedEngine(lambda _: allow())) as bus:
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="42"), user=bus.user("alice", "shop-web"))
        await bus.idle()
        (found,) = [one for one in await bus.audit() if isinstance(one.record, DecisionRecord)]
    return found


def outcome(code: Code | None) -> OutcomeRecord:
    return OutcomeRecord.of(decision=bytes(32), code=code, micros=5, delivery=1)


def test_a_handled_message_shows_then_and_now(entry: AuditEntry) -> None:
    one = Replayed(
        entry=entry,
        outcome=outcome(Code.HANDLER_FAILED),
        result=Result.DONE,
        resource="item:42",
        answer=Content(body=b'{"price":7}', typ=JSON),
        sent=(WouldSend(kind="event", subject="event.inventory.ordered", size=9),),
        micros=1_500,
    )
    document = json.loads(json.dumps(as_replayed(one)))
    assert (document["place"], document["outcome"], document["result"]) == ("TASKS #1", "handler_failed", "done")
    assert document["recorded"]["action"] == "inventory.update"
    assert document["would_send"] == [{"kind": "event", "subject": "event.inventory.ordered", "bytes": 9}]
    first, place, now, answer, sent = replayed_lines(one)
    assert "ALLOW inventory.update" in first
    assert place == "  TASKS #1, outcome then: handler_failed"
    assert now == "  now: done on item:42 in 1.5 ms"
    assert answer == '  {"price":7}'
    assert sent == "  would send event event.inventory.ordered, 9 bytes"


def test_an_error_is_named(entry: AuditEntry) -> None:
    one = Replayed(entry=entry, outcome=outcome(None), result=Result.FAILED, error=ValueError("broken here"))
    assert as_replayed(one)["error"] == "ValueError: broken here"
    assert replayed_lines(one)[1:] == [
        "  TASKS #1, outcome then: done",
        "  now: failed in 0.0 ms",
        "  ValueError: broken here",
    ]


@pytest.mark.parametrize("result", [Result.DENIED, Result.GONE, Result.OTHER, Result.UNKNOWN])
def test_what_was_not_given_to_the_handler_says_why(entry: AuditEntry, result: Result) -> None:
    lines = replayed_lines(Replayed(entry=entry, outcome=None, result=result))
    assert len(lines) == 3
    assert lines[1] == "  TASKS #1, outcome then: not recorded"
    assert "now:" not in lines[2]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["replay", "--follow"], "--follow reads one cell"),
        (["tail", "--follow"], "--follow reads one cell"),
        (["replay", "--into", "a:b"], "--into replays messages of one cell"),
    ],
)
def test_what_reads_one_cell_takes_one_identity(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(command, [*arguments, "--as", "operator", "--as", "ruler"])
    assert (result.exit_code, problem in result.output) == (2, True)


def test_following_and_replaying_do_not_go_together() -> None:
    assert CliRunner().invoke(command, ["replay", "--into", "app.py:agent", "--follow"]).exit_code == 2
    assert CliRunner().invoke(command, ["replay", "--into", "app.py:agent", "--last", "0"]).exit_code == 2
