"""What the scenes play on: the environment, two workers, clients, and the audit stream read as it grows."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sealbus.agents.client import Client
from sealbus.agents.demo.shop import inventory, pricing
from sealbus.agents.dev.defaults import STARTER_AGENTS
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment, starter_policy
from sealbus.agents.dev.minting import minted_user
from sealbus.agents.runtime import open_audit_trail, open_connection, open_node
from sealbus.agents.worker import Worker
from sealbus.bus.audit_trail import AuditEntry, AuditTrail, Finding
from sealbus.bus.ports import Delivery
from sealbus.bus.transport import NatsTransport
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.wire import Statement

__all__ = ["Stage", "open_stage"]

STRANGER = "stranger"
"""An agent with a good identity that the policy does not know."""

WITHIN = 15.0
"""Seconds that anything on the stage may take before the demonstration gives up."""


class Stage:
    """The running shop; scenes read decisions and refusals from it by waiting, never by sleeping."""

    def __init__(self, environment: Environment, policy: Path, operator: NatsTransport) -> None:
        self.environment = environment
        self.policy = policy
        self.operator = operator
        self.clients: dict[str, Client] = {}
        self.decisions: dict[str, DecisionRecord] = {}
        self.refused: dict[str, int] = {}
        self.records = 0
        self.findings: list[Finding] = []
        self._changed = asyncio.Condition()
        self.flush: list[Callable[[], object]] = []

    async def user(self, identifier: str, workload: str = "shop-web", session: str = "") -> Statement:
        """Return a context that the edge's identity minted for `workload`."""
        return await minted_user(self.environment.settings, identifier, workload, session)

    async def decision(self, message_id: str) -> DecisionRecord:
        """Wait for the recorded decision on a message."""
        async with asyncio.timeout(WITHIN), self._changed:
            await self._changed.wait_for(lambda: message_id in self.decisions)
        return self.decisions[message_id]

    async def refusal(self, code: str, before: int) -> None:
        """Wait until more than `before` refusals with `code` were published."""
        async with asyncio.timeout(WITHIN), self._changed:
            await self._changed.wait_for(lambda: self.refused.get(code, 0) > before)

    async def last_task(self) -> Delivery:
        """Return the newest stored task, as the operator of NATS sees it."""
        found: Delivery | None = None
        async for batch in self.operator.read("TASKS", ["task.>"]):
            found = batch[-1]
        if found is None:
            raise RuntimeError("no task is stored")
        return found

    def edit_data(self, document: str, change: Callable[[dict[str, object]], None]) -> None:
        """Change one data document of the policy and publish the bundle anew."""
        path = self.policy / "sealbus" / "registry" / document / "data.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(json.dumps(data), encoding="utf-8")
        self.environment.publish_policy()

    async def follow(self, trail: AuditTrail) -> None:
        """Read the audit stream as it grows."""
        async for entry in trail.entries(follow=True):
            async with self._changed:
                if isinstance(entry, Finding):
                    self.findings.append(entry)
                else:
                    self._take(entry)
                self._changed.notify_all()

    async def follow_refusals(self) -> None:
        """Read the refusals as they are published."""
        async for batch in self.operator.read("REFUSALS", ["refused.>"], follow=True):
            async with self._changed:
                for delivery in batch:
                    said = json.loads(delivery.payload)
                    self.refused[said["code"]] = self.refused.get(said["code"], 0) + said["count"]
                self._changed.notify_all()

    def _take(self, entry: AuditEntry) -> None:
        self.records += 1
        if isinstance(entry.record, DecisionRecord) and entry.decided is not None:
            self.decisions[entry.decided.id.hex()] = entry.record


@asynccontextmanager
async def open_stage(folder: Path, *, engine: str, opa: Path | None) -> AsyncGenerator[Stage, None]:
    """Start everything in `folder`, on a free port, with a copy of the starter policy that scenes may change."""
    policy = await asyncio.to_thread(_fresh_policy, folder)
    options = DevOptions(
        folder=folder,
        agents=(*STARTER_AGENTS, STRANGER),
        port=-1,
        engine=engine,
        opa=opa,
        policy=policy,
    )
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(open_environment(options))
        settings = environment.settings
        _, connection = await stack.enter_async_context(open_connection("operator", settings))
        stage = Stage(environment, policy, NatsTransport(connection))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        trail = await stack.enter_async_context(open_audit_trail("operator", settings))
        followers = [group.create_task(stage.follow(trail)), group.create_task(stage.follow_refusals())]
        for follower in followers:
            stack.callback(follower.cancel)
        stop = asyncio.Event()
        for agent in (inventory, pricing):
            node = await stack.enter_async_context(open_node(agent.name, settings))
            worker = await stack.enter_async_context(Worker(agent, node))
            running = group.create_task(worker.run(stop))
            stack.push_async_callback(_finish, stop, running)
            await worker.ready.wait()
            stage.clients[agent.name] = Client.on(node)
        for name in ("shop-web", STRANGER):
            node = await stack.enter_async_context(open_node(name, settings))
            stage.clients[name] = Client.on(node)
        yield stage


def _fresh_policy(folder: Path) -> Path:
    """Empty `folder` and return the copy of the starter policy in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    shutil.copytree(starter_policy(), folder / "rego")
    return folder / "rego"


async def _finish(stop: asyncio.Event, running: asyncio.Task[bool]) -> None:
    stop.set()
    await asyncio.wait([running])
