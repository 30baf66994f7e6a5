"""The estimate of `sealbus streams size` against what a real server says that it holds after some work."""

from __future__ import annotations

import asyncio
import json
import shlex
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from support.howto import commands_of
from support.real_bus import RealBus, real_bus

from sealbus import Agent, Client, Context, Resource
from sealbus.agents.cli.operate.streams import command
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.api import stream_states
from sealbus.bus.streams import estimate
from sealbus.envelopes.errors import Denied
from sealbus.policies.engines.embedded import EmbeddedEngine

pytestmark = [pytest.mark.nats]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
EACH = 20
BODY = 1_000
NEAR = 0.25


class Update(BaseModel):
    item_id: str
    quantity: int = 1
    note: str = ""


UPDATE = Update(item_id="42", note="x" * (BODY - len(Update(item_id="42").model_dump_json())))


def inventory() -> Agent:
    agent = Agent("inventory")

    async def item(body: Update) -> Resource:
        return Resource("item", body.item_id, owner="alice", customer="acme", region="always")

    @agent.task("update", resource=item, facts=["quantity"], once=True)
    async def update(body: Update, ctx: Context) -> Update:
        return body

    @agent.call("read", resource=item)
    async def read(body: Update, ctx: Context) -> Update:
        return body

    return agent


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "shop-web") as running:
        yield running


async def held(bus: RealBus) -> dict[str, int]:
    return {one.name: one.bytes for one in await stream_states(bus.connections["shop-web"].jetstream)}


async def grown(bus: RealBus, client: Client, engine: EmbeddedEngine, what: str) -> dict[str, float]:
    """Have `EACH` messages handled one after the other by a worker of their own, and return the bytes that each added."""
    before, stop = await held(bus), asyncio.Event()
    async with AsyncExitStack() as stack:
        # Its own, because a node stores what waits when it is left.
        node = await replace(bus, stack=stack).node("inventory", engine)
        worker = await stack.enter_async_context(Worker(inventory(), node))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        for _ in range(EACH):
            user = bus.user("carol" if what == "denied" else "alice", "shop-web")
            if what == "call":
                await client.call("inventory.read", UPDATE, user=user, returns=Update)
                continue
            handle = await client.submit("inventory.update", UPDATE, user=user)
            try:
                await handle.result(Update)
            except Denied:
                assert what == "denied"
        stop.set()
    # What the client decides about an answer is stored before that is returned.
    after = await held(bus)
    return {name: (after[name] - before[name]) / EACH for name in ("TASKS", "RESULTS", "STATE", "AUDIT")}


async def test_what_a_server_holds_is_near_the_estimate(bus: RealBus) -> None:
    async with EmbeddedEngine.of_folder() as engine:
        client = Client.on(await bus.node("shop-web", engine))
        allowed, denied, called = [await grown(bus, client, engine, what) for what in ("allowed", "denied", "call")]
    assert allowed == pytest.approx(
        {
            "TASKS": estimate.TASK + BODY,
            "RESULTS": estimate.RESULT + BODY,
            "STATE": estimate.CLAIM,
            "AUDIT": estimate.DECIDED,
        },
        rel=NEAR,
    )
    assert denied == pytest.approx(
        {"TASKS": estimate.TASK + BODY, "RESULTS": estimate.REFUSAL, "STATE": 0, "AUDIT": estimate.DENIED}, rel=NEAR
    )
    consumers = json.loads(await bus.operator.jetstream("$JS.API.CONSUMER.NAMES.TASKS", b""))
    assert consumers["total"] == estimate.CONSUMERS_OF_AGENT
    assert called == pytest.approx({"TASKS": 0, "RESULTS": 0, "STATE": 0, "AUDIT": estimate.DECIDED}, rel=NEAR)


def test_the_command_writes_settings_and_says_which_of_ours_are_too_small(tmp_path: Path) -> None:
    settings = tmp_path / "sealbus.toml"
    settings.write_text('[streams]\nreplicas = 3\n[streams.max_bytes]\ntasks = "64MiB"\naudit = "8GiB"\n')
    wanted = ["size", "--rate", "2", "--calls", "1", "--days", "90", "--denied", "0.1", "--config", str(settings)]
    done = CliRunner().invoke(command, wanted)
    assert done.exit_code == 1
    assert "streams.max_bytes.audit is 8GiB" in done.stderr
    assert "full after 4.7 of 90 days" in done.stderr
    assert "streams.max_bytes.tasks is 64MiB" in done.stderr
    assert "results" not in done.stderr
    made = done.stdout[done.stdout.index("[streams]") :]
    table = tomllib.loads(made)["streams"]
    assert table["replicas"] == 3
    settings.write_text(made)
    done = CliRunner().invoke(command, [*wanted, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["too_small"] == []
    assert told["streams"]["AUDIT"]["held"] == 166_142_016_000
    assert told["streams"]["AUDIT"]["max_bytes"] >= 1.25 * told["streams"]["AUDIT"]["held"]


def test_the_command_says_what_agents_take_and_when_they_are_too_many(tmp_path: Path) -> None:
    settings = tmp_path / "sealbus.toml"
    settings.write_text("[streams]\nreplicas = 3\n")
    wanted = ["size", "--rate", "1", "--days", "1", "--config", str(settings), "--agents"]
    done = CliRunner().invoke(command, [*wanted, "1000", "--listening", "20"])
    assert done.exit_code == 0, done.output
    assert "1,000 agents: 4,000 consumers of TASKS; on each server 10 replicated assets" in done.stderr
    assert "too many" not in done.stderr
    settings.write_text("[streams]\nreplicas = 3\nreplicated_consumers = true\n")
    done = CliRunner().invoke(command, [*wanted, "1000"])
    assert done.exit_code == 1
    assert "too many: 4,010 replicated assets on a server" in done.stderr
    done = CliRunner().invoke(command, [*wanted, "3000", "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["agents"]["consumers"], told["agents"]["replicated_assets"]) == (12_000, 12_010)
    assert len(told["too_many"]) == 2


def test_streams_and_settings_of_cells_are_those_of_each(tmp_path: Path) -> None:
    settings = tmp_path / "sealbus.toml"
    settings.write_text("")
    wanted = ["size", "--days", "90", "--config", str(settings), "--json", "--agents", "3000"]
    one = json.loads(CliRunner().invoke(command, [*wanted, "--rate", "5", "--calls", "2"]).stdout)
    done = CliRunner().invoke(command, [*wanted, "--rate", "20", "--calls", "8", "--cells", "4", "--processes", "7"])
    assert done.exit_code == 0
    four = json.loads(done.stdout)
    assert four["streams"] == one["streams"]
    assert four["disk"] == 4 * one["disk"]
    assert (one["agents"]["consumers"], four["agents"]["consumers"], four["agents"]["stop_readers"]) == (
        12_000,
        3_000,
        7,
    )
    assert one["too_many"]
    assert not four["too_many"]


def test_the_page_of_operators_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    [line] = commands_of(page, mark="size")
    done = CliRunner().invoke(command, shlex.split(line)[2:])
    assert done.exit_code == 0
    assert f"{line}```\n\n```\n{done.stdout}```" in page
    for mark in ("agents", "cells"):
        [line] = commands_of(page, mark=mark)
        done = CliRunner().invoke(command, shlex.split(line)[2:])
        assert done.exit_code == 0
        assert f"{line}```\n\n```\n{done.stderr}```" in page
