"""Scenes in which people's programs speak another protocol: the agents, decisions and records are the same."""

from __future__ import annotations

from typing import Any, Final

from sealbus.agents.dev.demo.people import allowed, decision_of, denied, outcome_of
from sealbus.agents.dev.demo.scene import ALLOW, DENY, Outcome, Play, Scene
from sealbus.agents.dev.demo.stage import Stage

_ASSISTANT: Final = "an assistant on a desktop, by MCP"
_PARTNER: Final = "a partner's agent, by A2A"


async def _decided(stage: Stage, txn: str, door: str) -> Outcome:
    """Wait for the decision on a request, and return its outcome; it must name the door of the request."""
    entry = await stage.decision(
        lambda candidate: (
            candidate.txn is not None and candidate.txn.hex() == txn and candidate.input.get("action") is not None
        )
    )
    context: Any = entry.input["context"]
    if context["user"]["claims"].get("door") != door:
        return Outcome(got="error", code="door")
    return outcome_of(decision_of(entry))


def _tool(user: str, name: str, arguments: dict[str, Any]) -> Play:
    """Call a tool for `user`, and check that its answer and the recorded decision agree."""

    async def run(stage: Stage) -> Outcome:
        answer, txn = await stage.door.tool(name, arguments, stage.door.token(user))
        outcome = await _decided(stage, txn, "mcp")
        if (outcome.got == DENY) is not bool(answer.get("isError")):
            return Outcome(got="error", code="answer")
        if outcome.got == ALLOW and answer["structuredContent"]["item_id"] != arguments["item_id"]:
            return Outcome(got="error", code="answer")
        return outcome

    return run


def _skill(user: str, skill: str, data: dict[str, Any]) -> Play:
    """Send a message that requests a skill for `user`, and check that its answer and the recorded decision agree."""

    async def run(stage: Stage) -> Outcome:
        answer, txn = await stage.door.message(skill, data, stage.door.token(user))
        outcome = await _decided(stage, txn, "a2a")
        parts = answer.get("result", {}).get("message", {}).get("parts", [])
        if [part["data"]["item_id"] for part in parts] != ([data["item_id"]] if outcome.got == ALLOW else []):
            return Outcome(got="error", code="answer")
        return outcome

    return run


ASSISTANTS: Final = (
    Scene(
        name="a tool is called",
        actor=_ASSISTANT, user="alice", attempt="the tool inventory_read about item 42, which is hers",
        expected=allowed(), play=_tool("alice", "inventory_read", {"item_id": "42"}), door="mcp",
    ),
    Scene(
        name="a tool is talked into more",
        actor=_ASSISTANT, user="alice", attempt="the tool inventory_read about item 77, which is carol's",
        expected=denied("not_owner"), play=_tool("alice", "inventory_read", {"item_id": "77"}), door="mcp",
    ),
    Scene(
        name="a message asks for a skill",
        actor=_PARTNER, user="alice", attempt="the skill inventory.read about item 42, which is hers",
        expected=allowed(), play=_skill("alice", "inventory.read", {"item_id": "42"}), door="a2a",
    ),
)  # fmt: skip
