"""What the exit makes of requests to an MCP server outside: only tools that are named, each with what was said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.edge.egress.outside_tools import ToolRequests, manifest_of
from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.errors import ResourceNotFound
from sealbus.envelopes.limits import SECOND

SEARCH = {"name": "search", "description": "Search."}


class Time:
    now = 10**15

    def __call__(self) -> int:
        return self.now


def request(method: object, **params: Any) -> ApiRequest:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return ApiRequest(method="POST", path="/mcp", body=json.dumps(message).encode())


def answer(*tools: object, stream: bool = False, status: int = 200) -> ApiAnswer:
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}})
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    body = f": hello\r\nevent: message\r\ndata: {text}\r\n\r\n" if stream else text
    return ApiAnswer(status=status, headers=(("content-type", kind),), body=body.encode())


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_known_by_what_was_said_of_it_for_an_hour(stream: bool) -> None:
    clock = Time()
    tools = ToolRequests(["search"], clock)
    call = request("tools/call", name="search", arguments={})
    assert tools.properties(call) == {"call": "tools/call", "tool": "search", "manifest": ""}
    tools.answered(request("tools/list"), answer(SEARCH, stream=stream))
    assert tools.properties(call)["manifest"] == manifest_of(SEARCH)
    clock.now += 3_599 * SECOND
    assert tools.properties(call)["manifest"] == manifest_of(SEARCH)
    clock.now += SECOND
    assert tools.properties(call)["manifest"] == ""


def test_only_a_list_that_was_asked_for_and_given_counts() -> None:
    tools = ToolRequests(["*"], Time())
    call = request("tools/call", name="search", arguments={})
    tools.answered(request("tools/call", name="search"), answer(SEARCH))
    tools.answered(request("tools/list"), answer(SEARCH, status=500))
    listing = request("tools/list")
    for method in ("DELETE", "post", "POSTS", "POS"):
        tools.answered(listing.model_copy(update={"method": method}), answer(SEARCH))
    for name in ("tools/list2", "tools/lis", "TOOLS/LIST"):
        tools.answered(request(name), answer(SEARCH))
    assert tools.properties(call)["manifest"] == ""


def test_any_of_the_patterns_may_name_it() -> None:
    for name in ("first", "second", "third"):
        tools = ToolRequests(["first", "sec*", "third"], Time())
        assert tools.properties(request("tools/call", name=name))["tool"] == name


def test_what_only_begins_like_a_stream_is_one_message() -> None:
    tools = ToolRequests(["*"], Time())
    said = answer(SEARCH).model_copy(update={"headers": (("content-type", "text/event-stream2"),)})
    tools.answered(request("tools/list"), said)
    assert tools.properties(request("tools/call", name="search"))["manifest"] == manifest_of(SEARCH)


@pytest.mark.parametrize(
    "method",
    [
        *("resources/read", "prompts/get", "sampling/createMessage", "tasks/get", "completion/complete", ""),
        *("tools/CALL", "tools/call2", "tools/cal", "Tools/List", "tools/list2", "tools/lis"),
        *("PING", "pings", "pin", "initialized", "Initialize"),
        *(None, 7, ["tools/list"], {"tools/list": "tools/list"}),
    ],
)
def test_other_methods_are_not_there(method: object) -> None:
    with pytest.raises(ResourceNotFound):
        ToolRequests(["*"], Time()).properties(request(method, name="search"))


@pytest.mark.parametrize("name", ["erase", "", "Search", "search\n", None, 7, ["search"]])
def test_a_tool_that_is_not_named_is_not_there(name: object) -> None:
    with pytest.raises(ResourceNotFound):
        ToolRequests(["search", "read_*"], Time()).properties(request("tools/call", name=name))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"tools/list"', b"[" * 100_000, b"\xff", b'[{"method": "tools/list"}]'],
    ids=["nothing", "batch", "null", "text", "deep", "no text", "batch of one"],
)
def test_what_is_no_one_message_is_not_there(body: bytes) -> None:
    with pytest.raises(ResourceNotFound):
        ToolRequests(["*"], Time()).properties(ApiRequest(method="POST", path="/mcp", body=body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"method": "tools/call", "params": {"name": "erase", "name": "search"}}',
        b'{"method": "ping", "method": "tools/call", "params": {"name": "search"}}',
        b'{"method": "tools/call", "params": {"name": "erase"}, "params": {"name": "search"}}',
    ],
)
def test_a_message_that_two_readers_could_read_as_two_is_not_there(body: bytes) -> None:
    with pytest.raises(ResourceNotFound):
        ToolRequests(["search"], Time()).properties(ApiRequest(method="POST", path="/mcp", body=body))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(values, max_size=5), st.booleans())
def test_whatever_a_server_says_of_its_tools_is_taken(said: list[object], stream: bool) -> None:
    tools = ToolRequests(["*"], Time())
    tools.answered(request("tools/list"), answer(*said, SEARCH, stream=stream))
    assert tools.properties(request("tools/call", name="search"))["manifest"] == manifest_of(SEARCH)


@given(st.binary(max_size=200), st.sampled_from(["text/event-stream", "application/json", "", "x"]))
def test_whatever_a_server_answers_is_taken(body: bytes, kind: str) -> None:
    tools = ToolRequests(["*"], Time())
    tools.answered(request("tools/list"), ApiAnswer(status=200, headers=(("content-type", kind),), body=body))


def test_a_server_with_too_many_tools_fills_no_memory() -> None:
    tools = ToolRequests(["*"], Time())
    tools.answered(request("tools/list"), answer(*({"name": f"t{n}"} for n in range(1_500))))
    known = [tools.properties(request("tools/call", name=f"t{n}"))["manifest"] != "" for n in range(1_500)]
    assert known == [True] * 1_000 + [False] * 500
    tools.answered(request("tools/list"), answer({"name": "T1"}, {"name": "t1", "description": "anew"}))
    assert tools.properties(request("tools/call", name="T1"))["manifest"] == ""
    again = tools.properties(request("tools/call", name="t1"))["manifest"]
    assert again == manifest_of({"name": "t1", "description": "anew"})


def test_a_name_as_no_tool_has_it_is_not_kept() -> None:
    tools = ToolRequests(["*"], Time())
    for name, known in (("x" * 128, True), ("x" * 129, False), ("", True), ("a\nb", False), ("a\ud800", False)):
        tools.answered(request("tools/list"), answer({"name": name}))
        assert bool(tools.properties(request("tools/call", name=name))["manifest"]) is known


@pytest.mark.parametrize("method", ["delete", "DELET", "DELETED", "Delete"])
def test_only_a_session_that_ends_needs_no_message(method: str) -> None:
    body = request("tools/call", name="erase").body
    tools = ToolRequests(["search"], Time())
    assert tools.properties(ApiRequest(method="DELETE", path="/mcp", body=body))["tool"] == ""
    with pytest.raises(ResourceNotFound):
        tools.properties(ApiRequest(method=method, path="/mcp", body=body))
