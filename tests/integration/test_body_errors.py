"""What is raised inside `async with Client`, `open_node` or `Worker` on a real broker comes out as itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sealbus import Agent, Client, Context, Denied
from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker

pytestmark = [pytest.mark.nats]


async def test_the_error_of_a_body_is_not_wrapped(tmp_path: Path) -> None:
    agent = Agent("effects")

    @agent.call("none")
    async def none(body: int, ctx: Context) -> int:
        return body

    async def in_client(settings: Settings) -> None:
        async with Client("shop", settings=settings):
            raise Denied("of the client")

    async def in_worker(settings: Settings) -> None:
        stop = asyncio.Event()
        async with open_node("effects", settings) as node, Worker(agent, node) as worker:
            stop.set()
            await worker.run(stop)
            raise Denied("of the worker")

    async def in_environment() -> None:
        options = DevOptions(folder=tmp_path, agents=("effects", "shop"), port=-1)
        async with open_environment(options) as environment:
            for body, text in ((in_client, "of the client"), (in_worker, "of the worker")):
                with pytest.raises(Denied, match=text):
                    await body(environment.settings)
            raise AssertionError("of the environment")

    with pytest.raises(AssertionError, match=r"^of the environment$"):
        await in_environment()
