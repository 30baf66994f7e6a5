"""The input document: complete, typed, exact bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.request import (
    APPROVALS,
    NO_USER,
    GivenApproval,
    Parked,
    Request,
    Resource,
    User,
    completed_document,
    input_document,
    rfc3339,
)

REQUEST = Request(
    subject="spiffe://example.org/agent/planner",
    trust_domain="example.org",
    action="inventory.update",
    properties={"quantity": 3},
    resource=Resource(type="item", id="42", properties={"owner": "u-1001", "customer": "acme"}),
    time=1_795_528_800_999_999,
    nats_subject="task.inventory.update",
    kind="task",
    message_id="00" * 16,
    tenant="acme",
    delivery=2,
    user=User(
        id="u-1001", idp="https://idp", session="s", txn="t", client="c", scope=("read",), claims={"n": 1}, acr="1"
    ),
    chain=("spiffe://example.org/edge", "spiffe://example.org/agent/planner"),
    grant=("pricing.*",),
)

GIVEN = GivenApproval(
    verdict="approve", user="u-2", idp="https://idp", session="s-2", client="desk", acr="urn:x:2", auth_time=7,
    time=1_795_528_900_000_000, message=b"\x01" * 32, record=b"\xfe" * 32,
)  # fmt: skip


def document(**changes: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(input_document(replace(REQUEST, **changes))))


def test_the_document_is_the_one_of_the_design() -> None:
    assert document() == {
        "v": 1,
        "subject": {
            "type": "workload",
            "id": "spiffe://example.org/agent/planner",
            "properties": {"trust_domain": "example.org"},
        },
        "action": {"name": "inventory.update", "properties": {"quantity": 3}},
        "resource": {"type": "item", "id": "42", "properties": {"customer": "acme", "owner": "u-1001"}},
        "context": {
            "time": "2026-11-24T14:00:00Z",
            "subject": "task.inventory.update",
            "kind": "task",
            "message_id": "00" * 16,
            "tenant": "acme",
            "delivery": 2,
            "user": {
                "present": True,
                "id": "u-1001",
                "idp": "https://idp",
                "session": "s",
                "txn": "t",
                "client": "c",
                "scope": ["read"],
                "claims": {"n": 1},
                "acr": "1",
                "auth_time": 0,
                "type": "user",
                "domain": "",
            },
            "chain": ["spiffe://example.org/edge", "spiffe://example.org/agent/planner"],
            "grant": {"limited": True, "actions": ["pricing.*"]},
            "approvals": [],
            "parked": {"since": "", "revision": ""},
        },
    }


def test_absent_things_are_empty_and_there() -> None:
    bare = Request(
        subject="s", trust_domain="t", action="a", resource=Resource(type="none", id="none"), time=0,
        nats_subject="x", kind="call", message_id="m",
    )  # fmt: skip
    context = json.loads(input_document(bare))["context"]
    assert context["user"].keys() == document()["context"]["user"].keys()
    assert context["user"] == {
        "present": False, "id": "", "idp": "", "session": "", "txn": "", "client": "", "scope": [], "claims": {},
        "acr": "", "auth_time": 0, "type": "", "domain": "",
    }  # fmt: skip
    assert context["grant"] == {"limited": False, "actions": []}
    assert (context["tenant"], context["delivery"], context["chain"]) == ("", 1, [])


def test_a_message_that_waited_says_who_approved_and_since_when() -> None:
    other = replace(GIVEN, verdict="deny", session="", client="", acr="", auth_time=0)
    found = document(approvals=(GIVEN, other), parked=Parked(since="2026-11-24T14:00:00Z", revision="r1"))["context"]
    said = {
        "verdict": "approve", "user": "u-2", "idp": "https://idp", "session": "s-2", "client": "desk",
        "acr": "urn:x:2", "auth_time": 7, "time": "2026-11-24T14:01:40Z", "message": "01" * 32, "record": "fe" * 32,
    }  # fmt: skip
    assert found["approvals"] == [
        said,
        {**said, "verdict": "deny", "session": "", "client": "", "acr": "", "auth_time": 0},
    ]
    assert list(found["approvals"][0]) == list(said)
    assert found["parked"] == {"since": "2026-11-24T14:00:00Z", "revision": "r1"}
    assert list(found)[-3:] == ["grant", "approvals", "parked"]


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": "withdraw"},
        {"verdict": True},
        *({name: None} for name in ("user", "idp", "session", "client", "acr", "auth_time", "time")),
        {"auth_time": True},
        {"time": -1},
        {"time": 2**53},
        {"message": b"\x01" * 31},
        {"record": "01" * 16},
    ],
)
def test_an_approval_is_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyFailed):
        replace(GIVEN, **changes)


def test_what_waited_is_checked() -> None:
    assert len(document(approvals=(GIVEN,) * APPROVALS)["context"]["approvals"]) == 16
    with pytest.raises(PolicyFailed, match="at most 16"):
        replace(REQUEST, approvals=(GIVEN,) * (APPROVALS + 1))
    with pytest.raises(PolicyFailed, match="GivenApproval"):
        replace(REQUEST, approvals=cast("Any", ({"verdict": "approve"},)))
    with pytest.raises(PolicyFailed, match="texts"):
        Parked(since=cast("str", 1))
    with pytest.raises(PolicyFailed, match="texts"):
        Parked(revision=cast("str", None))
    with pytest.raises(PolicyFailed, match="no Parked"):
        replace(REQUEST, parked=cast("Any", None))


def test_a_grant_of_nothing_is_limited() -> None:
    assert document(grant=())["context"]["grant"] == {"limited": True, "actions": []}


def test_bytes_are_compact_utf8_and_equal_for_equal_requests() -> None:
    one = input_document(replace(REQUEST, properties={"b": "ü☃", "a": 'q"\n'}))
    other = input_document(replace(REQUEST, properties={"a": 'q"\n', "b": "ü☃"}))
    assert one == other
    assert '{"a":"q\\"\\n","b":"ü☃"}' in one.decode()
    assert isinstance(one, InputDocument)
    assert checked_document(bytes(one)) == one


@pytest.mark.parametrize(
    "value", ["", "text", True, False, 0, -(2**53 - 1), 2**53 - 1, ["a", 1, True], ("a",), [], "a\x00b"]
)
def test_values_of_properties_and_claims(value: object) -> None:
    found = document(properties={"p": value}, user=replace(NO_USER, claims={"p": value}))
    expected = list(value) if isinstance(value, tuple) else value
    assert found["action"]["properties"] == {"p": expected}
    assert found["context"]["user"]["claims"] == {"p": expected}
    resource = Resource(type="t", id="i", properties={"p": value})
    assert document(resource=resource)["resource"]["properties"] == {"p": expected}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null"),
        (1.5, "a float"),
        (1.0, "a float"),
        (2**53, "beyond"),
        (-(2**53), "beyond"),
        ({"a": 1}, "a dict"),
        ([["a"]], "a list"),
        ([None], "null"),
        ([1.5], "a float"),
        (b"bytes", "a bytes"),
        ({1}, "a set"),
    ],
)
@pytest.mark.parametrize("where", ["action.properties", "resource.properties", "context.user.claims"])
def test_values_that_the_engines_would_not_read_alike(value: object, why: str, where: str) -> None:
    every: dict[str, dict[str, Any]] = {
        "action.properties": {"properties": {"p": value}},
        "resource.properties": {"resource": Resource(type="t", id="i", properties={"p": value})},
        "context.user.claims": {"user": replace(NO_USER, claims={"p": value})},
    }
    changes = every[where]
    with pytest.raises(PolicyFailed, match=why) as failed:
        replace(REQUEST, **changes)
    assert failed.value.code is Code.POLICY_ERROR
    assert failed.value.detail.startswith(f"{where}.p is or holds ")


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": None},
        {"tenant": 1},
        {"chain": ("a", None)},
        {"grant": (1,)},
        {"user": User(id=cast("str", None))},
        {"user": User(scope=(cast("str", 1),))},
        {"resource": Resource(type="t", id=cast("str", 1))},
        {"time": -1},
        {"time": 1.5},
        {"delivery": True},
        {"user": User(auth_time=cast("int", None))},
        {"user": User(present=cast("bool", 1))},
        {"user": User(type=cast("str", None))},
        {"user": User(domain=cast("str", None))},
        {"properties": {1: "a"}},
    ],
)
def test_types_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyFailed):
        replace(REQUEST, **changes)


UNAPPROVED = b',"approvals":[],"parked":{"since":"","revision":""}'


@pytest.mark.parametrize("grant", [None, (), ("pricing.*", "stock.look")])
@pytest.mark.parametrize(("user", "kind"), [(REQUEST.user, "user"), (NO_USER, "")])
def test_a_recorded_document_gets_what_there_was_not_yet(user: User, kind: str, grant: tuple[str, ...] | None) -> None:
    whole = input_document(replace(REQUEST, user=user, grant=grant))
    assert completed_document(whole) == whole
    untyped = f',"type":"{kind}","domain":""'.encode()
    for added in ((untyped,), (UNAPPROVED,), (untyped, UNAPPROVED)):
        old = bytes(whole)
        for one in added:
            assert old.count(one) == 1
            old = old.replace(one, b"")
        assert completed_document(checked_document(old)) == whole


def test_nothing_that_looks_like_an_end_is_completed() -> None:
    text = '"auth_time":5},"chain":['
    end = '"grant":{"limited":true,"actions":[]}}}'
    claims = {"auth_time": 5, "chain": "x", text: text, end: end}
    resource = Resource(type="t", id=text, properties=claims)
    whole = input_document(replace(REQUEST, user=replace(REQUEST.user, claims=claims), resource=resource))
    assert completed_document(whole) == whole
    parked = input_document(replace(REQUEST, parked=Parked(since="", revision=end)))
    assert completed_document(parked) == parked
    approved = input_document(replace(REQUEST, approvals=(GIVEN,)))
    assert completed_document(approved) == approved


def test_a_document_inside_another_is_left_as_it_is() -> None:
    whole = bytes(input_document(REQUEST))
    question = b'%b,"of":%b}' % (whole[:-1], whole.replace(UNAPPROVED, b""))
    assert completed_document(checked_document(question)) == question


def test_a_recorded_document_does_not_become_too_long() -> None:
    untyped = b',"type":"user","domain":""'
    for added in ((untyped,), (UNAPPROVED,), (untyped, UNAPPROVED)):
        old = bytes(input_document(REQUEST))
        for one in added:
            old = old.replace(one, b"")
        room = sum(map(len, added))
        for length, completed in ((65_536 - room, True), (65_536 - room + 1, False)):
            long = checked_document(old.replace(b'"u-1001"', b'"' + b"x" * (length - len(old) + 6) + b'"', 1))
            assert len(long) == length
            assert (completed_document(long) != long) is completed


def test_half_a_character() -> None:
    with pytest.raises(PolicyFailed, match="not Unicode"):
        input_document(replace(REQUEST, properties={"p": "\ud800"}))


def test_size() -> None:
    room = 65_536 - len(input_document(replace(REQUEST, properties={"p": ""})))
    assert len(input_document(replace(REQUEST, properties={"p": "x" * room}))) == 65_536
    with pytest.raises(PolicyFailed, match="65537 bytes"):
        input_document(replace(REQUEST, properties={"p": "x" * (room + 1)}))


def test_time() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(253_402_300_799) == "9999-12-31T23:59:59Z"
    with pytest.raises(PolicyFailed, match="9999"):
        rfc3339(253_402_300_800)
