from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from a2a.types import StreamResponse, TaskState
from google.protobuf.json_format import MessageToDict
from support.a2a import BINDINGS, Site, asking, site
from support.engines import ScriptedEngine
from support.shop import Shop


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def running(tmp_path: Path, shop: Shop, engine: ScriptedEngine) -> AsyncIterator[Site]:
    async with site(tmp_path, shop.inventory, shop.pricing, engine=engine) as found:
        yield found


async def told(responses: AsyncIterator[StreamResponse]) -> list[StreamResponse]:
    return [one async for one in responses]


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_call_is_answered_by_a_message(running: Site, binding: str) -> None:
    async with running.client("pricing", binding) as client:
        [found] = await told(client.send_message(asking("pricing.quote", {"item_id": "42", "quantity": 3})))
    [part] = found.message.parts
    assert MessageToDict(part.data) == {"item_id": "42", "price": 21}


@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_task_is_streamed_to_its_end(running: Site, shop: Shop, binding: str) -> None:
    async with running.client("inventory", binding) as client:
        first, *rest = await told(client.send_message(asking("inventory.update", {"item_id": "42", "quantity": 3})))
    assert first.task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert rest[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert {one.status_update.task_id or one.artifact_update.task_id for one in rest} == {first.task.id}
    assert shop.handled == [("42", 3)]
