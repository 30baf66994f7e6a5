"""What one message shows of approvals: the denial that asks, what was said, and what a decision rests on."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from independent import verify_export as independent
from support.approved_world import Approval, approval_world, compact
from support.both_readers import agreed
from support.kept_log import root_of
from vectors.issuing import INVENTORY, PLANNER, SECOND
from vectors.recorded import decision, evidence

from sealbus.envelopes.export.approvals import (
    REDACTED,
    ApprovalEntry,
    ApprovalFact,
    ApprovalRequested,
    ApprovalUsed,
    ApprovalVerdict,
    approvals_of,
    covers_approvals,
)
from sealbus.envelopes.export.entries import EntryReader
from sealbus.envelopes.export.format import Frame
from sealbus.envelopes.export.trust import TrustReader
from sealbus.envelopes.log.entries import EntryKind

ENTRY: dict[str, object] = {
    "verdict": "approve", "user": "boss", "idp": "https://idp.example", "session": "s", "client": "c", "acr": "",
    "auth_time": 0, "time": "2026-11-27T10:00:00Z", "message": "ab" * 32, "record": "cd" * 32,
}  # fmt: skip


def facts(approval: Approval, order: str = "D A R") -> list[ApprovalFact]:
    """Return what the messages of an approval say, read from their export."""
    approval.put(order)
    root, frames = root_of(approval.world), [Frame(EntryKind(one.kind), *one[1:]) for one in approval.world.frames]
    trust = TrustReader(root)
    for index, frame in enumerate(frames):
        trust.take_frame(frame, index)
    reader = EntryReader(root, trust.archive)
    for frame in frames:
        reader.read(frame)
    assert reader.findings == []
    assert pickle.loads(pickle.dumps(reader.approvals)) == reader.approvals  # noqa: S301  as between processes
    return reader.approvals


def test_the_three_of_an_approval() -> None:
    world = approval_world()
    approval = Approval(world=world, verdict_fields={"grt": ["a.b"]}, login=10 * SECOND)
    asked, said, used = facts(approval)
    task, verdict = approval.task(), approval.made["verdict"]
    assert asked == ApprovalRequested(
        leaf=bytes.fromhex(json.loads(verdict.body)["decision"]),
        recorder=INVENTORY,
        message=task.digest(),
        obligations=compact([approval.asked]),
        made=approval.made["stored"],
        stored=world.frames[2].stored,
    )
    assert said == ApprovalVerdict(
        leaf=bytes.fromhex(approval.one()["record"]),
        recorder=INVENTORY,
        message=verdict.digest(),
        about=task.digest(),
        grants=("a.b",),
        typ="application/vnd.sealbus.approval.v1+json",
        body=verdict.body,
        made=approval.made["said"],
        stored=approval.made["said"],
        user="boss",
        idp="https://idp.example",
        session="s-2",
        client="desk",
        acr="urn:x:2",
        authenticated=approval.made["said"] - 10 * SECOND,
    )
    assert said.person == ("https://idp.example", "boss")
    assert isinstance(used, ApprovalUsed)
    assert used == ApprovalUsed(5 - 1, INVENTORY, task.digest(), ("https://idp.example", "u-1"), used.entries)
    assert [one.record for one in used.entries] == [said.leaf]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"verdict": {"act": "pricing._approve"}}, "its agent"),
        ({"verdict_fields": {"to": "control.pricing.approve"}}, "its agent"),
        ({"verdict_fields": {"t": "event", "end": None, "grt": None}, "person": None}, "its agent"),
        ({"person": None}, "no person"),
        ({"person": {"sub": "boss", "wkl": PLANNER}, "sender": PLANNER}, "no person"),
        ({"person": {"sub": "boss", "typ": "client"}}, "no person"),
        ({"verdict": {"bdy": None}}, "without its body"),
        ({"verdict": {"str": None, "seq": None, "sto": None, "opn": 1_764_000_002 * SECOND}}, "without its body"),
    ],
)
def test_what_cannot_approve_anything(changes: dict[str, Any], fault: str) -> None:
    _, said, _ = facts(Approval(world=approval_world(), **changes))
    assert isinstance(said, ApprovalVerdict)
    assert fault in said.fault
    assert said.user == ""


def test_what_an_agent_sends_on_for_somebody_is_said_by_no_person() -> None:
    world = approval_world()
    approval = Approval(world=world, person=None, sender=INVENTORY)
    approval.put("D")
    task = approval.task()
    approval.verdict_fields = {name: task.entries()[name] for name in ("exp", "end")}
    below = replace(approval.verdict_message(), ancestors=(task.ancestor(),), context=task.context)
    record = decision(below, sto=world.time, act="inventory._approve", bdy=below.body)
    world.put(world.audit(INVENTORY, evidence(below, task), [record]))
    said = facts(approval, "")[-1]
    assert isinstance(said, ApprovalVerdict)
    assert "edge did not send it" in said.fault


@pytest.mark.parametrize(
    "denial",
    [{"obl": None}, {"obl": b'[{"type":"show_reasons"}]'}, {"cod": "policy_error"}, {"alw": True, "cod": None}],
)
def test_a_denial_that_asks_for_nothing_is_no_fact(denial: dict[str, Any]) -> None:
    assert facts(Approval(world=approval_world(), denial=denial), "D") == []


def test_a_denial_that_may_spell_it_otherwise_is_one() -> None:
    [fact] = facts(Approval(world=approval_world(), denial={"obl": b'["\\u0061"]'}), "D")
    assert isinstance(fact, ApprovalRequested)


@pytest.mark.parametrize("pointer", ["/context", "/context/approvals", "/context/approvals/0/user"])
def test_what_is_redacted_cannot_be_read(pointer: str) -> None:
    [fact] = facts(Approval(world=approval_world(), allowed={"red": ["/a", pointer]}), "R")[-1:]
    assert isinstance(fact, ApprovalUsed)
    assert (fact.fault, fact.entries) == (REDACTED, ())


def test_what_is_of_no_form_is_told() -> None:
    [fact] = facts(Approval(world=approval_world(), document=b'{"context":{"approvals":[1]}}'), "R")
    assert isinstance(fact, ApprovalUsed)
    assert "form" in fact.fault


def test_a_task_of_nobody_has_no_requester() -> None:
    fact = facts(Approval(world=approval_world(), user=None))[-1]
    assert isinstance(fact, ApprovalUsed)
    assert fact.requester is None


def test_what_rests_on_nothing_is_no_fact() -> None:
    for document in (b'{"context":{"approvals":[]}}', b'{"context":{"approvals":[ ]}}', b'{"v":1}'):
        assert facts(Approval(world=approval_world(), document=document, allowed={"red": ["/a"]}), "R") == []


def test_what_an_approval_says_of_others_is_no_fact() -> None:
    approval = Approval(world=approval_world(), verdict={"inp": b'{"context":{"approvals":[1]}}'})
    assert [type(fact) for fact in facts(approval, "D A")] == [ApprovalRequested, ApprovalVerdict]
    approval = Approval(world=approval_world(), verdict={"inp": b"{}", "red": ["/context"]})
    assert [type(fact) for fact in facts(approval, "D A")] == [ApprovalRequested, ApprovalVerdict, ApprovalUsed]


def read(document: bytes) -> tuple[ApprovalEntry, ...]:
    """Read approvals with both verifiers."""
    found = agreed(lambda: approvals_of(document), lambda: independent.given_approvals(document))
    assert [one.record.hex() for one in found] == [one["record"] for one in independent.given_approvals(document)]
    return found


def given(*entries: object) -> bytes:
    return compact({"context": {"approvals": list(entries)}})


def test_entries_are_typed() -> None:
    entry = ApprovalEntry(
        "approve", "boss", "https://idp.example", "s", "c", "", 0, "2026-11-27T10:00:00Z", b"\xab" * 32, b"\xcd" * 32
    )
    assert read(given(ENTRY)) == (entry,)
    assert read(given(*[ENTRY] * 16)) == (entry,) * 16
    assert read(given(ENTRY).replace(b"approvals", b"\\u0061pprovals")) == (entry,)
    assert read(given(ENTRY | {"auth_time": 9_007_199_254})) == (entry._replace(auth_time=9_007_199_254),)
    assert read(given(ENTRY | {"verdict": "deny"})) == (entry._replace(verdict="deny"),)


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{}", b"\xff", b'{"context":{}}', b'{"context":1,"approvals":["\\u0061"]}', b'{"v":"\\u0061","context":null}',
        b'{"context":{"approvals":[]', given(), b'{"context":{"approvals":[ ]}}', b'{"approvals":[1]}',
    ],
)  # fmt: skip
def test_documents_without_approvals(document: bytes) -> None:
    assert read(document) == ()


@pytest.mark.parametrize(
    "document",
    [
        given(*[ENTRY] * 17), given({}), given(1), given(ENTRY, ENTRY | {"user": 1}, ENTRY), given(ENTRY | {"more": ""}),
        given({name: value for name, value in ENTRY.items() if name != "acr"}),
        *(given(ENTRY | {name: value}) for name, value in (
            ("verdict", "withdraw"), ("verdict", "approved"), ("verdict", "den"), ("verdict", "Approve"),
            ("verdict", None), ("user", 1), ("user", "x" * 257), ("user", "\ud800"), ("acr", "\n"),
            ("auth_time", -1), ("auth_time", True), ("auth_time", "0"), ("auth_time", 1.0),
            ("auth_time", 9_007_199_255), ("message", "AB" * 32),
            ("message", "ab" * 31), ("record", "xx" * 32), ("time", 0),
        )),
        b'{"context":{"approvals":{}}}', b'{"context":{"approvals":null}}', b'{"context":{"approvals":[', b'"approvals"',
        b'{"context":{"approvals":[]},"context":{"approvals":[]}}', b"\\u", b"\xff\\u",
    ],
)  # fmt: skip
def test_approvals_that_cannot_be_read(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"approval|JSON|decode|Expecting|twice|object"):
        read(document)


@pytest.mark.parametrize("action", ["inventory._Approve", "inventory._approve2", "inventory.approve"])
def test_another_action_says_nothing(action: str) -> None:
    said = facts(Approval(world=approval_world(), verdict={"act": action}), "D A")
    assert [type(fact) for fact in said] == [ApprovalRequested]


def test_what_takes_approvals_out() -> None:
    for pointer in ("/context", "/context/approvals", "/context/approvals/", "/context/approvals/3"):
        assert covers_approvals(pointer)
    for pointer in (
        "/contexts",
        "/Context",
        "/context/Approvals",
        "/context/Approvals/0",
        "/context/",
        "/context/user",
        "/context/approvals2",
        "/a/context",
        "/context~1approvals",
    ):
        assert not covers_approvals(pointer)
