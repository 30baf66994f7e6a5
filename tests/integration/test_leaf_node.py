"""A leaf node before a cluster of three: all that agents do goes through it, also after its link was cut, or it has died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ledger.servers import Layout, Servers, open_servers
from ledger.site import POLICY, Identities, broker_users, make_streams, settings_text
from pydantic import BaseModel
from support.workload_api import short_folder

from sealbus import Agent, Client, Context, Denied
from sealbus.agents.runtime.open import open_audit_trail, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.sending.answer import NoListener
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.bundle.files import build_bundle, write_bundle

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow]

WITHIN = 60.0


class Payment(BaseModel):
    amount: int


@dataclass
class Bank:
    """An agent that pays what it is told to, once."""

    paid: list[int] = field(default_factory=list)
    agent: Agent = field(default_factory=lambda: Agent("bank"))

    def __post_init__(self) -> None:
        @self.agent.task("pay", facts=["amount"], once=True)
        async def pay(payment: Payment, ctx: Context) -> int:
            await ctx.progress("begun")
            self.paid.append(payment.amount)
            return sum(self.paid)

        @self.agent.call("sum", facts=["amount"])
        async def total(payment: Payment, ctx: Context) -> int:
            return sum(self.paid)


@dataclass(kw_only=True)
class Behind:
    """The agent and a client behind the leaf node, and settings of who is connected to the cluster itself."""

    servers: Servers
    bank: Bank
    client: Client
    at_the_cluster: Settings


@asynccontextmanager
async def behind(folder: Path) -> AsyncIterator[Behind]:
    (folder / "policy").mkdir()
    (folder / "policy" / "authz.rego").write_text(POLICY)
    write_bundle(build_bundle(folder / "policy"), folder / "bundle.tar.gz")
    policy = f'engine = "embedded"\nbundle = "{folder / "bundle.tar.gz"}"'
    async with AsyncExitStack() as stack:
        identities = Identities(folder / "api")
        stack.push_async_callback(identities.stop)
        await identities.start()
        servers = await stack.enter_async_context(
            open_servers(folder, Layout.LEAF, authority=identities.authority, users=broker_users())
        )
        await servers.start()
        settings = []
        for name, ports in (("leaf", servers.entrances), ("cluster", [one.port for one in servers.storing])):
            (folder / f"{name}.toml").write_text(settings_text(folder, ports, policy=policy, replicas=3))
            settings.append(load_settings(folder / f"{name}.toml"))
        await make_streams(settings[1])
        bank, stop = Bank(), asyncio.Event()
        client = Client.on(await stack.enter_async_context(open_node("shop", settings[0])))
        node = await stack.enter_async_context(open_node("bank", settings[0]))
        worker = await stack.enter_async_context(Worker(bank.agent, node))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(stop.set)
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        yield Behind(servers=servers, bank=bank, client=client, at_the_cluster=settings[1])


async def pay(client: Client, amount: int) -> int:
    """Submit until it is acknowledged, and wait for the result: one payment, however often it is tried."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                handle = await client.submit("bank.pay", Payment(amount=amount), idempotency_key=f"payment-{amount}")
            except BusUnavailable:
                await asyncio.sleep(0.1)
            else:
                return await handle.result(int, timeout=WITHIN)


async def test_everything_goes_through_a_leaf_node_and_on_after_it_was_cut_off_or_died() -> None:
    with short_folder() as folder:
        async with behind(folder) as here:
            client = here.client
            # Tasks and their statuses, calls, denials, and the answer that nobody listens.
            handle = await client.submit("bank.pay", Payment(amount=1))
            assert await handle.result(int) == 1
            async with aclosing(handle.statuses()) as statuses:
                told = [(one.state, one.note) async for one in statuses]
            assert (State.WORKING, "begun") in told
            assert told[-1][0] is State.COMPLETED
            assert await client.call("bank.sum", Payment(amount=1), returns=int) == 1
            with pytest.raises(Denied) as denied:
                await (await client.submit("bank.pay", Payment(amount=1_000))).result(int)
            assert denied.value.code == "denied"
            with pytest.raises(NoListener):
                await client.call("bank.nothing", Payment(amount=1), returns=int)

            for link in here.servers.link:
                link.cut()
            cut_off = asyncio.ensure_future(pay(client, 2))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await asyncio.shield(cut_off)
            assert here.bank.paid == [1]
            for link in here.servers.link:
                await link.mend()
            assert await cut_off == 3

            assert here.servers.leaf is not None
            await here.servers.leaf.kill()
            await here.servers.leaf.start()
            assert await pay(client, 3) == 6

            # Who is connected to the cluster itself has all of it.
            async with open_node("shop", here.at_the_cluster) as node:
                again = Client.on(node)
                assert await again.handle(handle.text).result(int) == 1
                assert await pay(again, 4) == 10
            assert here.bank.paid == [1, 2, 3, 4]
            async with open_audit_trail("operator", here.at_the_cluster) as trail:
                entries = [entry async for entry in trail.entries()]
            assert all(isinstance(entry, AuditEntry) for entry in entries)
            decisions = [
                entry.record
                for entry in entries
                if isinstance(entry, AuditEntry) and isinstance(entry.record, DecisionRecord)
            ]
            # Messages, not decisions: one whose acknowledgement the cut took away is delivered, and decided, again.
            assert len({record.header for record in decisions if not record.allow}) == 1
            assert len({record.header for record in decisions if record.allow}) >= 5
