"""Three nats-servers with the auth callout and a replicated bucket of policies: one dies, two die, the callout restarts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ledger.servers import Layout, Server, Servers, open_servers
from support.lab import until
from support.policy_desk import key_file
from support.workload_api import short_folder

from sealbus.agents.control.callout.key_files import write_keys
from sealbus.agents.control.callout.role import CalloutRole, open_callout_role
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.examples.pricing import agent
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain
from sealbus.policies.bundle.files import STARTER

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.timeout(240)]

SEALBUS = Path(sys.executable).parent / "sealbus"
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN, table={"edge": DOMAIN.id("/edge"), "control": DOMAIN.id("/control")})
WORKLOADS = ("control", "operator", "inventory", "pricing", "shop-web")
BUCKET = "OBJ_policies"
ELECTED = 90.0
"""Seconds within which servers have a leader again, on a busy machine."""
TRIES = 30
"""Of a command, each of which takes seconds where no leader answers."""

SETTINGS = """trust_domain = "example.org"
nats = {urls}
nats_ids = ["spiffe://example.org/nats"]
workload_api = "unix://{folder}/api/{{name}}.sock"
[policy]
engine = "embedded"
bundle = "nats://policies"
cache = "{folder}/cache"
keys = ["{folder}/platform.pub"]
denials = "entry"
[agents]
edge = "spiffe://example.org/edge"
control = "spiffe://example.org/control"
[context]
minters = ["spiffe://example.org/edge"]
[streams]
replicas = 3
[streams.max_bytes]
tasks = "64MiB"
audit = "64MiB"
[control.callout]
issuer = "{folder}/keys/issuer.seed"
xkey = "{folder}/keys/xkey.seed"
nkey = "{folder}/keys/user.seed"
accounts = ["APP", "APP_AGENTS"]
bootstrap = "{folder}/bootstrap.tar.gz"
"""


@dataclass(kw_only=True)
class Site:
    """The servers, the callout of this process, and commands of an operator."""

    folder: Path
    servers: Servers
    settings: Settings
    counters: Counters = field(default_factory=Counters)

    @property
    def cache(self) -> Path:
        """What the callout keeps."""
        return self.folder / "cache" / "callout"

    async def run(self, *arguments: str | Path) -> tuple[int, str]:
        """Run a command of `sealbus`; return its exit code and what it printed on both of its outputs."""
        settings_file = str(self.folder / "sealbus.toml")
        process = await asyncio.create_subprocess_exec(
            SEALBUS, *map(str, arguments), env={**os.environ, "SEALBUS_CONFIG": settings_file},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def done(self, *arguments: str | Path) -> str:
        """Run a command until it succeeds, as an operator would while the servers elect a leader."""
        code, output, tries = 1, "", 0
        while code != 0:
            assert tries < TRIES, output
            code, output = await self.run(*arguments)
            tries += 1
        return output

    async def bucket(self) -> dict[str, object]:
        """Return what the server says of the bucket's stream."""
        async with open_connection("operator", self.settings) as (_, connection):
            answer = await connection.request(f"$JS.API.STREAM.INFO.{BUCKET}", b"", deadline=5.0)
        found: dict[str, object] = json.loads(answer.payload)
        return found

    async def leader(self) -> Server:
        """Return the server that leads the bucket."""
        cluster = (await self.bucket())["cluster"]
        assert isinstance(cluster, dict)
        [found] = [one for one in self.servers.storing if one.name == cluster["leader"]]
        return found

    async def let_in(self, name: str) -> bool:
        """Return whether a workload can connect now."""
        try:
            async with open_connection(name, self.settings):
                return True
        except (BusUnavailable, ConfigurationError):
            return False

    async def until_let_in(self, name: str, *, wanted: bool = True) -> None:
        """Connect again and again until the callout, which follows the bucket for itself, lets in or refuses."""
        async with asyncio.timeout(ELECTED):
            while await self.let_in(name) is not wanted:
                pass

    @asynccontextmanager
    async def callout(self) -> AsyncIterator[CalloutRole]:
        """Run a callout as a process would that was just started."""
        async with open_callout_role(self.settings, counters=self.counters) as role:
            running = asyncio.create_task(role.run())
            try:
                yield role
            finally:
                running.cancel()
                await asyncio.wait({running})


