"""The conformance suite of MCP against an edge: what passes, and why the rest cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.conformance_agent import agent
from support.mcp_conformance import conformance
from support.mcp_desk import mcp_desk
from support.ports import held_port

pytestmark = [pytest.mark.idp, pytest.mark.slow]

PASS = {
    "dns-rebinding-protection",
    "ping",
    "server-initialize",
    "server-sse-multiple-streams",
    "tools-call-error",
    "tools-call-simple-text",
    "tools-call-with-progress",
    "tools-list",
}
NO_RESOURCES = "an action is a tool: there are no resources, prompts and completions"
NO_CONTENT = "an action's result is data: it has no images, sounds and embedded resources of a shape that a test names"
NO_QUESTIONS = "a handler asks its client nothing: the only question is about an approval, and takes no answer as one"
FAIL = {
    "completion-complete": NO_RESOURCES,
    "prompts-get-embedded-resource": NO_RESOURCES,
    "prompts-get-simple": NO_RESOURCES,
    "prompts-get-with-args": NO_RESOURCES,
    "prompts-get-with-image": NO_RESOURCES,
    "prompts-list": NO_RESOURCES,
    "resources-list": NO_RESOURCES,
    "resources-read-binary": NO_RESOURCES,
    "resources-read-text": NO_RESOURCES,
    "resources-subscribe": NO_RESOURCES,
    "resources-templates-read": NO_RESOURCES,
    "resources-unsubscribe": NO_RESOURCES,
    "tools-call-audio": NO_CONTENT,
    "tools-call-embedded-resource": NO_CONTENT,
    "tools-call-image": NO_CONTENT,
    "tools-call-mixed-content": NO_CONTENT,
    "elicitation-sep1034-defaults": NO_QUESTIONS,
    "elicitation-sep1330-enums": NO_QUESTIONS,
    "tools-call-elicitation": NO_QUESTIONS,
    "tools-call-sampling": NO_QUESTIONS,
    "logging-set-level": "nothing of an agent's log goes to a client",
    "tools-call-with-logging": "nothing of an agent's log goes to a client",
}
"""Each scenario that fails, with the reason."""


async def test_what_can_be_a_tool_conforms(tmp_path: Path) -> None:
    port = held_port()
    limits = {"user_rate": 1e6, "user_burst": 10**6, "client_rate": 1e6, "client_burst": 10**6, "address_burst": 10**6}
    async with mcp_desk(tmp_path, agent, limits=limits, cors=(f"http://127.0.0.1:{port}",)) as desk:
        found = await conformance(desk, port)
    failed = {name for name, (_, failures) in found.items() if failures}
    assert found.keys() - failed == PASS
    assert failed == FAIL.keys()
