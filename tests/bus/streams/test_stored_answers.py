"""Whether the server's answers are stored, as an agent can see it with its own permissions."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.floods import GROUNDS, flooded_bus

from sealbus.bus.streams.stored_answers import stores_answers

pytestmark = pytest.mark.nats


@pytest.mark.parametrize("ground", GROUNDS)
async def test_an_agent_sees_whether_it_is_in_the_account_that_has_the_streams(tmp_path: Path, ground: str) -> None:
    async with flooded_bus(tmp_path, ground, "shop") as made:
        node = await made.bus.node("shop", ScriptedEngine())
        before = await made.stored()
        within = 60.0 if made.detours else 1.0
        assert await stores_answers(made.bus.connections["shop"], node.token, within=within) is made.detours
        assert await made.stored() == before + made.detours


@pytest.mark.parametrize("ground", GROUNDS)
async def test_an_operator_is_with_the_streams(tmp_path: Path, ground: str) -> None:
    async with flooded_bus(tmp_path, ground) as made:
        token = made.bus.names.token(made.bus.names.id_of("operator"))
        assert await stores_answers(made.bus.connections["operator"], token, within=60.0)
