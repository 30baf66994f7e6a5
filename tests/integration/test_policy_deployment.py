"""Everything of a deployment but its scale: a worker and a client follow the bucket, an operator pushes and denies."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.policies import eventually
from support.policy_desk import key_file

from sealbus.agents.cli.operate.examination import examine
from sealbus.agents.dev.environment import DevOptions, open_environment
from sealbus.agents.examples.pricing import Price, Quote, agent
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.envelopes.errors import Denied, SealbusError
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.bundle.files import STARTER

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

SEALBUS = Path(sys.executable).parent / "sealbus"


@dataclass
class Deployment:
    settings: Settings
    environment: dict[str, str]
    folder: Path
    key: Path
    worker: Worker
    client: Client

    async def run(self, *arguments: str | Path) -> str:
        """Run a command of `sealbus`; return what it printed on both of its outputs."""
        return await command(self.environment, *arguments)

    async def quoted(self) -> Price:
        return await self.client.call("pricing.quote", Quote(item_id="42"), returns=Price, timeout=2.0)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        await eventually(holds)

    async def denied(self) -> bool:
        try:
            await self.quoted()
        except Denied:
            return True
        return False

    async def unheard(self) -> bool:
        """Tell whether the worker refuses what the client sends, which it tells nobody."""
        try:
            await self.quoted()
        except Denied:
            raise
        except SealbusError:
            return self.worker.node.counters.value("sealbus_refused_total", code="revoked") > 0
        return False


async def command(environment: dict[str, str], *arguments: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        SEALBUS, *map(str, arguments), env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@asynccontextmanager
async def deployment(tmp_path: Path, denials: str = "bundle") -> AsyncIterator[Deployment]:
    key, signing = key_file(tmp_path / "root.pem")
    public = tmp_path / "root.pub"
    public.write_text(public_pem(signing.public), encoding="ascii")
    async with AsyncExitStack() as stack:
        options = DevOptions(folder=tmp_path / "dev", agents=("pricing", "shop-web"), port=0)
        dev = await stack.enter_async_context(open_environment(options))
        said = {
            "SEALBUS_CONFIG": str(dev.settings_file),
            "SEALBUS_POLICY__BUNDLE": "nats://policies",
            "SEALBUS_POLICY__CACHE": str(tmp_path / "cache"),
            "SEALBUS_POLICY__KEYS": str(public),
            "SEALBUS_POLICY__DENIALS": denials,
        }
        environment = {**os.environ, **said}
        await command(environment, "policy", "push", STARTER, "--key", key)
        settings = load_settings(environment=said)
        node = await stack.enter_async_context(open_node("pricing", settings))
        worker = await stack.enter_async_context(Worker(agent, node))
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        await worker.ready.wait()
        client = Client.on(await stack.enter_async_context(open_node("shop-web", settings)))
        try:
            yield Deployment(
                settings=settings, environment=environment, folder=tmp_path, key=key, worker=worker, client=client
            )
        finally:
            stop.set()
            await running


@pytest.mark.parametrize("denials", ["bundle", "entry"])
async def test_a_workload_is_denied_at_its_next_message_and_its_keys_are_and_no_longer_afterwards(
    tmp_path: Path, denials: str
) -> None:
    async with deployment(tmp_path, denials) as running:
        assert (await running.quoted()).item_id == "42"
        added = await running.run("deny", "add", "workload", "shop-web", "--reason", "lost", "--key", running.key)
        assert "platform is pushed under serial 2" in added
        await running.until(running.denied)
        [listed] = (await running.run("deny", "ls", "--json")).splitlines()
        assert json.loads(listed)["id"] == "spiffe://example.org/agent/shop-web"
        await running.run("deny", "rm", "workload", "shop-web", "--key", running.key)

        async def allowed() -> bool:
            return not await running.denied()

        await running.until(allowed)
        status = await running.run("policy", "status")
        assert ".platform-3" in status

        # Its keys alone: what they sign is refused before any policy is asked.
        await running.run(
            "deny", "add", "workload", "shop-web", "--issued-before", "2100-01-01T00:00:00Z", "--key", running.key
        )
        await running.until(running.unheard)
        await running.run("deny", "rm", "workload", "shop-web", "--key", running.key)

        async def heard() -> bool:
            return not await running.unheard()

        await running.until(heard)


async def test_doctor_says_what_is_in_force_and_what_was_refused(tmp_path: Path) -> None:
    async with deployment(tmp_path) as running:
        [found] = [one for one in await examine(running.settings, "shop-web") if one.part == "policy"]
        assert found.ok, found.text
        assert ".platform-1 from bucket policies" in found.text
        # Whoever may write to the bucket, and has another key, gets no further than that.
        other, _ = key_file(running.folder / "other.pem")
        file = running.folder / "b.tar.gz"
        await running.run("policy", "build", STARTER, "--serial", "9", "-o", file)
        await running.run("policy", "sign", file, "--name", "platform", "--key", other)
        forged = await asyncio.to_thread(file.read_bytes)
        async with open_connection("operator", running.settings) as (_, connection):
            store = PolicyStore(connection, "policies")
            before = await store.read("platform")
            assert before is not None
            await store.push("platform", forged, 9, last=before.last)
        [found] = [one for one in await examine(running.settings, "shop-web") if one.part == "policy"]
        assert not found.ok
        assert "stays in force: platform: " in found.text
        assert "may not sign" in found.text
        assert (await running.quoted()).item_id == "42"

        async def noted() -> bool:
            return "policy_store" in running.worker.notes()

        await running.until(noted)
        assert running.worker.node.counters.value("sealbus_policy_refused_total", part="platform") > 0
