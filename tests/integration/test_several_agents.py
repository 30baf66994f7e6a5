"""Several agents in one process, with all SVIDs from one Workload API: no failure of one agent harms another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from support.callout import NAMES
from support.several import SeveralSite, WorkerCommand, several_agents, worker_command
from support.workload_api import short_folder

from sealbus.agents.dev.workload_api.declared import DeclaredIdentity
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_node

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]

APP = """
import asyncio
from sealbus import Agent, Context

def made(name):
    agent = Agent(name)

    @agent.task("quote")
    async def quote(body: str, ctx: Context) -> str:
        if body == "wait":
            await asyncio.Event().wait()
        return name

    @agent.call("read")
    async def read(body: str, ctx: Context) -> str:
        return name

    return agent

one, two, three = made("one"), made("two"), made("three")
"""
AGENTS = ("one", "two", "three")
TARGETS = tuple(f"app.py:{name}" for name in AGENTS)
WITHIN = 120.0
"""Seconds after which a wait has hung; no measure of speed."""


@asynccontextmanager
async def site_of(revoked: str = "") -> AsyncIterator[SeveralSite]:
    with short_folder() as folder:
        async with several_agents(folder, *AGENTS, revoked=revoked) as site:
            (folder / "app.py").write_text(APP)
            yield site


@asynccontextmanager
async def shop(site: SeveralSite) -> AsyncIterator[Client]:
    async with open_node("shop-web", site.settings) as node:
        yield Client.on(node)


def fetched(port: int, page: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def health_port(command: WorkerCommand) -> int:
    await command.says("health at port")
    [line] = [line for line in command.said if "health at port" in line]
    return int(line.rsplit(maxsplit=1)[1])


async def reasons_once(port: int, expected: dict[str, str]) -> None:
    """Wait until `/readyz` gives exactly these reasons; the process is alive all the time."""
    async with asyncio.timeout(WITHIN):
        while True:
            status, text = await asyncio.to_thread(fetched, port, "readyz")
            assert (await asyncio.to_thread(fetched, port, "healthz"))[0] == 200
            if json.loads(text)["reasons"] == expected:
                assert status == (503 if expected else 200)
                return
            await asyncio.sleep(0.1)


async def both_ways(client: Client, *names: str) -> None:
    """Have each of these agents handle a task and a call."""
    for name in names:
        handle = await client.submit(f"{name}.quote", "now")
        async with asyncio.timeout(WITHIN):
            assert await handle.result(str) == name
            assert await client.call(f"{name}.read", "now", returns=str) == name


async def test_an_agent_that_is_not_let_in_at_the_start_holds_up_no_other() -> None:
    """It is the first one, whose connection others would wait for, and comes as soon as it is let in."""
    async with (
        site_of(revoked="one") as site,
        worker_command(site, *TARGETS, "--health", "0") as command,
        shop(site) as client,
    ):
        await command.says("two runs as spiffe://")
        await command.says("three runs as spiffe://")
        await command.says("agent one does not run, the others go on", "auth callout refused it", "tried again in")
        port = await health_port(command)
        await reasons_once(port, {"one/start": "not let in by the server"})
        await both_ways(client, "two", "three")
        assert {(one.subject, one.reasons) for one in site.refused} == {(str(NAMES.id_of("one")), ("revoked_agent",))}
        await site.revoke()
        await command.says("one runs as spiffe://")
        await reasons_once(port, {})
        await both_ways(client, "one")
        metrics = (await asyncio.to_thread(fetched, port, "metrics"))[1]
        for name in AGENTS:
            assert f'sealbus_bus_connected{{agent="{name}",connection="{name}"}} 1.0' in metrics
        assert metrics.count("# TYPE sealbus_bus_connected ") == 1
        assert await command.stop() == 0


async def test_an_agent_that_is_not_let_in_any_more_harms_no_other() -> None:
    async with (
        site_of() as site,
        worker_command(site, *TARGETS, "--health", "0") as command,
        shop(site) as client,
    ):
        await command.says("runs as spiffe://", count=3)
        port = await health_port(command)
        await site.revoke("two")
        # nats-server asks about each connection again.
        await site.server.reload()
        await reasons_once(port, {"two/nats": "not let in by the server"})
        await both_ways(client, "one", "three")
        assert await command.stop() == 1
        await command.says("agents that did not run at the end: two")


async def test_a_withdrawn_svid_ends_one_agent_until_it_comes_back() -> None:
    async with (
        site_of() as site,
        worker_command(site, *TARGETS, "--health", "0") as command,
        shop(site) as client,
    ):
        await command.says("runs as spiffe://", count=3)
        port = await health_port(command)
        # One stream for all of them.
        assert site.api.streams == 1
        site.api.remove("two")
        await reasons_once(port, {"two/identity": "identity_unavailable"})
        await both_ways(client, "one", "three")
        site.api.add(DeclaredIdentity(site.authority, NAMES.id_of("two"), x509_ttl=3_600, jwt_ttl=300))
        await reasons_once(port, {})
        await both_ways(client, "two")
        assert await command.stop() == 0


async def test_handlers_that_never_end_fill_the_places_of_their_own_agent() -> None:
    async with (
        site_of() as site,
        worker_command(site, *TARGETS, "--concurrency", "2") as command,
        shop(site) as client,
    ):
        await command.says("runs as spiffe://", count=3)
        stuck = [await client.submit("two.quote", "wait") for _ in range(6)]
        async with asyncio.timeout(WITHIN):
            async for status in stuck[0].statuses():
                assert not status.final
                break
        await both_ways(client, "one", "three")
        command.process.terminate()
        await command.says("two stopped with work unfinished")
        async with asyncio.timeout(WITHIN):
            assert await command.process.wait() == 1


async def test_none_of_them_can_start() -> None:
    """Then the process ends, and whatever started it sees that."""
    async with site_of() as site:
        for name in AGENTS:
            site.api.identities.pop(str(NAMES.id_of(name)))
        other = site.settings_file.with_name("short.toml")
        other.write_text(f"{site.settings_file.read_text()}\n[identity]\nwithin = 1.0\n")
        async with worker_command(site, *TARGETS, "--config", str(other)) as command:
            async with asyncio.timeout(WITHIN):
                assert await command.process.wait() == 1
            await command.says("has no identity for this workload")


async def test_the_policy_is_read_and_kept_once() -> None:
    """In the folder of the first agent."""
    async with site_of() as site, worker_command(site, *TARGETS) as command:
        await command.says("runs as spiffe://", count=3)
        assert sorted(entry.name for entry in (site.folder / "cache").iterdir()) == ["one"]
        assert await command.stop() == 0
