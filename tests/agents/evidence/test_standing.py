"""What was done for somebody who was away rests on what they granted: the facts of a log, put together in its order."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from support.envelopes import NOW

from sealbus.agents.evidence.standing import StandingChains
from sealbus.envelopes.export.finding import FindingCode
from sealbus.envelopes.export.standing import GrantStatement, GrantUsed, StandingUser
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import standing_session

EDGE = "spiffe://example.org/edge"
GRANT = b"g" * 32
ALICE = StandingUser("https://idp.example", "alice", "app", None, None, None, None, NOW, ())
NAME = sha256(f"{ALICE.idp}\0{ALICE.user}".encode()).hexdigest()[:24] + "-often"
BODY = b'{"item":1}'


def said(message: bytes = GRANT, at: int = NOW, **changes: Any) -> GrantStatement:
    body = {
        "v": 1,
        "name": NAME,
        "state": "on",
        "do": {"action": "inventory.count", "typ": "application/json", "text": BODY.decode(), "grants": []},
        "when": {"every": 60, "from": at},
        "until": NOW + 3_600 * SECOND,
    }
    fields: dict[str, Any] = {
        "edge": EDGE,
        "message": message,
        "user": ALICE,
        "scope": ("inventory:write", "sealbus:schedule"),
        "typ": "application/vnd.sealbus.schedule.v1+json",
        "body": json.dumps(body).encode(),
        "made": at,
        "stored": at,
        "logged": at,
    }
    return GrantStatement(**{**fields, **changes})


def used(**changes: Any) -> GrantUsed:
    fields: dict[str, Any] = {
        "sequence": 9,
        "edge": EDGE,
        "grant": GRANT,
        "session": standing_session(GRANT),
        "user": ALICE,
        "scope": ("inventory:write",),
        "to": "task.inventory.count",
        "typ": "application/json",
        "body_digest": sha256(BODY).digest(),
        "grants": (),
        "tick": NOW + 60 * SECOND,
        "made": NOW + 60 * SECOND,
    }
    return GrantUsed(**{**fields, **changes})


def found(*facts: GrantStatement | GrantUsed) -> list[tuple[int, str]]:
    return [(one.sequence, one.code) for one in StandingChains().take_facts(facts)]


def test_what_was_granted_before_is_no_finding() -> None:
    assert found(said(), used(), used(tick=NOW + 120 * SECOND, made=NOW + 121 * SECOND)) == []


def test_a_grant_is_as_long_as_a_schedule_may_be() -> None:
    body = said().body
    for more, code in ((0, []), (1, [(9, FindingCode.BAD_GRANT)])):
        assert found(said(body=body + b" " * (65_536 - len(body) + more)), used()) == code


def test_a_grant_that_comes_later_in_the_log_vouches_for_nothing() -> None:
    assert found(used(), said()) == [(9, FindingCode.BAD_GRANT)]


@pytest.mark.parametrize(
    "changes",
    [
        {"edge": f"{EDGE}2"},
        {"grant": b"h" * 32},
        {"session": standing_session(b"h" * 32)},
        {"user": ALICE._replace(user="bob")},
        {"user": ALICE._replace(authenticated=NOW + 1)},
        {"scope": ("inventory:write", "sealbus:schedule")},
        {"to": "task.inventory.update"},
        {"typ": "text/plain"},
        {"body_digest": sha256(b"{}").digest()},
        {"grants": None},
        {"grants": ("mail.send",)},
        {"tick": NOW + 3_600 * SECOND},
        {"made": NOW},
        {"fault": "it began with no tick"},
    ],
)
def test_what_was_not_granted_so_is_found(changes: dict[str, Any]) -> None:
    assert found(said(), used(**changes)) == [(9, FindingCode.BAD_GRANT)]


def test_what_was_granted_anew_has_not_ended_with_what_was_before() -> None:
    again = b"h" * 32
    later = {"tick": NOW + 600 * SECOND, "made": NOW + 600 * SECOND}
    facts = said(), said(again, NOW + 60 * SECOND)
    assert found(*facts, used(grant=again, session=standing_session(again), **later)) == []
    assert found(*facts, used(**later)) == [(9, FindingCode.BAD_GRANT)]


def test_what_was_removed_is_over() -> None:
    gone = json.dumps({"v": 1, "name": NAME, "state": "removed"}).encode()
    removed = said(b"r" * 32, NOW + 60 * SECOND, body=gone)
    assert found(said(), removed, used(made=NOW + 61 * SECOND)) == []
    assert found(said(), removed, used(made=NOW + 600 * SECOND)) == [(9, FindingCode.BAD_GRANT)]
