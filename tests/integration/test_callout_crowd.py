"""Many who connect at once: each waits until a responder has answered for it, and none is refused for its wait."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.callout import callout_site, waiting
from support.engines import ScriptedEngine
from support.lab import until
from support.raw_nats import RawNats

from sealbus.agents.control.callout.responder import CONCURRENCY
from sealbus.bus.nats.connection.connection import Connection
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.decision.connect import ConnectAnswer
from sealbus.policies.engines.embedded import EmbeddedEngine

pytestmark = [pytest.mark.nats, pytest.mark.timeout(300)]

CROWD = CONCURRENCY + 16


class WaitingEngine(ScriptedEngine):
    """Decides by the starter policy, but only once `open` is set."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        super().__init__()
        self.engine = engine
        self.open = asyncio.Event()
        self.waiting = 0

    async def connect(self, document: bytes) -> ConnectAnswer:
        self.waiting += 1
        await self.open.wait()
        return await self.engine.connect(document)


async def test_a_crowd_is_let_in_after_the_first_ping_of_the_server(tmp_path: Path) -> None:
    """The server sends its first PING 2 s after a client has come."""
    conf = tmp_path / "patient.conf"
    conf.write_text(waiting(60))
    async with callout_site(tmp_path / "site", responders=0, conf=conf) as site, AsyncExitStack() as stack:
        engine = WaitingEngine(await stack.enter_async_context(EmbeddedEngine.of_folder(STARTER)))
        responder = await site.respond(engine=engine)
        raw: list[RawNats] = [site.raw("pricing") for _ in range(CROWD)]
        ours: Connection = site.connection("inventory")
        async with asyncio.TaskGroup() as group:
            for client in raw:
                group.create_task(stack.enter_async_context(client))
            group.create_task(stack.enter_async_context(ours))
            async with asyncio.timeout(60):
                await asyncio.gather(*[client.pinged.wait() for client in raw])
            await until(lambda: engine.waiting == CONCURRENCY)
            engine.open.set()
        assert responder.codes == []
        assert ours.connected
        assert all([await client.may_publish("audit.pricing") for client in raw])
