"""A desk that looks customers up at an API outside, and the starter policy with what it takes to be allowed that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sealbus import Agent, Context
from sealbus.agents.dev.environment import starter_policy

__all__ = ["DESK", "Customer", "Look", "desk_policy"]

DESK = Agent("desk")


class Look(BaseModel):
    customer: str
    api: str = "crm"


class Customer(BaseModel):
    status: int
    text: str


@DESK.call("look")
async def look(body: Look, ctx: Context) -> Customer:
    """Look a customer up for the user of the message."""
    found = await ctx.http(body.api, timeout=20).get(f"/customers/{body.customer}")
    return Customer(status=found.status_code, text=found.text)


def desk_policy(folder: Path, *apis: str) -> Path:
    """Write the starter policy to `folder`, in which `alice` may see customer 42 through the desk and `apis`; return it."""
    shutil.copytree(starter_policy(), folder)
    registry = folder / "sealbus" / "registry"
    action = {"user": "required", "resource": "any", "limits": {}, "hours": False}
    _change(registry / "actions" / "data.json", {"desk.look": action, "desk.look.reply": {**action, "user": "none"}})
    desk: dict[str, bool] = {"desk.look.reply": True}
    answers: dict[str, bool] = {}
    for api in apis:
        _change(
            registry / "actions" / "data.json",
            {f"exit.{api}": {**action, "resource": "owned"}, f"exit.{api}.reply": {**action, "user": "none"}},
        )
        desk[f"exit.{api}"] = answers[f"exit.{api}.reply"] = True
    agents = json.loads((registry / "agents" / "data.json").read_text())
    for caller in ("edge", "agent/shop-web"):
        agents[f"spiffe://example.org/{caller}"]["actions"]["desk.look"] = True
    agents |= {
        "spiffe://example.org/agent/desk": {"actions": desk},
        "spiffe://example.org/agent/exit": {"actions": answers},
    }
    (registry / "agents" / "data.json").write_text(json.dumps(agents))
    _change(registry / "users" / "data.json", {"alice": {"customers": {"42": True}}})
    return folder


def _change(file: Path, more: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
