"""Scenes in which people's programs speak another protocol: the same agents, decisions and records stand behind it."""

from __future__ import annotations

from typing import Any, Final

from sealbus.agents.dev.demo.people import allowed, denied, outcome_of
from sealbus.agents.dev.demo.scene import ALLOW, DENY, Outcome, Play, Scene
from sealbus.agents.dev.demo.stage import Stage
from sealbus.envelopes.records.decision import DecisionRecord

__all__ = ["ASSISTANTS"]

_ASSISTANT: Final = "an assistant on a desktop, by MCP"


def _tool(user: str, name: str, arguments: dict[str, Any]) -> Play:
    """Call a tool for `user`, and check that its answer and the recorded decision agree, and say through which door."""

    async def run(stage: Stage) -> Outcome:
        answer, txn = await stage.door.tool(name, arguments, stage.door.token(user))
        found = await stage.decision(
            lambda one: one.txn is not None and one.txn.hex() == txn and one.input.get("action") is not None
        )
        context: Any = found.input["context"]
        if context["user"]["claims"].get("door") != "mcp" or not isinstance(found.record, DecisionRecord):
            return Outcome(got="error", code="door")
        outcome = outcome_of(found.record)
        if (outcome.got == DENY) is not bool(answer.get("isError")):
            return Outcome(got="error", code="answer")
        if outcome.got == ALLOW and answer["structuredContent"]["item_id"] != arguments["item_id"]:
            return Outcome(got="error", code="answer")
        return outcome

    return run


ASSISTANTS: Final = (
    Scene(
        name="a tool is called",
        who=_ASSISTANT, user="alice", what="the tool inventory_read about item 42, which is hers",
        expected=allowed(), play=_tool("alice", "inventory_read", {"item_id": "42"}), door="mcp",
    ),
    Scene(
        name="the same by another user",
        who=_ASSISTANT, user="dave", what="the tool inventory_read about item 42, which is alice's",
        expected=denied("not_owner"), play=_tool("dave", "inventory_read", {"item_id": "42"}), door="mcp",
    ),
)  # fmt: skip