@asynccontextmanager
async def opened() -> AsyncIterator[Site]:
    """Start three servers whose bucket has the starter policy, with the key `revoker.pem` for revocations."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        authority = DevelopmentAuthority(DOMAIN)
        api = await stack.enter_async_context(EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=3_600))
        for name in WORKLOADS:
            address = await api.add_identity(NAMES.id_of(name))
            link = folder / "api" / f"{name}.sock"
            if Path(address.removeprefix("unix://")) != link:
                link.symlink_to(address.removeprefix("unix://"))
        _, signing = key_file(folder / "platform.pem")
        (folder / "platform.pub").write_text(public_pem(signing.public), encoding="ascii")
        _, revoker = key_file(folder / "revoker.pem")
        policy = shutil.copytree(STARTER, folder / "policy")
        named = policy / "sealbus" / "platform" / "revokers" / "data.json"
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_text(json.dumps({key_id(revoker.public): public_pem(revoker.public)}))
        servers = await stack.enter_async_context(
            open_servers(folder, Layout.CLUSTER, authority=authority, users=(), callout=write_keys(folder / "keys"))
        )
        urls = json.dumps([f"tls://127.0.0.1:{port}" for port in servers.entrances])
        (folder / "sealbus.toml").write_text(SETTINGS.format(folder=folder, urls=urls))
        settings = load_settings(folder / "sealbus.toml", environment={})
        await servers.start()
        yield Site(folder=folder, servers=servers, settings=settings)


async def prepare(site: Site) -> None:
    """Build and sign the bootstrap."""
    bundle, key = site.folder / "bootstrap.tar.gz", site.folder / "platform.pem"
    await site.done("policy", "build", site.folder / "policy", "--serial", "1", "--output", bundle)
    await site.done("policy", "sign", bundle, "--name", "platform", "--key", key)


async def push(site: Site) -> None:
    """Declare the streams and push the policy, through a callout that runs."""
    await site.done("streams", "apply")
    await site.done("policy", "push", site.folder / "policy", "--key", site.folder / "platform.pem")


def revocations(folder: Path) -> Path:
    """Write a list of revocations, and return its folder."""
    made = folder / "revocations"
    (made / "sealbus" / "revocations").mkdir(parents=True)
    (made / ".manifest").write_text('{"roots": ["sealbus/revocations"]}')
    listed = {"sessions": {"https://idp.example.org": {"session-7": 1_795_752_000_000_000}}}
    (made / "sealbus" / "revocations" / "data.json").write_text(json.dumps(listed))
    return made


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Worker]:
    """Run a worker until it is ready, and on."""
    async with open_node("pricing", settings) as node, Worker(agent, node) as worker:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        await worker.ready.wait()
        yield worker
        stop.set()
        await running


@pytest.mark.slow
async def test_without_the_server_that_leads_the_bucket_one_denies_revokes_and_starts() -> None:
    async with opened() as site:
        await prepare(site)
        async with site.callout():
            # As earlier versions made it on any number of servers.
            key, one = site.folder / "platform.pem", site.folder / "one.toml"
            one.write_text((site.folder / "sealbus.toml").read_text().replace("replicas = 3", "replicas = 1"))
            await site.done("policy", "push", site.folder / "policy", "--key", key, "--config", one)
            said = await site.done("policy", "push", site.folder / "policy", "--key", key)
            assert f"update {BUCKET}: num_replicas 1 -> 3; run `sealbus streams apply`" in said
            await site.done("streams", "apply")
            config = (await site.bucket())["config"]
            assert isinstance(config, dict)
            assert config["num_replicas"] == 3
            # It ends with 0 where nothing differs.
            await site.done("streams", "plan")
            await (await site.leader()).kill()
            await site.done("deny", "add", "workload", "shop-web", "--key", key, "--reason", "leaked")
            await site.done(
                "policy", "push", revocations(site.folder), "--name", "revocations",
                "--key", site.folder / "revoker.pem",
            )  # fmt: skip
            async with asyncio.timeout(ELECTED), working(site.settings) as worker:
                assert worker.node.revocations().revision == "revocations-1"
            await site.until_let_in("shop-web", wanted=False)
        # The callout has ended, and recorded what it refused. Another is needed to read that.
        async with site.callout():
            lines = (await site.done("audit", "tail", "--last", "200", "--json")).splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        changes = [
            (one["recorder"], one["action"], one["part"], one["serial"], one["target"], one["reason"])
            for one in records
            if one["kind"] == "change"
        ]
        # The first two pushes were before there was a stream of records.
        operator, denied = "spiffe://example.org/agent/operator", "workload spiffe://example.org/agent/shop-web"
        assert changes == [
            (operator, "deny", "platform", 3, denied, "leaked"),
            (operator, "push", "revocations", 1, "", ""),
        ]
        refused = [one["counts"] for one in records if one["kind"] == "connections"]
        assert sum(counts["denied"] for counts in refused) >= 1


@pytest.mark.slow
async def test_a_callout_that_restarts_while_the_bucket_is_away_readmits_nobody() -> None:
    async with opened() as site:
        await prepare(site)
        async with site.callout():
            await push(site)
            await site.until_let_in("shop-web")
            await site.done("deny", "add", "workload", "shop-web", "--key", site.folder / "platform.pem")
            await site.until_let_in("shop-web", wanted=False)
        # One of three answers about no stream.
        dead = site.servers.storing[:2]
        await asyncio.gather(*(one.kill() for one in dead))
        async with site.callout() as role:
            await site.until_let_in("inventory")
            assert not await site.let_in("shop-web")
            await until(lambda: not role.problem, seconds=ELECTED)
        # A machine that keeps nothing: the bootstrap knows of no denial.
        kept = site.cache.rename(site.cache.with_name("kept"))
        async with site.callout() as role:
            for name in ("shop-web", "inventory", "operator"):
                assert not await site.let_in(name), name
            assert role.problem.startswith("the bucket of policies was not read")
        # docs/callout.md: what any process kept is verified again, and newer than the bootstrap.
        shutil.copytree(kept / "parts", site.cache / "parts", dirs_exist_ok=True)
        async with site.callout():
            await site.until_let_in("inventory")
            assert not await site.let_in("shop-web")
        shutil.rmtree(site.cache)
        async with site.callout() as role:
            assert not await site.let_in("inventory")
            await asyncio.gather(*(one.start() for one in dead))
            await site.until_let_in("inventory")
            assert not await site.let_in("shop-web")
            await until(lambda: not role.problem, seconds=ELECTED)
