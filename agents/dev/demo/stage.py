"""The stage of the scenes: a running shop with its example agents as workers, and the audit stream read as it grows.

It can export its log, with the root file to verify the export.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sealbus.agents.dev.demo.backstage import WITHIN, Backstage, DevBackstage
from sealbus.agents.dev.demo.door import Door
from sealbus.agents.dev.environment import DevOptions, open_environment, starter_policy
from sealbus.agents.dev.settings_file import Declared, DevLog
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.trust_root import make_root
from sealbus.agents.examples import inventory, payments, planner, pricing
from sealbus.agents.examples.store import DATABASE_VARIABLE
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_audit_trail, open_connection, open_node
from sealbus.agents.runtime.settings.schema import IssuerTable
from sealbus.agents.runtime.settings.state_folder import STARTER_AGENTS
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.bus.audit.trail import AuditEntry, AuditFilter, AuditTrail, Finding
from sealbus.bus.background import Background
from sealbus.bus.nats.api import existing_stream
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery
from sealbus.bus.stream_names import AUDIT, REFUSALS, SUBJECTS
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.format import CHECKPOINT
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.records.work import OutcomeRecord

STRANGER = "stranger"
"""An agent with a good identity that the policy does not know."""

ROOT_FILE: Final = "root.json"
"""Stored next to the export, because a file inside the export cannot introduce trust."""

_LOOK_EVERY: Final = 0.05


class Stage:
    """The running shop; scenes await decisions and refusals from it, and never sleep."""

    def __init__(self, backstage: Backstage, operator: NatsTransport) -> None:
        self.backstage = backstage
        self.operator = operator
        self.clients: dict[str, Client] = {}
        self.door = Door(backstage.resource, backstage.token)
        self.entries: list[AuditEntry] = []
        self.findings: list[Finding] = []
        self.refused: dict[str, int] = {}
        self.waiting = ""
        """The task that waits for the policy engine."""
        self.approved: Mapping[str, Any] = {}
        """The approval that a manager has given, as it was shown."""
        self._changed = asyncio.Condition()

    async def decision(self, wanted: Callable[[AuditEntry], bool]) -> AuditEntry:
        """Wait for the first recorded decision that `found` accepts."""

        def look() -> list[AuditEntry]:
            return [entry for entry in self.entries if isinstance(entry.record, DecisionRecord) and wanted(entry)]

        async with asyncio.timeout(WITHIN), self._changed:
            return (await self._changed.wait_for(look))[0]

    async def bundle(self, jwks: bytes) -> None:
        """Wait until the notary has recorded that `jwks` is current."""
        async with asyncio.timeout(WITHIN), self._changed:
            await self._changed.wait_for(
                lambda: any(
                    isinstance(entry.record, BundleRecord) and entry.record.jwt == jwks for entry in self.entries
                )
            )

    async def decision_on(self, message_id: str) -> DecisionRecord:
        """Wait for the recorded decision on one message."""
        entry = await self.decision(
            lambda candidate: candidate.decided is not None and candidate.decided.id.hex() == message_id
        )
        if not isinstance(entry.record, DecisionRecord):
            raise TypeError("a decision")
        return entry.record

    async def outcomes(self, txn: bytes, count: int) -> list[tuple[str, str | None]]:
        """Wait for `count` outcomes of one user request; return the action of each, and its code if it failed."""

        def look() -> list[tuple[str, str | None]]:
            return [
                (entry.decision.action, entry.record.code)
                for entry in self.entries
                if isinstance(entry.record, OutcomeRecord) and entry.decision is not None and entry.txn == txn
            ]

        async with asyncio.timeout(WITHIN), self._changed:
            return await self._changed.wait_for(lambda: found if len(found := look()) >= count else [])

    async def refusal(self, code: str, before: int) -> None:
        """Wait until more than `before` refusals with `code` were published."""
        async with asyncio.timeout(WITHIN), self._changed:
            await self._changed.wait_for(lambda: self.refused.get(code, 0) > before)

    async def stored(self, stream: str, subject: str) -> Delivery:
        """Return the newest message of `subject` in `stream`, which the operator of NATS can read."""
        newest: Delivery | None = None
        async for batch in self.operator.read(stream, [subject]):
            newest = batch[-1]
        if newest is None:
            raise LookupError(f"nothing is stored under {subject}")
        return newest

    @contextmanager
    def database_held(self) -> Iterator[None]:
        """Lock the agents' database, so that loading a resource waits until this ends."""
        connection = sqlite3.connect(self.backstage.database, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    async def replay(self, user: str) -> tuple[list[AuditEntry], list[Finding]]:
        """Read the audit stream again from its beginning; return the decisions for `user`, and the findings."""
        decisions: list[AuditEntry] = []
        findings: list[Finding] = []
        async with open_audit_trail("operator", self.backstage.settings) as trail:
            async for entry in trail.entries(AuditFilter(user=user)):
                if isinstance(entry, Finding):
                    findings.append(entry)
                elif isinstance(entry.record, DecisionRecord):
                    decisions.append(entry)
        return decisions, findings

    async def follow(self, trail: AuditTrail) -> None:
        """Read the audit stream as it grows."""
        async for entry in trail.entries(follow=True):
            async with self._changed:
                if isinstance(entry, Finding):
                    self.findings.append(entry)
                else:
                    self.entries.append(entry)
                self._changed.notify_all()

    async def follow_refusals(self) -> None:
        """Read the refusals as they are published."""
        async for batch in self.operator.read(REFUSALS, [SUBJECTS[REFUSALS]], follow=True):
            async with self._changed:
                for delivery in batch:
                    refusal = json.loads(delivery.payload)
                    self.refused[refusal["code"]] = self.refused.get(refusal["code"], 0) + refusal["count"]
                self._changed.notify_all()


@asynccontextmanager
async def open_stage(
    folder: Path,
    *,
    engine: str,
    opa: Path | None,
    evidence: Path | None = None,
    issuers: Sequence[IssuerTable] = (),
    ports: tuple[int, int] = (0, 0),
    again: bool = False,
    rotate: bool = False,
) -> AsyncGenerator[Stage, None]:
    """Start the shop in `folder`, with a copy of the starter policy that scenes may change.

    A notary keeps a log, which is exported into the folder `evidence`, if one is given, at the end. The edge also accepts
    tokens of `issuers`. `ports` are those of the edge and of the identity provider, by default free ports. With `rotate`
    every key of the trust domain is replaced at the end. `again` restarts a shop that ran in `folder` before; its replaced
    keys no longer count.
    """
    if again:
        await asyncio.to_thread(_forget_keys, folder)
    policy = folder / "rego" if again else await asyncio.to_thread(_fresh_policy, folder)
    database = folder / "shop.sqlite"
    options = DevOptions(
        folder=folder,
        declared=await asyncio.to_thread(_declared, folder),
        agents=(*STARTER_AGENTS, STRANGER),
        port=-1,
        engine=engine,
        opa=opa,
        policy=policy,
        edge_port=ports[0],
        idp_port=ports[1],
        notary=True,
        issuers=issuers,
    )
    async with AsyncExitStack() as stack:
        environment = await stack.enter_async_context(open_environment(options))
        backstage = DevBackstage(environment, policy, database)
        group = await stack.enter_async_context(Background())
        stack.enter_context(_database(database))
        stop = asyncio.Event()
        for module in (pricing, inventory, planner, payments):
            node = await stack.enter_async_context(open_node(module.agent.name, environment.settings))
            worker = await stack.enter_async_context(Worker(module.agent, node))
            running = group.create_task(worker.run(stop))
            stack.push_async_callback(_finish, stop, running)
            await worker.ready.wait()
            backstage.workers[module.agent.name] = node
        stage = await stack.enter_async_context(stage_before(backstage, from_now=again))
        yield stage
        if rotate:
            await _rotate(stage, environment.authority)
        if evidence is not None and environment.log is not None:
            await leave_evidence(stage, environment.log, evidence)


def _declared(folder: Path) -> Declared:
    """Return the declarations of the shop: tools and skills, if the packages for their protocols are installed."""
    schema = folder / "inventory.json"
    schema.write_text(AgentSchema.of(inventory.agent).text(), encoding="utf-8")
    doors: dict[str, tuple[tuple[str, ...], list[str]]] = {
        "mcp": (("edge", "mcp", "actions"), [f"{inventory.agent.name}.*"]),
        "a2a": (("edge", "a2a", "agents"), [inventory.agent.name]),
    }
    there = {name for name in doors if find_spec(name) is not None}
    # Absolute, because a relative path counts from the settings file's folder, which is another.
    settings: dict[tuple[str, ...], object] = {("edge", "schemas"): [str(schema.absolute())]}
    settings |= {key: value for name, (key, value) in doors.items() if name in there}
    return Declared(kept=MappingProxyType(settings), mcp="mcp" in there)


async def _rotate(stage: Stage, authority: DevelopmentAuthority) -> None:
    """Replace every key, and wait until the notary has recorded it: the old keys vouch for the new keys there."""
    authority.prepare_x509()
    authority.prepare_jwt()
    await stage.bundle(authority.jwt_bundle())
    authority.activate_x509()
    authority.activate_jwt()


def _forget_keys(folder: Path) -> None:
    """Remove the replaced keys from the bundles."""
    authority = DevelopmentAuthority.open(folder / "authority.json", Declared().names().trust_domain)
    authority.prune_x509()
    authority.prune_jwt()


@asynccontextmanager
async def stage_before(backstage: Backstage, *, from_now: bool = False) -> AsyncGenerator[Stage, None]:
    """Open the stage of a running shop: the door, the clients of the scenes, and the operator who reads the audit stream.

    With `from_now` it reads only new records: the keys of earlier records are gone, and only the log proves those.
    """
    settings = backstage.settings
    async with AsyncExitStack() as stack:
        _, connection = await stack.enter_async_context(open_connection("operator", settings))
        stage = Stage(backstage, NatsTransport(connection))
        await stack.enter_async_context(stage.door)
        group = await stack.enter_async_context(Background())
        after = (await existing_stream(connection.jetstream, AUDIT)).last if from_now else 0
        trail = await stack.enter_async_context(open_audit_trail("operator", settings, after=after))
        for follower in (stage.follow(trail), stage.follow_refusals()):
            stack.callback(group.create_task(follower).cancel)
        for name in ("shop-web", "pricing", STRANGER):
            stage.clients[name] = await stack.enter_async_context(Client(name, settings=settings))
        yield stage


@contextmanager
def _database(path: Path) -> Iterator[None]:
    """Make the example agents share one file by the environment variable."""
    before = os.environ.get(DATABASE_VARIABLE)
    os.environ[DATABASE_VARIABLE] = str(path)
    try:
        yield
    finally:
        os.environ.pop(DATABASE_VARIABLE)
        if before is not None:
            os.environ[DATABASE_VARIABLE] = before


def _fresh_policy(folder: Path) -> Path:
    """Empty `folder` and return the copy of the starter policy in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    shutil.copytree(starter_policy(), folder / "rego")
    return folder / "rego"


async def _finish(stop: asyncio.Event, running: asyncio.Task[bool]) -> None:
    stop.set()
    await asyncio.wait([running])


async def leave_evidence(stage: Stage, log: DevLog, folder: Path) -> int:
    """Export the log into `folder`, which is emptied first, write the root file next to it, and return the number of entries.

    Waits until the log holds every decision made in the scenes.
    """
    # Records of checkpoints alone cause no further checkpoint.
    made = [entry.sequence for entry in stage.entries if not isinstance(entry.record, CheckpointRecord)]
    last = max(made, default=0)
    root = await asyncio.to_thread(make_root, stage.backstage.settings, keys=[log.verifier])
    async with asyncio.timeout(WITHIN):
        # The first entry is the stream's creation, so entry n + 1 is message n.
        while await asyncio.to_thread(_size, log.folder, root) <= last:  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(_LOOK_EVERY)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(lambda: folder.parent.mkdir(parents=True, exist_ok=True))
    written = await export_log(folder, get=log_files(log.folder), transport=stage.operator, root=root)
    if written.missing_count:
        raise ConfigurationError(f"{written.missing_count} messages of the log are not in the stream")
    await asyncio.to_thread((folder.parent / ROOT_FILE).write_bytes, root.encode())
    return written.entries


def _size(folder: Path, root: Root) -> int:
    """Return the number of entries under the last checkpoint."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    return open_checkpoint(path.read_bytes(), origin=root.origin, verifiers=root.keys).checkpoint.size
