"""The input document: complete, typed, exact bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.decision.documents import InputDocument, checked_document
from sealbus.policies.decision.request import (
    APPROVALS,
    NO_USER,
    Caller,
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
    caller=Caller(
        subject="spiffe://example.org/agent/planner",
        trust_domain="example.org",
        tenant="acme",
        user=User(
            id="u-1001", idp="https://idp", session="s", txn="t", client="c", scope=("read",), claims={"n": 1}, acr="1"
        ),
        chain=("spiffe://example.org/edge", "spiffe://example.org/agent/planner"),
        grant=("pricing.*",),
    ),
    action="inventory.update",
    properties={"quantity": 3},
    resource=Resource(type="item", id="42", properties={"owner": "u-1001", "customer": "acme"}),
    time=1_795_528_800_999_999,
    nats_subject="task.inventory.update",
    kind="task",
    message_id="00" * 16,
    delivery=2,
)

GIVEN = GivenApproval(
    verdict="approve", user="u-2", idp="https://idp", session="s-2", client="desk", acr="urn:x:2", auth_time=7,
    time=1_795_528_900_000_000, message=b"\x01" * 32, record=b"\xfe" * 32,
)  # fmt: skip


def changed(**changes: Any) -> Request:
    """Return `REQUEST` with changes, of which some are its caller's."""
    names = {one.name for one in fields(Caller)}
    caller = replace(REQUEST.caller, **{name: value for name, value in changes.items() if name in names})
    return replace(REQUEST, caller=caller, **{name: value for name, value in changes.items() if name not in names})


def document(**changes: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(input_document(changed(**changes))))


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
        caller=Caller(subject="s", trust_domain="t"),
        action="a",
        resource=Resource(type="none", id="none"),
        time=0,
        nats_subject="x",
        kind="call",
        message_id="m",
    )
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
    every: dict[str, Callable[[], dict[str, Any]]] = {
        "action.properties": lambda: {"properties": {"p": value}},
        "resource.properties": lambda: {"resource": Resource(type="t", id="i", properties={"p": value})},
        "context.user.claims": lambda: {"user": replace(NO_USER, claims={"p": value})},
    }
    with pytest.raises(PolicyFailed, match=why) as failed:
        changed(**every[where]())
    assert failed.value.code is Code.POLICY_ERROR
    assert failed.value.detail.startswith(f"{where}.p is or holds ")


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": None},
        {"tenant": 1},
        {"chain": ("a", None)},
        {"grant": (1,)},
        {"resource": Resource(type="t", id=cast("str", 1))},
        {"time": -1},
        {"time": 1.5},
        {"delivery": True},
        {"properties": {1: "a"}},
    ],
)
def test_types_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyFailed):
        changed(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": None},
        {"scope": (1,)},
        {"auth_time": None},
        {"auth_time": -1},
        {"present": 1},
        {"type": None},
        {"domain": None},
        {"claims": {1: "a"}},
    ],
)
def test_types_of_a_user_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyFailed):
        replace(REQUEST.caller.user, **changes)


UNAPPROVED = b',"approvals":[],"parked":{"since":"","revision":""}'


@pytest.mark.parametrize("grant", [None, (), ("pricing.*", "stock.look")])
@pytest.mark.parametrize(("user", "kind"), [(REQUEST.caller.user, "user"), (NO_USER, "")])
def test_a_recorded_document_gets_what_there_was_not_yet(user: User, kind: str, grant: tuple[str, ...] | None) -> None:
    whole = input_document(changed(user=user, grant=grant))
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
    whole = input_document(changed(user=replace(REQUEST.caller.user, claims=claims), resource=resource))
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


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.one_of(TEXTS, st.booleans(), st.integers(-(2**53 - 1), 2**53 - 1), st.lists(TEXTS, max_size=3))
PROPERTIES = st.dictionaries(TEXTS, VALUES, max_size=3)
USERS = st.builds(
    User,
    present=st.booleans(),
    **dict.fromkeys(("id", "idp", "session", "txn", "client", "acr", "type", "domain"), TEXTS),
    scope=st.lists(TEXTS, max_size=3).map(tuple),
    claims=PROPERTIES,
    auth_time=st.integers(0, 2**53 - 1),
)
CALLERS = st.builds(
    Caller,
    **dict.fromkeys(("subject", "trust_domain", "tenant"), TEXTS),
    user=USERS,
    chain=st.lists(TEXTS, max_size=3).map(tuple),
    grant=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
)
REQUESTS = st.builds(
    Request,
    caller=CALLERS,
    **dict.fromkeys(("action", "nats_subject", "kind", "message_id"), TEXTS),
    properties=PROPERTIES,
    resource=st.builds(Resource, type=TEXTS, id=TEXTS, properties=PROPERTIES),
    time=st.integers(0, 4 * 10**15),
    delivery=st.integers(1, 100),
    approvals=st.lists(
        st.builds(
            GivenApproval,
            verdict=st.just("deny"),
            user=TEXTS,
            idp=TEXTS,
            time=st.just(0),
            message=st.just(bytes(32)),
            record=st.just(bytes(32)),
        ),
        max_size=2,
    ).map(tuple),
    parked=st.builds(Parked, since=TEXTS, revision=TEXTS),
)


@given(REQUESTS)
def test_the_parts_make_one_document(request_: Request) -> None:
    """Each part stands at its place as if all had been written at once."""
    made = json.loads(input_document(request_))
    caller, user, context = request_.caller, request_.caller.user, made["context"]
    assert list(made) == ["v", "subject", "action", "resource", "context"]
    assert made["subject"] == {
        "type": "workload", "id": caller.subject, "properties": {"trust_domain": caller.trust_domain}
    }  # fmt: skip
    assert made["action"] == {"name": request_.action, "properties": request_.properties}
    resource = request_.resource
    assert made["resource"] == {"type": resource.type, "id": resource.id, "properties": resource.properties}
    assert list(context) == [
        "time", "subject", "kind", "message_id", "tenant", "delivery", "user", "chain", "grant", "approvals", "parked"
    ]  # fmt: skip
    told = (request_.nats_subject, request_.kind, request_.message_id, caller.tenant, request_.delivery)
    assert tuple(context.values())[:6] == (rfc3339(request_.time // 1_000_000), *told)
    assert context["user"] == {
        "present": user.present, "id": user.id, "idp": user.idp, "session": user.session, "txn": user.txn,
        "client": user.client, "scope": [*user.scope], "claims": user.claims, "acr": user.acr,
        "auth_time": user.auth_time, "type": user.type, "domain": user.domain,
    }  # fmt: skip
    assert context["chain"] == [*caller.chain]
    assert context["grant"] == {"limited": caller.grant is not None, "actions": [*(caller.grant or ())]}
    assert [one["user"] for one in context["approvals"]] == [one.user for one in request_.approvals]
    assert context["parked"] == {"since": request_.parked.since, "revision": request_.parked.revision}


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
