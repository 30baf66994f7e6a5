"""The types of questions are those of the documents that are made, part by part."""

from __future__ import annotations

import json

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.message.declaration import Declaration
from sealbus.policies.decision.approval import approval_question
from sealbus.policies.decision.connect import ConnectRequest, OwnSubjectFacts, connect_document
from sealbus.policies.decision.request import Caller, GivenApproval, Request, Resource, User, input_document
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.questions import APPROVAL_REQUEST, CONNECT_REQUEST, REQUEST, batch_of
from sealbus.policies.types.value import Type

PROPERTIES = {"text": "a", "number": 1, "boolean": True, "list": ["a", 1, False], "empty": []}
TYPES = DataTypes({}, [])
DECLARED = Declaration.of(model="m", prompt="p", tools="t")


def missing(value: Json, one: Type, path: str = "") -> list[str]:
    """Return the parts of `value` that are not of the type, and the fields of the type that the value has not."""
    name = DataTypes({"v": value}, [()]).at(("v",)).names
    if not name <= one.names:
        return [path]
    found: list[str] = []
    if isinstance(value, dict):
        for key, below in value.items():
            found += missing(below, TYPES.field(one, key), f"{path}.{key}")
        found += [f"{path}.{key} is gone" for key, _ in one.fields if key not in value]
    if isinstance(value, list):
        for below in value:
            found += missing(below, TYPES.items(one), f"{path}[]")
    return found


def test_a_request_is_of_its_type() -> None:
    request = Request(
        caller=Caller(
            subject="spiffe://example.org/agent/a",
            trust_domain="example.org",
            declared=DECLARED,
            user=User(scope=("a",), claims=PROPERTIES),
            chain=("spiffe://example.org/agent/a",),
            grant=("a.b",),
        ),
        action="a.b",
        properties=PROPERTIES,
        resource=Resource(type="t", id="1", properties=PROPERTIES),
        time=2**53 - 1,
        nats_subject="task.a.b",
        kind="task",
        message_id="0",
        approvals=(GivenApproval(verdict="deny", user="u", idp="i", time=0, message=bytes(32), record=bytes(32)),),
    )
    document = json.loads(input_document(request))
    assert missing(document, REQUEST) == []
    assert missing({**document, "batch": [document]}, batch_of(REQUEST)) == []
    assert missing({**document, "v": "1"}, REQUEST) == [".v"]
    assert missing({**document, "more": "1"}, REQUEST) == [".more"]


def test_a_question_of_approval_is_of_its_type() -> None:
    request = Request(
        caller=Caller(subject="s", trust_domain="example.org", declared=DECLARED),
        action="a._approve",
        resource=Resource(type="task", id="1"),
        time=1,
        nats_subject="control.a.approve",
        kind="task",
        message_id="0",
        approvals=(GivenApproval(verdict="deny", user="u", idp="i", time=0, message=bytes(32), record=bytes(32)),),
    )
    document = input_document(request)
    question = approval_question(document, of=document, obligation=b'{"queue":"q","acr":["x"],"max_age":1,"body":true}')
    assert missing(json.loads(question), APPROVAL_REQUEST) == []
    assert missing({**json.loads(question), "of": {}}, APPROVAL_REQUEST) != []


def test_a_connection_is_of_its_type() -> None:
    own = OwnSubjectFacts(subject="s", kind="task", owner="o", action="a.b", durable="d")
    request = ConnectRequest(
        subject="s", trust_domain="example.org", token="t", server="N", server_name="n", time=1, not_after=2, own=[own]
    )
    assert missing(json.loads(connect_document(request)), CONNECT_REQUEST) == []
