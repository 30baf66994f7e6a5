"""The drill: a deployment that works is backed up, loses its server's store, and goes on from the backup.

Printed at its end is the drill's clock (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from independent import verify_export as independent
from pydantic import BaseModel
from support.ports import held_port

from sealbus import Agent, Client, Context
from sealbus.agents.backup.files import log_end
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer
from sealbus.agents.dev.workload_api import DevelopmentAuthority, EmbeddedWorkloadApi
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.background import Background
from sealbus.bus.nats.connection.frames import header_value
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.log.checkpoint import parse_checkpoint
from sealbus.envelopes.log.note import parse_note
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SEALBUS = str(Path(sys.executable).parent / "sealbus")
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": allow, "reasons": [], "obligations": [], "policy": "test"} if {
	allow := request.action.name != "nothing"
}
"""


class Update(BaseModel):
    item_id: str
    quantity: int = 1


async def sealbus(*arguments: str | Path, code: int = 0) -> str:
    """Run a command and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        SEALBUS, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == code, (arguments, out.decode(), err.decode())
    return out.decode() + err.decode() if code else out.decode()


@dataclass
class Site:
    """A deployment in one folder, which is opened again and again on the same port; `effects` outlive it."""

    folder: Path
    policy: Path
    port: int = field(default_factory=held_port)
    effects: list[str] = field(default_factory=list)
    clock: list[tuple[str, float]] = field(default_factory=list)

    @property
    def settings(self) -> Path:
        """The settings of the environment, which outlive it too."""
        return self.folder / "kept.toml"

    @property
    def log(self) -> Path:
        return self.folder / "dev" / "log"

    def timed(self, what: str, since: float) -> None:
        self.clock.append((what, time.monotonic() - since))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Environment, Client]]:
        """Everything: server, notary, a worker, a client."""
        options = DevOptions(
            folder=self.folder / "dev", agents=("inventory", "web"), port=self.port, policy=self.policy, notary=True,
            max_bytes=1 << 28,
        )  # fmt: skip
        agent = Agent("inventory")

        @agent.task("update", once=True)
        async def update(body: Update, ctx: Context) -> int:
            self.effects.append(body.item_id)
            return body.quantity

        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            environment = await stack.enter_async_context(open_environment(options))
            self.settings.write_text(environment.settings_file.read_text())
            group = await stack.enter_async_context(asyncio.TaskGroup())
            node = await stack.enter_async_context(open_node("inventory", environment.settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            task = group.create_task(worker.run(stop))
            await worker.ready.wait()
            client = await stack.enter_async_context(Client("web", settings=environment.settings))
            yield environment, client
            stop.set()
            await asyncio.wait([task])

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[None]:
        """Only the server and identities, as there are before anything else is started."""
        domain = TrustDomain("example.org")
        names, dev = Names(domain), self.folder / "dev"
        authority = DevelopmentAuthority.open(dev / "authority.json", domain)
        roles = {names.id_of("backup"): BrokerRole.BACKUP, names.id_of("operator"): BrokerRole.OPERATOR}
        async with EmbeddedWorkloadApi(dev / "api", authority) as api, Background() as group:
            for one in roles:
                await api.add_identity(one)
            async with EmbeddedNatsServer(
                dev / "nats",
                tasks=group,
                names=names,
                write_svid=lambda where: api.write_server_svid(
                    where, SpiffeId("spiffe://example.org/nats"), dns=("localhost",)
                ),
                workloads=roles,
                port=self.port,
            ):
                yield

    def empty(self) -> None:
        """Lose everything that the server had."""
        shutil.rmtree(self.folder / "dev" / "nats" / "store")

    @property
    def size(self) -> int:
        """The number of entries of the log."""
        return parse_checkpoint(parse_note((self.log / CHECKPOINT).read_bytes()).text).size

    async def logged(self, environment: Environment, *, beyond: int = 0) -> None:
        """Wait until every record of the worker is under a checkpoint: the notary's own of checkpoints ask for none.

        A log of `beyond` entries, or fewer, is not looked at: before it goes on over a restored stream, it may end later.
        """
        async with open_connection("operator", environment.settings) as (_, connection):
            found = [
                one.arrival.sequence
                async for some in NatsTransport(connection).read("AUDIT", ["audit.inventory"])
                for one in some
                if one.arrival is not None
            ]
        last = found[-1]
        async with asyncio.timeout(60):
            while log_end(self.log) < last or self.size <= beyond:
                await asyncio.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "authz.rego").write_text(POLICY)
    return Site(tmp_path, policy)


async def captured(environment: Environment) -> Delivery:
    """Return the last task as somebody on the wire has it."""
    async with open_connection("operator", environment.settings) as (_, connection):
        found = [one async for some in NatsTransport(connection).read("TASKS", ["task.>"]) for one in some]
    return found[-1]


async def send_again(environment: Environment, message: Delivery) -> bool:
    """Store a captured message again, and return whether the server knew it."""
    again = Outgoing(
        subject=message.subject,
        payload=message.payload,
        message_id=header_value(message.header_block, "Nats-Msg-Id"),
    )
    async with open_connection("web", environment.settings) as (_, connection):
        [answer] = await NatsTransport(connection).publish([again], deadline=60.0)
    assert isinstance(answer, PubAck)
    return answer.duplicate


async def test_a_deployment_goes_on_from_its_backup(site: Site, tmp_path: Path) -> None:
    backup, root, common = tmp_path / "backup", tmp_path / "root.json", ("--config", site.settings)
    began = time.monotonic()
    async with site.open() as (environment, client):
        for number in range(20):
            await (await client.submit("inventory.update", Update(item_id=str(number), quantity=number))).result()
        old = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await old.result() == 7
        message = await captured(environment)
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
        site.timed("work", began)
        began = time.monotonic()
        said = json.loads(await sealbus("backup", backup, *common, "--json"))
        site.timed("backup", began)
        assert said["streams"][-1]["name"] == "AUDIT"
        assert said["log_last"] <= said["streams"][-1]["last"]
        handle = str(old)
    effects = list(site.effects)

    began = time.monotonic()
    site.empty()
    async with site.bare():
        restored = json.loads(await sealbus("restore", backup, *common, "--json"))
        assert (restored["lost"], restored["log"]) == (0, "kept")
        again = await sealbus("restore", backup, *common, code=1)
        assert "streams are here already" in again
        # Until the server is started again a captured message would count twice.
        assert "start nats-server again" in await sealbus("restore", "--check", *common, code=1)
    site.timed("restore", began)
    began = time.monotonic()
    async with site.bare():
        assert "refused" in await sealbus("restore", "--check", *common)
        await sealbus("notary", "restored", "--last", str(restored["records"]), *common)
    site.timed("restart, check, say so", began)

    began = time.monotonic()
    async with site.open() as (environment, client):
        assert await send_again(environment, message)
        twice = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await twice.result() == 7
        assert await client.handle(handle).result() == 7
        assert site.effects == effects
        new = await client.submit("inventory.update", Update(item_id="new", quantity=1))
        assert await new.result() == 1
        assert site.effects == [*effects, "new"]
        await site.logged(environment)
        site.timed("open, old and new work, logged", began)
        began = time.monotonic()
        report = [
            json.loads(line)
            for line in (await sealbus("audit", "verify", "--live", "--root", root, *common, "--json")).splitlines()
        ]
        assert report[-1]["passed"], report
        assert (report[0]["kind"], report[0]["lost"], report[0]["by"]) == (
            "restored", 0, "spiffe://example.org/agent/operator",
        )  # fmt: skip
        export = tmp_path / "export"
        await sealbus("audit", "export", export, "--root", root, *common)
        site.timed("verify, export", began)
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert theirs.findings == []
    for what, seconds in site.clock:
        print(f"{what}: {seconds:.1f} s")  # noqa: T201


async def test_what_a_backup_does_not_have_is_named_for_ever(site: Site, tmp_path: Path) -> None:
    """Work goes on after the backup, so that the log reaches further: nothing is lost unless an operator says how much."""
    backup, root, common = tmp_path / "backup", tmp_path / "root.json", ("--config", site.settings)
    async with site.open() as (environment, client):
        await (await client.submit("inventory.update", Update(item_id="1", quantity=1))).result()
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
        last = json.loads(await sealbus("backup", backup, *common, "--json"))["streams"][-1]["last"]
        for number in range(3):
            await (await client.submit("inventory.update", Update(item_id=f"lost {number}", quantity=1))).result()
        # The authority makes its next key, and what the log knows of that is lost, too.
        environment.authority.prepare_jwt()
        # Recorded by the notary, which nothing else waits for.
        async with asyncio.timeout(60):
            while len(list((site.log / "trust").iterdir())) < 2:
                await asyncio.sleep(0.05)
        await site.logged(environment)
    logged = log_end(site.log)
    lost = logged - last
    assert lost >= 6
    site.empty()
    async with site.bare():
        said = await sealbus("restore", backup, *common, code=1)
        assert f"has {lost} records after the backup's last: give `--lose {lost}`" in said
        assert "no records" not in said
        await sealbus("restore", backup, "--lose", str(lost - 1), *common, code=1)
        done = json.loads(await sealbus("restore", backup, "--lose", str(lost), *common, "--json"))
        assert (done["records"], done["lost"], done["log"]) == (last, lost, "kept")
    async with site.bare():
        await sealbus("notary", "restored", "--last", str(last), *common)
        await sealbus("notary", "restored", "--last", str(last + 1), *common, code=1)
    size = site.size
    async with site.open() as (environment, client):
        assert await (await client.submit("inventory.update", Update(item_id="new", quantity=1))).result() == 1
        # Under the new key, for which the lost record would have vouched: it was recorded again.
        environment.authority.activate_jwt()
        assert await (await client.submit("inventory.update", Update(item_id="newer", quantity=2))).result() == 2
        await site.logged(environment, beyond=size)
        lines = (await sealbus("audit", "verify", "--live", "--root", root, *common, "--json", code=4)).splitlines()
        report = [json.loads(line) for line in lines if line.startswith("{")]
        export = tmp_path / "export"
        await sealbus("audit", "export", export, "--root", root, *common)
    assert [(one["code"], one.get("sequence")) for one in report if one["kind"] == "finding"] == [
        ("lost_records", last + 1)
    ]
    shown = next(one for one in report if one["kind"] == "restored")
    assert (shown["lost"], shown["logged"], shown["ranges"]) == (lost, logged, [[last + 1, logged]])
    theirs = independent.verify(independent.read_folder(export), independent.read_root(root.read_bytes()))
    assert [code for _, code, _ in theirs.findings] == ["lost_records"]


async def test_a_cold_copy_goes_on_by_itself(site: Site, tmp_path: Path) -> None:
    root, common, copy = tmp_path / "root.json", ("--config", site.settings), tmp_path / "copy"
    store = site.folder / "dev" / "nats" / "store"
    async with site.open() as (environment, client):
        old = await client.submit("inventory.update", Update(item_id="old", quantity=7), idempotency_key="old")
        assert await old.result() == 7
        message = await captured(environment)
        await site.logged(environment)
        assert environment.log is not None
        root.write_text(await sealbus("audit", "root", "--key", environment.log.verifier, *common))
    shutil.copytree(store, copy / "store")
    shutil.copytree(site.log, copy / "log")
    site.empty()
    shutil.rmtree(site.log)
    shutil.copytree(copy / "store", store)
    shutil.copytree(copy / "log", site.log)
    async with site.open() as (environment, client):
        assert await send_again(environment, message)
        assert await client.handle(str(old)).result() == 7
        assert await (await client.submit("inventory.update", Update(item_id="new", quantity=1))).result() == 1
        assert site.effects == ["old", "new"]
        await site.logged(environment)
        assert await sealbus("audit", "verify", "--live", "--root", root, *common) == "verified\n"
