"""What a client says that it can do decides how its person may be asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import mcp_types as types
import pytest
from starlette.requests import Request

from sealbus.agents.edge.mcp.client_request import TASKS, TOKEN, Caller, Context


def context(capabilities: dict[str, Any] | None, version: str = "2026-07-28", request: Any = None) -> Context:
    said = types.ClientCapabilities.model_validate(capabilities) if capabilities is not None else None
    scope = {"type": "http", TOKEN: "token"}
    found = SimpleNamespace(
        request=request or Request(scope),
        protocol_version=version,
        session=SimpleNamespace(client_capabilities=said),
    )
    return cast("Context", found)


@pytest.mark.parametrize(
    ("capabilities", "form", "url", "tasks"),
    [
        (None, False, False, False),
        ({}, False, False, False),
        ({"elicitation": {}}, True, False, False),
        ({"elicitation": {"form": {}}}, True, False, False),
        ({"elicitation": {"url": {}}}, False, True, False),
        ({"elicitation": {"form": {}, "url": {}}}, True, True, False),
        ({"extensions": {TASKS: {}}}, False, False, True),
        ({"extensions": {"io.modelcontextprotocol/ui": {}}}, False, False, False),
        ({"extensions": {TASKS[:-1]: {}}}, False, False, False),
        ({"extensions": {f"{TASKS}/x": {}}}, False, False, False),
        ({"extensions": {TASKS.upper(): {}}}, False, False, False),
    ],
)
def test_nobody_is_asked_in_a_way_that_was_not_declared(
    capabilities: dict[str, Any] | None, form: bool, url: bool, tasks: bool
) -> None:
    caller = Caller.of(context(capabilities))
    assert (caller.form, caller.url, caller.tasks) == (form, url, tasks)


@pytest.mark.parametrize(
    ("version", "modern"), [("2026-07-28", True), ("2025-11-25", False), ("2025-03-26", False), ("2026-07-2", False)]
)
def test_the_generation_is_that_of_the_request(version: str, modern: bool) -> None:
    assert Caller.of(context({}, version)).modern is modern


def test_a_message_that_came_without_a_request_of_ours_is_nobodys() -> None:
    with pytest.raises(TypeError):
        Caller.of(context({}, request="none"))
