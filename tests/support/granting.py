"""An edge whose users have things done later, and an agent that remembers for whom it did what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel
from support.edge import Door, door
from support.engines import ScriptedEngine

from sealbus import Agent, Context
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.records.decision import DecisionRecord

__all__ = ["SCOPE", "Desk", "asked", "grant", "granting", "headers", "login"]

SCOPE = "inventory:write sealbus:schedule sealbus:approve"


class Item(BaseModel):
    item_id: str = "1"


class Desk:
    """An agent that remembers for whom it did what."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.agent = Agent("inventory")

        @self.agent.task("count")
        async def count(body: Item, ctx: Context) -> None:
            assert ctx.user is not None
            self.done.append((ctx.user.sub, body.item_id))


@asynccontextmanager
async def granting(desk: Desk, engine: ScriptedEngine | None = None, **changes: Any) -> AsyncIterator[Door]:
    async with door(desk.agent, engine=engine, schedules=True, **changes) as edge:
        assert edge.edge.scheduling is not None
        edge.bus.workers["edge"] = edge.edge.scheduling
        yield edge


def asked(**changes: Any) -> dict[str, Any]:
    body = {"name": "often", "action": "inventory.count", "body": {"item_id": "7"}, "when": {"every": 60}, "grants": []}
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


def login(edge: Door, **claims: Any) -> dict[str, Any]:
    now = edge.edge.node.clock() // 1_000_000
    fresh = {"iat": now, "exp": now + 600, "auth_time": now, "scope": SCOPE, "sid": "s-1"}
    return {**fresh, **claims}


async def grant(edge: Door, body: Mapping[str, Any] | None = None, **claims: Any) -> Any:
    return await edge.post("/v1/schedules", body or asked(), **login(edge, **claims))


async def headers(edge: Door, action: str) -> list[Header]:
    """Return the headers of what was decided about as `action`."""
    return [
        entry.decided
        for entry in await edge.bus.audit()
        if isinstance(entry.record, DecisionRecord) and entry.record.action == action and entry.decided is not None
    ]
