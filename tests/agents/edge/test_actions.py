"""Every door of an edge does its work through the same actions."""

from __future__ import annotations

import pytest
from support.edge import door
from support.engines import ScriptedEngine
from support.shop import Shop

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.http.problem import EdgeError


async def test_what_came_through_one_door_is_found_through_another_by_the_same_user_only() -> None:
    async with door(Shop().inventory, engine=ScriptedEngine()) as edge:
        answer = await edge.post("/v1/tasks/inventory/update", {"item_id": "42"})
        front = edge.edge.front
        alice, bob = [
            await front.verified(edge.issuer.token(sub=sub), now=front.node.clock()) for sub in ("alice", "bob")
        ]
        another = Actions(front)
        found = await another.tasks.owners.find_task(answer.json()["id"], alice)
        assert found.action == "inventory.update"
        with pytest.raises(EdgeError, match="task"):
            await another.tasks.owners.find_task(found.message_id, bob)


async def test_all_doors_count_the_streams_of_a_user_together() -> None:
    async with door(Shop().inventory, engine=ScriptedEngine()) as edge:
        actions = Actions(edge.edge.front)
        assert actions.calls._streams is actions.streams
