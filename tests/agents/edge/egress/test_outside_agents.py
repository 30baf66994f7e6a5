"""What the exit makes of requests to an A2A agent outside: few methods, each with what its card said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.egress.outside_agents import AgentRequests
from sealbus.agents.edge.egress.outside_tools import manifest_of
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.errors import ResourceNotFound
from sealbus.envelopes.limits import SECOND

CARD = "/card.json"
SAID = {"name": "partner", "skills": [{"id": "a"}]}
SENDING: dict[str, Any] = {"message": {"parts": []}}


class Time:
    now = 10**15

    def __call__(self) -> int:
        return self.now


def request(method: object, params: object = SENDING, *, http: str = "POST") -> ApiRequest:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return ApiRequest(method=http, path="/rpc", body=json.dumps(message).encode())


def card(path: str = CARD, method: str = "GET") -> ApiRequest:
    return ApiRequest(method=method, path=path)


def answer(said: object = SAID, status: int = 200) -> ApiAnswer:
    return ApiAnswer(status=status, body=json.dumps(said).encode())


def test_an_agent_is_known_by_its_card_for_an_hour() -> None:
    clock = Time()
    agent = AgentRequests(CARD, clock)
    assert agent.properties(card()) == {"call": "card", "manifest": ""}
    assert agent.properties(request("SendMessage")) == {"call": "SendMessage", "manifest": ""}
    agent.answered(card(), answer())
    assert agent.properties(card()) == {"call": "card", "manifest": ""}
    for method in ("SendMessage", "GetTask", "CancelTask"):
        assert agent.properties(request(method)) == {"call": method, "manifest": manifest_of(SAID)}
    clock.now += 3_599 * SECOND
    assert agent.properties(request("GetTask"))["manifest"] == manifest_of(SAID)
    clock.now += SECOND
    assert agent.properties(request("GetTask"))["manifest"] == ""


@pytest.mark.parametrize("said", [b"", b"[]", b"null", b'{"name": "a", "name": "b"}', b"[" * 100_000, b"\xff"])
def test_of_what_is_no_card_nothing_is_known_any_more(said: bytes) -> None:
    agent = AgentRequests(CARD, Time())
    agent.answered(card(), answer())
    agent.answered(card(), ApiAnswer(status=200, body=said))
    assert agent.properties(request("SendMessage"))["manifest"] == ""


def test_only_a_card_that_was_asked_for_and_given_counts() -> None:
    agent = AgentRequests(CARD, Time())
    paths = [card(path) for path in ("/card.json2", "/card.jso", "/CARD.JSON", "/Card.json")]
    for asked in (*paths, *(card(method=one) for one in ("POST", "get", "GE", "GETS")), request("GetTask")):
        agent.answered(asked, answer())
    for status in (201, 304, 404, 500):
        agent.answered(card(), answer(status=status))
    assert agent.properties(request("SendMessage"))["manifest"] == ""


@pytest.mark.parametrize(
    "method",
    [
        *("SendStreamingMessage", "SubscribeToTask", "ListTasks", "GetExtendedAgentCard", "message/send", "", None, 7),
        *("CreateTaskPushNotificationConfig", "sendMessage", "SendMessage ", "SendMessages", ["SendMessage"]),
    ],
)
def test_other_methods_are_not_there(method: object) -> None:
    with pytest.raises(ResourceNotFound):
        AgentRequests(CARD, Time()).properties(request(method))


@pytest.mark.parametrize("http", ["GET", "DELETE", "PUT", "post", "POS", "POSTS"])
def test_only_json_rpc_is_there(http: str) -> None:
    with pytest.raises(ResourceNotFound):
        AgentRequests(CARD, Time()).properties(request("SendMessage", http=http))


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        "message",
        {**SENDING, "configuration": None},
        {**SENDING, "configuration": []},
        {**SENDING, "configuration": {"taskPushNotificationConfig": {"url": "https://a.example"}}},
        {**SENDING, "configuration": {"task_push_notification_config": {}}},
        {**SENDING, "configuration": {"pushNotificationConfig": None}},
        {**SENDING, "configuration": {"returnImmediately": True, "pushNotificationConfig": {}}},
        {**SENDING, "configuration": {"taskPushNotificationConfig": {}, "returnImmediately": True}},
    ],
)
def test_nobody_else_is_told_of_answers(params: object) -> None:
    with pytest.raises(ResourceNotFound):
        AgentRequests(CARD, Time()).properties(request("SendMessage", params))


def test_other_configuration_passes() -> None:
    said: dict[str, Any] = {
        **SENDING,
        "configuration": {"acceptedOutputModes": ["text/plain"], "returnImmediately": True},
    }
    assert AgentRequests(CARD, Time()).properties(request("SendMessage", said))["call"] == "SendMessage"


def test_a_message_that_two_readers_could_read_as_two_is_not_there() -> None:
    body = b'{"method": "GetTask", "method": "SendMessage", "params": {}}'
    with pytest.raises(ResourceNotFound):
        AgentRequests(CARD, Time()).properties(ApiRequest(method="POST", path="/rpc", body=body))


@given(st.binary(max_size=200), st.integers(100, 599))
def test_whatever_an_agent_answers_is_taken(body: bytes, status: int) -> None:
    AgentRequests(CARD, Time()).answered(card(), ApiAnswer(status=status, body=body))
