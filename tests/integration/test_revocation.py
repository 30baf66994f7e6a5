"""A session that ends at its identity provider, over real processes: denied at the next hop, and the record says why.

The provider is npm's oidc-provider, the server a real nats-server with the permissions of each identity, the revoker `sealbus
control run` as a process of its own; another process follows the policy, as any worker does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel
from support import revocation_watcher
from support.callout import policy_folder
from support.issuer import AUDIENCE, LoopbackIssuer, new_key
from support.lab import until
from support.oidc_provider import CLIENT, ES256_API, OidcProvider
from support.policy_desk import key_file
from support.ports import held_port
from support.security_events import RECEIVER, SESSION_REVOKED, event_token, iss_sub, opaque

from sealbus import Agent, Context, Resource
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.edge.edge import open_edge
from sealbus.agents.edge.v1.revocation_routes import LOGOUT_PATH, SECURITY_EVENTS_PATH
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_audit_trail, open_connection, open_node
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.stream_names import AUDIT
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.keys import SigningKey, key_id, public_pem

pytestmark = [pytest.mark.nats, pytest.mark.idp]

IN_FORCE = 3.0
"""Seconds from the report to its being in force in another process: what is promised."""
GENEROUS = 60.0
"""What fails the test, on a machine with two busy cores."""


class Plan(BaseModel):
    item_ids: list[str]
    quantity: int


class Read(BaseModel):
    item_id: str


class Stock(BaseModel):
    item_id: str


class Chain:
    """An agent that waits in the middle of its work, and one that it then asks."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.handled: list[str] = []
        self.planner, self.inventory = Agent("planner"), Agent("inventory")

        @self.planner.call("plan", facts=["quantity"], timeout=30.0)
        async def plan(body: Plan, ctx: Context) -> Stock:
            self.began.set()
            await self.go_on.wait()
            return await ctx.call("inventory.read", Read(item_id=body.item_ids[0]), returns=Stock)

        async def item(body: Read) -> Resource:
            return Resource("item", body.item_id, owner="alice", customer="acme", region="always")

        @self.inventory.call("read", resource=item)
        async def read(body: Read, ctx: Context) -> Stock:
            del ctx
            self.handled.append(body.item_id)
            return Stock(item_id=body.item_id)


@dataclass(kw_only=True)
class Site:
    settings: Settings
    provider: OidcProvider
    issuer: LoopbackIssuer
    edge: httpx2.AsyncClient
    chain: Chain
    nodes: Sequence[Node]
    watcher: Process

    async def in_force(self) -> float:
        """Return when the first list came in force in the other process, once it is in force in all that are here."""
        assert self.watcher.stdout is not None
        async with asyncio.timeout(GENEROUS):
            seen = float(await self.watcher.stdout.readline())
        await until(lambda: all(node.revocations() for node in self.nodes))
        return seen

    async def plan(self, token: str) -> httpx2.Response:
        fields = {"Authorization": f"Bearer {token}"}
        return await self.edge.post("/v1/calls/planner/plan", json={"item_ids": ["42"], "quantity": 1}, headers=fields)

    async def decisions(self, action: str) -> list[DecisionRecord]:
        async with open_audit_trail("operator", self.settings) as trail:
            records = [one.record async for one in trail.entries() if isinstance(one, AuditEntry)]
        return [one for one in records if isinstance(one, DecisionRecord) and one.action == action]


