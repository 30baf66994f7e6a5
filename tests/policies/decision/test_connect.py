"""The question about a connection, and its answer: exact bytes in, exactly one decision out."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.decision.connect import (
    SUBJECTS,
    ConnectDecision,
    ConnectLimits,
    ConnectRequest,
    OwnSubjectFacts,
    SubjectRules,
    connect_document,
    parse_connect,
)
from sealbus.policies.decision.documents import checked_document

REQUEST = ConnectRequest(
    subject="spiffe://example.org/agent/shop",
    trust_domain="example.org",
    token="shop",
    server="NABC",
    server_name="n1",
    time=1_795_528_800_000_000,
    not_after=1_795_532_400_000_000,
    own=[OwnSubjectFacts(subject="orders.made", kind="task", owner="spiffe://x/y", action="a.b", durable="id-own-1")],
)
ALLOWED: dict[str, Any] = {
    "allow": True,
    "reasons": [],
    "policy": "starter",
    "account": "APP",
    "publish": {"allow": ["a.b", "status.{spiffe://example.org/agent/x}.*", "a.>"], "deny": ["a.c"]},
    "subscribe": {"allow": ["call.x.* x", "_INBOX.x.>"], "deny": []},
    "limits": {"subscriptions": 10, "payload": -1, "data": -1},
}
DENIED: dict[str, Any] = {"allow": False, "reasons": ["unknown_workload"], "policy": "starter"}


def parsed(answer: object) -> ConnectDecision:
    return parse_connect(answer, revision="r1", engine="embedded", micros=7)


def test_a_document_has_every_key() -> None:
    document = connect_document(REQUEST)
    assert checked_document(bytes(document)) == document
    assert json.loads(document) == {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": "spiffe://example.org/agent/shop",
            "properties": {"trust_domain": "example.org", "token": "shop"},
        },
        "action": {"name": "nats.connect", "properties": {}},
        "resource": {"type": "nats_server", "id": "NABC", "properties": {"name": "n1"}},
        "context": {
            "time": "2026-11-24T14:00:00Z",
            "not_after": "2026-11-24T15:00:00Z",
            "own_subjects": [
                {
                    "subject": "orders.made",
                    "kind": "task",
                    "owner": "spiffe://x/y",
                    "action": "a.b",
                    "durable": "id-own-1",
                }
            ],
        },
    }


def test_a_document_that_is_too_large_or_no_text_is_refused() -> None:
    with pytest.raises(PolicyFailed, match="bytes"):
        connect_document(replace(REQUEST, server_name="x" * 70_000))
    with pytest.raises(PolicyFailed, match="Unicode"):
        connect_document(replace(REQUEST, server_name="\ud800"))


def test_an_allowance_is_typed() -> None:
    assert parsed(ALLOWED) == ConnectDecision(
        allow=True,
        policy="starter",
        account="APP",
        publish=SubjectRules(allow=("a.>", "a.b", "status.{spiffe://example.org/agent/x}.*"), deny=("a.c",)),
        subscribe=SubjectRules(allow=("_INBOX.x.>", "call.x.* x"), deny=()),
        limits=ConnectLimits(subscriptions=10, payload=-1, data=-1),
        revision="r1",
        engine="embedded",
        micros=7,
    )


def test_a_denial_has_reasons_and_grants_nothing() -> None:
    decision = parsed(DENIED)
    assert (decision.allow, decision.reasons, decision.account) == (False, ("unknown_workload",), "")
    assert decision.publish == decision.subscribe == SubjectRules(allow=(), deny=())
    assert decision.limits.subscriptions == 0


def test_a_subject_that_is_named_twice_is_granted_once() -> None:
    assert parsed({**ALLOWED, "publish": {"allow": ["b", "a", "b"], "deny": []}}).publish.allow == ("a", "b")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "<undefined>",
        True,
        [],
        {},
        {**DENIED, "allow": "false"},
        {**DENIED, "allow": None},
        {**DENIED, "account": "APP"},
        {"allow": False, "reasons": []},
        {**ALLOWED, "allow": 1},
        {**ALLOWED, "allow": "true"},
        {**ALLOWED, "more": 1},
        {"allow": True, "reasons": [], "policy": "p"},
        {**DENIED, "policy": ""},
        {**DENIED, "policy": 1},
        {**DENIED, "policy": "x" * 257},
        {**DENIED, "reasons": "no"},
        {**DENIED, "reasons": [1]},
        {**DENIED, "reasons": ["x" * 257]},
        {**DENIED, "reasons": ["x"] * 33},
        {**ALLOWED, "account": ""},
        {**ALLOWED, "account": 1},
        {**ALLOWED, "account": "$SYS\n"},
        {**ALLOWED, "publish": []},
        {**ALLOWED, "publish": {"allow": ["a"]}},
        {**ALLOWED, "publish": {"allow": ["a"], "deny": [], "more": []}},
        {**ALLOWED, "publish": {"allow": [], "deny": []}},
        {**ALLOWED, "subscribe": {"allow": [], "deny": []}},
        {**ALLOWED, "publish": {"allow": "a", "deny": []}},
        {**ALLOWED, "publish": {"allow": [1], "deny": []}},
        {**ALLOWED, "publish": {"allow": ["x" * 4_097], "deny": []}},
        {**ALLOWED, "publish": {"allow": ["a"] * (SUBJECTS + 1), "deny": []}},
        {**ALLOWED, "publish": {"allow": ["a"], "deny": None}},
        {**ALLOWED, "limits": []},
        {**ALLOWED, "limits": {"subscriptions": 1, "payload": 1}},
        {**ALLOWED, "limits": {"subscriptions": -2, "payload": 1, "data": 1}},
        {**ALLOWED, "limits": {"subscriptions": True, "payload": 1, "data": 1}},
        {**ALLOWED, "limits": {"subscriptions": "1", "payload": 1, "data": 1}},
        {**ALLOWED, "limits": {"subscriptions": 2**53, "payload": 1, "data": 1}},
    ],
)
def test_anything_else_is_no_decision(answer: object) -> None:
    with pytest.raises(PolicyFailed):
        parsed(answer)


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", "a.>.b", "a b", "a\n", "a.{x}", "{spiffe://}", "a*b"])
def test_what_is_no_subject_is_not_granted(subject: str) -> None:
    with pytest.raises(PolicyFailed):
        parsed({**ALLOWED, "publish": {"allow": [subject], "deny": []}})


@pytest.mark.parametrize("subject", ["a b c", "a ", " a", "a *", "a >"])
def test_a_queue_group_is_one_token(subject: str) -> None:
    with pytest.raises(PolicyFailed):
        parsed({**ALLOWED, "subscribe": {"allow": [subject], "deny": []}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(ALLOWED)), JSON)
def test_any_answer_is_a_decision_or_one_error(name: str, value: object) -> None:
    with contextlib.suppress(PolicyFailed):
        decision = parsed({**ALLOWED, name: value})
        assert decision.allow is True
        assert decision.publish.allow
        assert decision.subscribe.allow
