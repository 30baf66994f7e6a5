"""A deployment in one folder that is backed up, loses its server's store, and goes on: the site of the drill.

Two agents: `inventory`, which always works, and `stock`, which a test leaves out so that work waits for it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel
from support.lab import until
from support.ports import held_port

from sealbus import Agent, Client, Context, Retry
from sealbus.agents.backup.files import log_end
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer, StoreOptions
from sealbus.agents.dev.settings_file import running_notary
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
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

__all__ = ["APPROVERS", "POLICY", "Site", "Update", "captured", "sealbus", "send_again"]

SEALBUS = str(Path(sys.executable).parent / "sealbus")
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	request.action.name != "stock.pay"
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	count(request.context.approvals) >= 1
} else := {"allow": false, "reasons": ["over_limit"], "obligations": [asked], "policy": "p"}

asked := {"type": "approval", "queue": "managers", "text": "Pay", "until": 3600}
"""
APPROVERS = """package sealbus.approval

decision := decide(input)

decide(request) := {"allow": allow, "reasons": [], "obligations": [], "policy": "p"} if {
	allow := request.context.user.id == "boss"
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
    tries: list[str] = field(default_factory=list)
    """Of the task that is put off until `calm`."""
    calm: asyncio.Event = field(default_factory=asyncio.Event)
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
        """Everything but `stock`: server, notary, a worker, a client."""
        options = DevOptions(
            folder=self.folder / "dev", agents=("inventory", "stock", "web"), port=self.port, policy=self.policy,
            notary=True, max_bytes=1 << 28,
        )  # fmt: skip
        async with open_environment(options) as environment:
            self.settings.write_text(environment.settings_file.read_text())
            async with (
                self._worker(self._inventory(), environment),
                Client("web", settings=environment.settings) as client,
            ):
                yield environment, client

    @asynccontextmanager
    async def stock(self, environment: Environment) -> AsyncIterator[None]:
        """The agent for which work may wait."""
        async with self._worker(self._stock(), environment):
            yield

    @asynccontextmanager
    async def _worker(self, agent: Agent, environment: Environment) -> AsyncIterator[None]:
        stop = asyncio.Event()
        async with (
            asyncio.TaskGroup() as group,
            open_node(agent.name, environment.settings) as node,
            Worker(agent, node) as worker,
        ):
            task = group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield
            stop.set()
            await asyncio.wait([task])

    def _inventory(self) -> Agent:
        agent = Agent("inventory")

        @agent.task("update", once=True)
        async def update(body: Update, ctx: Context) -> int:
            self.effects.append(body.item_id)
            return body.quantity

        return agent

    def _stock(self) -> Agent:
        agent = Agent("stock")

        @agent.task("count")
        async def count(body: Update, ctx: Context) -> int:
            self.effects.append(body.item_id)
            return body.quantity

        @agent.task("book", once=True)
        async def book(body: Update, ctx: Context) -> int:
            self.effects.append(body.item_id)
            return body.quantity

        @agent.task("later", retry=1_000)
        async def later(body: Update, ctx: Context) -> int:
            self.tries.append(body.item_id)
            if not self.calm.is_set():
                raise Retry(after=1)
            self.effects.append(body.item_id)
            return body.quantity

        @agent.task("pay")
        async def pay(body: Update, ctx: Context) -> int:
            self.effects.append(body.item_id)
            return body.quantity

        @agent.on("event.web.noted")
        async def noted(body: Update, ctx: Context) -> None:
            self.effects.append(body.item_id)

        return agent

    @asynccontextmanager
    async def bare(self, *, sync: bool = True, notary: bool = False) -> AsyncIterator[None]:
        """Only the server and identities, as there are before anything else is started; with `notary` that as well."""
        domain = TrustDomain("example.org")
        names, dev = Names(domain), self.folder / "dev"
        authority = DevelopmentAuthority.open(dev / "authority.json", domain)
        roles = {names.id_of("backup"): BrokerRole.BACKUP, names.id_of("operator"): BrokerRole.OPERATOR,
                 names.id_of("notary"): BrokerRole.NOTARY}  # fmt: skip
        async with EmbeddedWorkloadApi(dev / "api", authority) as api, Background() as group:
            for one in roles:
                await api.add_identity(one)
            async with EmbeddedNatsServer(
                dev / "nats",
                tasks=group,
                names=names,
                write_svid=lambda where: write_server_svid(
                    where, api.authority, SpiffeId("spiffe://example.org/nats"), dns=("localhost",)
                ),
                workloads=roles,
                port=self.port,
                store=StoreOptions(sync=sync),
            ):
                if not notary:
                    yield
                    return
                async with running_notary(load_settings(self.settings)):
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
        await until(lambda: log_end(self.log) >= last and self.size > beyond, seconds=60)


async def captured(settings: Settings) -> list[Delivery]:
    """Return all tasks as somebody on the wire has them."""
    async with open_connection("operator", settings) as (_, connection):
        return [one async for some in NatsTransport(connection).read("TASKS", ["task.>"]) for one in some]


async def send_again(settings: Settings, messages: Sequence[Delivery]) -> list[bool]:
    """Store captured messages again, and return whether the server knew each."""
    again = [
        Outgoing(
            subject=message.subject,
            payload=message.payload,
            message_id=header_value(message.header_block, "Nats-Msg-Id"),
        )
        for message in messages
    ]
    async with open_connection("operator", settings) as (_, connection):
        answers = await NatsTransport(connection).publish(again, deadline=10)
    found = [one.duplicate for one in answers if isinstance(one, PubAck)]
    assert len(found) == len(messages)
    return found