def settings_of(environment: Environment, folder: Path, *, port: int, provider: str, issuer: str) -> str:
    """Return the settings of a deployment whose policy is in a bucket, with two issuers that report."""
    dev = environment.settings

    def text(value: object) -> str:
        return json.dumps(value if isinstance(value, list) else str(value))

    return f"""
trust_domain = "example.org"
nats = {text(list(dev.nats))}
nats_ids = {text([str(one) for one in dev.nats_ids])}
workload_api = {text(dev.workload_api)}
[policy]
engine = "embedded"
bundle = "nats://policies"
cache = {text(folder / "cache")}
keys = [{text(folder / "platform.pub")}]
[agents]
edge = "spiffe://example.org/edge"
[context]
minters = ["spiffe://example.org/edge"]
[streams.max_bytes]
tasks = {dev.max_bytes["TASKS"]}
audit = {dev.max_bytes[AUDIT]}
[control.revoker]
key = {text(folder / "revoker.pem")}
[edge]
address = "127.0.0.1:{port}"
resource = "http://127.0.0.1:{port}"
actions = ["planner.plan"]
[[edge.issuers]]
issuer = {text(provider)}
audiences = [{text(ES256_API)}]
logout_audiences = [{text(CLIENT["id"])}]
[[edge.issuers]]
issuer = {text(issuer)}
audiences = [{text(AUDIENCE)}]
event_audiences = [{text(RECEIVER)}]
"""


def policy_of(folder: Path, revoker: SigningKey) -> Path:
    """Return the starter policy, with the key that signs revocations."""
    policy = policy_folder(folder)
    revokers = policy / "sealbus" / "platform" / "revokers"
    revokers.mkdir(parents=True)
    (revokers / "data.json").write_text(json.dumps({key_id(revoker.public): public_pem(revoker.public)}))
    return policy


