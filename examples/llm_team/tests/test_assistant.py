"""A model that is not ours, on the edge as `sealbus dev` runs it, and the record of what it was talked into."""

import asyncio
import sys
from pathlib import Path

from sealbus.agents.dev.users import dev_token
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.testing import LiveBus

import orders.agent
import refunds.agent
from assistant import answer
from desk.agent import ask

FOLDER = Path(__file__).parent.parent
README = (FOLDER / "README.md").read_text()


async def replayed(bus: LiveBus) -> list[str]:
    """Return the lines of `sealbus audit replay`, without time and number."""
    command = ("-m", "sealbus", "audit", "replay", "--config", str(bus.environment.settings_file))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    return [line.split(maxsplit=2)[2] for line in (await process.communicate())[0].decode().splitlines()]


async def test_an_assistant_that_is_talked_into_something_is_stopped(live_bus: LiveBus) -> None:
    """Bob manages all these orders. The note of one makes his assistant pay back others, which he has not asked for."""
    refunds.agent.PAID.clear()
    settings = live_bus.environment.settings
    token = await asyncio.to_thread(dev_token, settings, "bob")
    said = await answer(f"{settings.edge.resource}/mcp", token, "what about order 7?")
    assert said.count("Reasons: not_by_mcp") == 2
    assert refunds.agent.PAID == []
    shown = README.split("```\n")[1].splitlines()
    assert [line for line in await replayed(live_bus) if line[:2] != "->"] == shown

    # It is the door: when bob says so himself, the same is paid.
    client, user = await live_bus.client("web"), await live_bus.user("bob", "web")
    handle = await client.submit(ask, "refund order 1 with 2000 cents", user=user)
    assert await handle.result() == '{"cents":2000,"approved_by":[]}'


def test_the_schemas_are_those_of_the_agents() -> None:
    for one in (orders.agent.agent, refunds.agent.agent):
        assert (FOLDER / one.name / "schema.json").read_text() == AgentSchema.of(one).text()
