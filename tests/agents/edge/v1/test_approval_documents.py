"""What a person is shown of what waits: the policy's words and verified facts, and no character that misleads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import Message
from support.audit import opened
from support.parked import parked_task, verdict

from sealbus.agents.edge.v1.approval_routes import _parsed
from sealbus.agents.edge.v1.approvals import ParkedTask, _visible
from sealbus.bus.sending.approval import Verdict

GOOD: dict[str, Any] = {"decision": "ab" * 32, "verdict": "approve"}


def shown(message: Message, **asked: object) -> dict[str, Any]:
    parked = parked_task(message=message, asked=asked, verdicts=(verdict("first"),))
    return ParkedTask(parked=parked, message=opened(message)).document()


def test_a_person_is_shown_who_asks_for_what() -> None:
    document = shown(Message())
    assert (document["queue"], document["text"]) == ("managers", "Pay")
    assert document["user"] == {"id": "u-1001", "idp": "https://idp.example"}
    assert document["chain"][0].endswith("/edge")
    assert document["requester"].endswith("/agent/planner")
    assert [one["user"] for one in document["verdicts"]] == ["first"]
    assert document["body"] == {"type": "application/json", "json": {"item": "42"}}


def test_a_body_is_shown_only_if_the_policy_says_so_and_as_what_it_is() -> None:
    assert "body" not in shown(Message(), body=False)
    assert set(shown(Message(body=b"\xff"))["body"]) == {"type", "base64"}


@given(st.text(max_size=40))
def test_no_character_is_shown_that_hides_or_turns_others(text: str) -> None:
    import unicodedata

    found = _visible({text: [text, {"x": text}]})
    for one in json.dumps(found, ensure_ascii=False):
        assert unicodedata.category(one) not in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}


def test_a_right_to_left_override_is_written_out() -> None:
    assert _visible("pay \u202e001") == "pay \\u{202e}001"
    assert _visible(5) == 5


def test_what_somebody_says_has_its_members() -> None:
    assert _parsed(dict(GOOD)).verdict is Verdict.APPROVE
    assert _parsed({**GOOD, "note": "fine"}).note == "fine"
    for bad in (
        {"decision": "AB" * 32},
        {"decision": "ab" * 31},
        {"decision": 1},
        {"verdict": "view"},
        {"verdict": 1},
        {"note": 1},
        {"more": 1},
    ):
        with pytest.raises(ValueError, match=r".*"):
            _parsed({**GOOD, **bad})