@asynccontextmanager
async def process(ready: Callable[[bytes], bool], *command: str | Path) -> AsyncIterator[Process]:
    """Run a process until the end of the block, from when it has said that it is ready."""
    started = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, stderr=DEVNULL)
    try:
        assert started.stdout is not None
        async with asyncio.timeout(60):
            while not ready(line := await started.stdout.readline()):
                assert line, "it ended at once"
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    port, chain = held_port(), Chain()
    agents = ("planner", "inventory", "pricing", "revoker")
    options = DevOptions(folder=tmp_path / "dev", agents=agents, port=-1, max_bytes=1 << 26)
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(open_environment(options))
        issuer = await stack.enter_async_context(LoopbackIssuer())
        provider = await stack.enter_async_context(
            OidcProvider({"ec-1": ("ES256", new_key())}, logout_uri=f"http://127.0.0.1:{port}{LOGOUT_PATH}")
        )
        _, root = key_file(tmp_path / "platform.pem")
        (tmp_path / "platform.pub").write_text(public_pem(root.public))
        revoker_file, revoker = key_file(tmp_path / "revoker.pem")
        revoker_file.chmod(0o600)
        file = tmp_path / "sealbus.toml"
        file.write_text(settings_of(environment, tmp_path, port=port, provider=provider.issuer, issuer=issuer.issuer))
        settings = load_settings(file, environment={})
        async with open_connection("operator", settings) as (_, connection):
            store = PolicyStore(connection, "policies")
            await store.create()
            content = content_of(policy_of(tmp_path / "policy", revoker))
            await push_content(store, {key_id(root.public): root.public}, "platform", content, root)
        command = ("-m", "sealbus", "control", "run", "--roles", "revoker", "--config", file, "--json")
        await stack.enter_async_context(process(lambda line: b'"ready"' in line, *command))
        watcher = await stack.enter_async_context(
            process(lambda line: line == b"ready\n", revocation_watcher.__file__, file, "pricing")
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        stop = asyncio.Event()
        stack.callback(stop.set)
        nodes = []
        for agent in (chain.planner, chain.inventory):
            node = await stack.enter_async_context(open_node(agent.name, settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
            nodes.append(node)
        nodes.append((await stack.enter_async_context(open_edge(settings))).node)
        edge = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        await stack.enter_async_context(edge)
        yield Site(
            settings=settings,
            provider=provider,
            issuer=issuer,
            edge=edge,
            chain=chain,
            nodes=nodes,
            watcher=watcher,
        )


async def told_of(site: Site, kind: str, issuer: str) -> None:
    """The edge's call to the revoker is a decision like every other."""
    [decided] = await site.decisions("revoker.revoke")
    asked: dict[str, Any] = json.loads(decided.input or b"{}")
    assert decided.allow
    assert asked["subject"]["id"] == "spiffe://example.org/edge"
    assert (asked["action"]["properties"]["kind"], asked["action"]["properties"]["issuer"]) == (kind, issuer)


async def test_logging_out_at_the_provider_ends_what_runs_at_its_next_hop(site: Site) -> None:
    token = await site.provider.user_token("alice", ES256_API)
    running = asyncio.create_task(site.plan(token))
    await site.chain.began.wait()
    reported = time.time()
    await site.provider.log_out("alice")
    seconds = await site.in_force() - reported
    sys.stdout.write(f"\nlogged out, and in force in another process after {seconds:.2f} s ({IN_FORCE} are promised)\n")
    assert seconds < GENEROUS
    site.chain.go_on.set()
    answer = await running
    assert (answer.status_code, answer.json()["code"], site.chain.handled) == (403, "denied", [])
    [read] = await site.decisions("inventory.read")
    assert (read.allow, read.reasons, read.policy) == (False, ("revoked_session",), "revocations")
    await told_of(site, "session", site.provider.issuer)
    # Nor does anything begin with that token; another session of the same user does.
    again = await site.plan(token)
    assert (again.status_code, again.json()["code"]) == (401, "revoked")
    other = await site.plan(await site.provider.user_token("alice", ES256_API))
    assert (other.status_code, site.chain.handled) == (200, ["42"])


@pytest.mark.parametrize("what", ["session", "user"])
async def test_a_security_event_does_the_same(site: Site, what: str) -> None:
    second = int(time.time())
    token = site.issuer.token(sid="session-1", auth_time=second - 60)
    running = asyncio.create_task(site.plan(token))
    await site.chain.began.wait()
    subject = opaque("session-1") if what == "session" else iss_sub(site.issuer, "alice")
    reported = time.time()
    answer = await site.edge.post(
        SECURITY_EVENTS_PATH,
        content=event_token(site.issuer, SESSION_REVOKED, subject),
        headers={"Content-Type": "application/secevent+jwt"},
    )
    assert answer.status_code == 202, answer.text
    seconds = await site.in_force() - reported
    sys.stdout.write(f"\nreported, and in force in another process after {seconds:.2f} s ({IN_FORCE} are promised)\n")
    assert seconds < GENEROUS
    site.chain.go_on.set()
    assert ((await running).status_code, site.chain.handled) == (403, [])
    [read] = await site.decisions("inventory.read")
    assert (read.allow, read.reasons, read.policy) == (False, (f"revoked_{what}",), "revocations")
    await told_of(site, what, site.issuer.issuer)
    # Who logs in again is somebody else.
    fresh = site.issuer.token(sid="session-2", auth_time=int(time.time()) + 1, jti="token-2")
    assert (await site.plan(fresh)).status_code == 200


async def test_many_events_at_once_are_few_pushes_and_each_a_record(site: Site) -> None:
    many = 300  # within what one address may send at once
    tokens = [event_token(site.issuer, subject=opaque(f"session-{number}")) for number in range(many)]
    fields = {"Content-Type": "application/secevent+jwt"}
    began = time.monotonic()
    answers = await asyncio.gather(
        *(site.edge.post(SECURITY_EVENTS_PATH, content=token, headers=fields) for token in tokens)
    )
    seconds = time.monotonic() - began
    assert {answer.status_code for answer in answers} == {202}
    [_, _, edge] = site.nodes
    await until(lambda: len(edge.revocations().sessions) == many)
    pushes = int(edge.revocations().revision.rpartition("-")[2])
    sys.stdout.write(f"\n{many} events were published in {seconds:.2f} s by {pushes} pushes\n")
    assert pushes <= seconds + 1
    assert len(await site.decisions("revoker.revoke")) == many
