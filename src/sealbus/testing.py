"""Tests of agents: `TestBus` in memory, with real sealing, policy and records, and `LiveBus` on a real NATS server.

::

    async with TestBus(agent, policy=Path("policy")) as bus:
        user = bus.user("u-1001", "shop-web")
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
        await bus.idle()
        await bus.assert_allowed("inventory.update")

A task's handle gives its result: `await (await client.submit(...)).result(Update)`. The clock is the host's unless
another is given. Deployments run the same code over NATS and the Workload API. `sealbus.pytest_plugin` has fixtures of both.
"""

from __future__ import annotations

import asyncio
import json
import random as random_module
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryPull
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.memory.jetstream import StreamConfig
from sealbus.agents.dev.users import EDGE_PATH, DevUser, mint_user
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import AuditOptions, Deployment, Feeds, Host, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.audit.redaction import Recording
from sealbus.bus.audit.trail import AuditEntry, AuditTrail, Finding
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.background import Background
from sealbus.bus.clocks import HostClock, wall_clock
from sealbus.bus.ports import Clock, Delivery
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.bus.sending.status import State, Status
from sealbus.bus.stream_names import REFUSALS, SUBJECTS
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked, ParkedState, parse_parked
from sealbus.bus.work.executor.told_detail import verbs_served
from sealbus.envelopes.errors import ConfigurationError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.message.user_context import ClaimValue, SubjectType
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.policies.decision.engine import PolicyEngine

if TYPE_CHECKING:
    from sealbus.agents.dev.environment import Environment

__all__ = ["LiveBus", "SubjectType", "TestBus"]

STREAM_BYTES = 64 * 1_048_576
"""What each stream may hold."""


class TestBus:
    """A bus that runs `agents` behind the gate in memory, decided by the policy folder `policy`, or by `engine` if given.

    Without either the starter policy decides. `redact` and `bodies` are as the settings `audit.redact` and `audit.bodies`.
    Without `development` requesters are told no texts of errors, as in deployments. `revocations` gives those in force, by
    word of identity providers. Unless `limits` say otherwise, a task whose verb no agent has fails instead of waiting for one
    that has. Enter with `async with`; leaving stops the workers and finishes their work.
    """

    __test__ = False  # pytest would otherwise collect the class by its name

    def __init__(
        self,
        *agents: Agent,
        policy: Path | None = None,
        engine: PolicyEngine | None = None,
        trust_domain: str = "example.org",
        own: Sequence[OwnSubject] = (),
        limits: WorkerLimits | None = None,
        audit_limits: AuditLimits | None = None,
        redact: Mapping[str, Sequence[str]] | None = None,
        bodies: Sequence[str] = (),
        development: bool = True,
        revocations: Callable[[], Revocations] = lambda: NONE_REVOKED,
        clock: Clock = wall_clock,
        random: random_module.Random | None = None,
    ) -> None:
        self._agents = agents
        self._policy = policy
        self._engine = engine
        # No other process has a verb that none has here.
        self._limits = limits or WorkerLimits(verbs_awaited=False)
        self._audit_limits = audit_limits
        self._recording = Recording(redact or {}, bodies)
        self._revocations = revocations
        self._clock = _MovedClock(clock)
        self._random = (random or random_module.Random()).random  # noqa: S311  jitter, not a secret
        self.trust_domain = TrustDomain(trust_domain)
        edge = SpiffeId(f"spiffe://{trust_domain}{EDGE_PATH}")
        self.names = Names(self.trust_domain, table={"edge": edge})
        self.authority = DevelopmentAuthority(self.trust_domain, clock=self._clock)
        self.broker = MemoryBroker(self._clock)
        self.edge = MemoryIdentity(self.authority, edge)
        self.deployment = Deployment(
            names=self.names,
            minters=frozenset({self.edge.spiffe_id}),
            own_subjects=own_subjects(*own),
            development=development,
        )
        for stream in declared_streams(dict.fromkeys(SUBJECTS, STREAM_BYTES), own=own):
            # Whoever lets days pass still reads what came of a task.
            self.broker.add(replace(StreamConfig.of_declared(stream), max_age=0))
        self.workers: dict[str, Worker] = {}
        self._nodes: dict[str, Node] = {}
        self._stop = asyncio.Event()
        self._stack = AsyncExitStack()
        self._all = AsyncExitStack()

    @classmethod
    def of_project(cls, folder: Path) -> Self:
        """Return a bus with the agents and the policy of the project in `folder`, as its `sealbus.toml` names them.

        Raises `ConfigurationError` for a file that the settings would not accept, or that names no agent.
        """
        from sealbus.agents.cli.run.worker import load_agents
        from sealbus.agents.dev.settings_file import read_declared

        declared = read_declared(folder / "sealbus.toml")
        if not declared.run:
            raise ConfigurationError(f"{folder / 'sealbus.toml'} names no agent under [dev.agents]")
        return cls(
            *load_agents(list(declared.run.values())),
            policy=declared.policy,
            trust_domain=declared.trust_domain,
            own=declared.own,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._engine is None:
                from sealbus.policies.engines.embedded import EmbeddedEngine

                self._engine = await stack.enter_async_context(EmbeddedEngine.of_folder(self._policy))
            group = await stack.enter_async_context(Background())
            nodes = await stack.enter_async_context(AsyncExitStack())
            self._stack = nodes
            for agent in self._agents:
                node = await self._node(agent.name)
                worker = await nodes.enter_async_context(Worker(agent, node, self._limits))
                self.workers[agent.name] = worker
            running = [group.create_task(worker.run(self._stop)) for worker in self.workers.values()]
            for worker in self.workers.values():
                await worker.ready.wait()
            await asyncio.sleep(0)  # lets every source subscribe
            nodes.push_async_callback(self._finish, running)
            self._all = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._all.__aexit__(kind, error, trace)

    async def _finish(self, running: Sequence[asyncio.Task[bool]]) -> None:
        self._stop.set()
        if running:
            await asyncio.wait(running)

    async def _node(self, name: str) -> Node:
        if name not in self._nodes:
            if self._engine is None:
                raise RuntimeError("use the bus inside `async with`")
            identity = MemoryIdentity(self.authority, self.names.id_of(name))
            node = Node(
                deployment=self.deployment,
                identity=identity,
                transport=self.broker.connect(),
                engine=self._engine,
                audit=AuditOptions(limits=self._audit_limits or AuditLimits(), recording=self._recording),
                feeds=Feeds(revocations=self._revocations, served=self._served if self.deployment.development else str),
                host=Host(clock=HostClock(self._clock), elapsed=self._clock.elapsed, random=self._random),
            )
            self._nodes[name] = await self._stack.enter_async_context(node)
        return self._nodes[name]

    def _served(self) -> str:
        return verbs_served(route for worker in self.workers.values() for route in worker.routes.routes)

    async def client(self, name: str) -> Client:
        """Return a client with the identity of `name`, which may be one of the agents."""
        return Client.on(await self._node(name))

    def user(
        self,
        identifier: str,
        workload: str,
        *,
        session: str = "",
        client: str = "dev",
        scope: Sequence[str] = (),
        claims: Mapping[str, ClaimValue] | None = None,
        tenant: str | None = None,
        acr: str | None = None,
        amr: Sequence[str] | None = None,
        login_age: float | None = None,
        typ: SubjectType | None = None,
        domain: str | None = None,
    ) -> Statement:
        """Return a signed user context, minted as by the edge for the workload named `workload` and no other.

        `acr` and `amr` say how the user logged in, `login_age` how many seconds ago: 3600 for a policy that wants a fresh
        login to refuse. By default nothing is said of it, as by an issuer whose tokens do not have these claims. With
        `domain` it is the partner's, who calls it `identifier`; `typ` says what it is if it is no user.
        """
        return mint_user(
            self.edge.sealer(),
            DevUser(
                identifier,
                session=session,
                client=client,
                scope=scope,
                claims=claims,
                tenant=tenant,
                workload=self.names.id_of(workload),
                acr=acr,
                amr=amr,
                login_age=login_age,
                typ=typ,
                domain=TrustDomain(domain) if domain is not None else None,
            ),
            trust_domain=self.trust_domain,
            now=self._clock(),
        )

    async def waiting(self) -> list[Parked]:
        """Return the tasks that wait for somebody's approval, by when they were parked."""
        node = (await self.client("edge")).node
        found = [parse_parked(one) for one in (await node.held.newest("held.*.task.>", PARKED_TYPE)).values()]
        waiting = [one for one in found if one.state is ParkedState.WAITING and self._clock() < one.until]
        return sorted(waiting, key=lambda one: one.since)

    async def approve(
        self,
        task: TaskHandle | Parked,
        identifier: str,
        *,
        verdict: str = "approve",
        note: str = "",
        session: str = "",
        claims: Mapping[str, ClaimValue] | None = None,
        acr: str | None = None,
        login_age: float | None = 0.0,
    ) -> None:
        """Say `verdict` about a task that waits, as the user `identifier` would at the edge, and return once it is counted.

        By default they have just logged in; `acr` says how. Raises `Denied` if the policy does not let them, `RemoteError`
        with the code of a floor that they do not meet: `approval_self`, `approval_weak` and so on; `LookupError` if nothing
        waits.
        """
        digest = task.digest
        parked = next((one for one in await self.waiting() if one.digest == digest), None)
        if parked is None or parked.header.aud is None:
            raise LookupError("this task does not wait for an approval")
        user = mint_user(
            self.edge.sealer(),
            DevUser(
                identifier,
                session=session,
                scope=("sealbus:approve",),
                claims=claims,
                acr=acr,
                login_age=login_age,
            ),
            trust_domain=self.trust_domain,
            now=self._clock(),
        )
        await (await self.client("edge")).node.sending.approve(
            digest,
            ApprovalRequest(decision=parked.leaf, verdict=Verdict(verdict), note=note),
            agent=parked.header.aud,
            follows=parked.obligation.follows,
            user=user,
        )

    async def idle(self, within: float = 10.0) -> None:
        """Wait until every stored task and event is settled by its consumer; raises `TimeoutError`."""
        async with asyncio.timeout(within):
            for pull in self.broker.consumers.values():
                await _settled(pull)
        for worker in self.workers.values():
            await worker.settle()

    async def advance(self, seconds: float, *, idle: bool = True) -> int:
        """Let `seconds` pass, from tick to tick of all schedules, and return how many were sent.

        After each tick its work is waited for, as by `idle`; with `idle=False` it is not, as if handlers took longer than the
        schedule's interval. Handlers do not wait less for that: what sleeps goes on sleeping.
        """
        end, sent = self._clock() + int(seconds * SECOND), self._sent()
        while True:
            await self._settled(idle=idle)
            # Up to here nothing is due any more: on to the next tick.
            due = [tick for one in self.workers.values() if (tick := one.schedules.next_tick()) is not None]
            if self._clock() >= end:
                return self._sent() - sent
            self._clock.set(min([end, *due]))

    def _sent(self) -> int:
        return sum(worker.schedules.sent for worker in self.workers.values())

    async def _settled(self, *, idle: bool) -> None:
        sent = -1
        # A tick may have waited for work that is done now.
        while sent != (sent := self._sent()):
            for worker in self.workers.values():
                await worker.schedules.settle()
            if idle:
                await self.idle()

    async def audit(self) -> list[AuditEntry]:
        """Return every record so far, each verified; raises `AssertionError` if one does not verify."""
        trail = AuditTrail(
            transport=self.broker.connect(),
            profile=ArchiveProfile(names=self.names, minters=self.deployment.minters),
            bundles=self.edge.bundles,
        )
        entries = [entry async for entry in trail.entries()]
        findings = [entry for entry in entries if isinstance(entry, Finding)]
        if findings:
            raise _unverified(findings)
        return [entry for entry in entries if isinstance(entry, AuditEntry)]

    async def decisions(self, action: str) -> list[DecisionRecord]:
        """Return the decisions recorded for `action`, in order."""
        return [
            entry.record
            for entry in await self.audit()
            if isinstance(entry.record, DecisionRecord) and entry.record.action == action
        ]

    async def assert_allowed(self, action: str) -> None:
        """Raise `AssertionError` unless the last decision for `action` allowed."""
        last = await self._last(action)
        if not last.allow:
            raise AssertionError(f"{action}: {last.code}, {', '.join(last.reasons)}")

    async def assert_denied(self, action: str, code: str = "denied", reason: str | None = None) -> None:
        """Raise `AssertionError` unless the last decision for `action` was a denial with `code` and, if given, `reason`."""
        last = await self._last(action)
        if last.allow or last.code != code or (reason is not None and reason not in last.reasons):
            raise AssertionError(f"{action}: allow {last.allow}, code {last.code}, reasons {last.reasons}")

    @asynccontextmanager
    async def expect_denied(
        self, action: str, *, code: str = "denied", reason: str | None = None
    ) -> AsyncGenerator[None, None]:
        """Raise `AssertionError` unless `action` is denied in the body with `code` and, if given, for `reason`.

        What counts is the decision that was recorded, which has reasons that the requester may not be shown. The error with
        this code ends here; any other comes out as itself.
        """
        before = len(await self.decisions(action))
        async with _ended_by(code):
            yield
        await self.idle()
        made = (await self.decisions(action))[before:]
        if not any(_is_denial(one, code, reason) for one in made):
            raise _another(action, code, reason, made)

    async def statuses(self, handle: TaskHandle) -> list[Status]:
        """Return the statuses of a task so far, as its requester reads them; its policy decides about a result."""
        async with aclosing(handle.reader.statuses(handle.task, follow=False)) as statuses:
            return [status async for status in statuses]

    async def assert_task(self, handle: TaskHandle, state: str, code: str = "") -> None:
        """Raise `AssertionError` unless the newest status of a task is `state`, with `code`."""
        found = await self.statuses(handle)
        said = (found[-1].state, found[-1].code) if found else ("submitted", "")
        if said != (state, code):
            raise AssertionError(f"{handle.action}: {said[0]} {said[1]}".rstrip())

    def refusals(self) -> list[Mapping[str, object]]:
        """Return the refusals published so far; `await flush_refusals()` also publishes those that are only counted yet."""
        return [json.loads(one.payload) for one in self.stored(REFUSALS)]

    async def flush_refusals(self) -> list[Mapping[str, object]]:
        """Publish the counted refusals and return all refusals."""
        for node in self._nodes.values():
            await node.refusals.flush()
        return self.refusals()

    def stored(self, stream: str) -> list[Delivery]:
        """Return what a stream holds, as it was published, for captures, replays and damage in tests."""
        return list(self.broker.streams[stream].stored)

    async def _last(self, action: str) -> DecisionRecord:
        found = await self.decisions(action)
        if not found:
            raise AssertionError(f"{action}: nothing was decided")
        return found[-1]


class LiveBus:
    """The agents of a project on a real NATS server, with identities, policy and edge as `sealbus dev` runs them.

    Everything is on loopback, at free ports, and in `folder`. Enter with `async with`.
    """

    def __init__(self, agents: Sequence[Agent], environment: Environment, stack: AsyncExitStack) -> None:
        self.environment = environment
        self.agents = tuple(agents)
        self._stack = stack
        self._clients: dict[str, Client] = {}

    @classmethod
    @asynccontextmanager
    async def of_project(cls, project: Path, folder: Path) -> AsyncGenerator[Self, None]:
        """Run what the `sealbus.toml` in `project` names, with its state in `folder`; raise as `TestBus.of_project`."""
        from sealbus.agents.cli.run.worker import load_agents
        from sealbus.agents.dev.environment import DevOptions, open_environment
        from sealbus.agents.dev.settings_file import read_declared
        from sealbus.agents.runtime.open import open_node

        declared = read_declared(project / "sealbus.toml")
        if not declared.run:
            raise ConfigurationError(f"{project / 'sealbus.toml'} names no agent under [dev.agents]")
        agents = load_agents(list(declared.run.values()))
        options = DevOptions(
            folder=folder, agents=(), declared=declared, policy=declared.policy, port=-1, sync=False, development=True
        )
        async with AsyncExitStack() as stack:
            environment = await stack.enter_async_context(open_environment(options))
            group = await stack.enter_async_context(Background())
            stop = asyncio.Event()
            for agent in agents:
                node = await stack.enter_async_context(open_node(agent.name, environment.settings))
                worker = await stack.enter_async_context(Worker(agent, node))
                running = group.create_task(worker.run(stop))
                stack.push_async_callback(_ended, stop, running)
                await worker.ready.wait()
            yield cls(agents, environment, await stack.enter_async_context(AsyncExitStack()))

    async def client(self, name: str) -> Client:
        """Return a client with the identity of the workload `name`."""
        if name not in self._clients:
            client = Client(name, settings=self.environment.settings)
            self._clients[name] = await self._stack.enter_async_context(client)
        return self._clients[name]

    async def user(self, identifier: str, workload: str) -> Statement:
        """Log a user of `[dev.users]` in, and return the context that the edge mints of that for `workload`."""
        from sealbus.agents.dev.users import dev_token

        token = await asyncio.to_thread(dev_token, self.environment.settings, identifier)
        return await (await self.client(workload)).user_context(token)

    async def decisions(self, action: str) -> list[DecisionRecord]:
        """Return the decisions that the audit stream has for `action` so far, in order, each verified."""
        return [one async for one in self._decisions(action, follow=False)]

    async def _decisions(self, action: str, *, follow: bool) -> AsyncGenerator[DecisionRecord, None]:
        from sealbus.agents.runtime.open import open_audit_trail

        async with (
            open_audit_trail("operator", self.environment.settings) as trail,
            aclosing(trail.entries(follow=follow)) as entries,
        ):
            async for entry in entries:
                if isinstance(entry, Finding):
                    raise _unverified([entry])
                if isinstance(entry.record, DecisionRecord) and entry.record.action == action:
                    yield entry.record

    @asynccontextmanager
    async def expect_denied(
        self, action: str, *, code: str = "denied", reason: str | None = None, within: float = 5.0
    ) -> AsyncGenerator[None, None]:
        """Raise `AssertionError` unless `action` is denied in the body, as `TestBus.expect_denied`.

        A task may be decided up to `within` seconds after the body.
        """
        made: list[DecisionRecord] = []
        before = len(await self.decisions(action))
        async with _ended_by(code):
            yield
        try:
            async with asyncio.timeout(within), aclosing(self._decisions(action, follow=True)) as decisions:
                async for one in decisions:
                    made.append(one)
                    if len(made) > before and _is_denial(one, code, reason):
                        return
        except TimeoutError:
            raise _another(action, code, reason, made[before:]) from None

    async def approve(
        self, task: TaskHandle, identifier: str, *, verdict: str = "approve", note: str = "", acr: str = ""
    ) -> None:
        """Say `verdict` at the edge about a task that waits, as a user of `[dev.users]` who has just logged in by `acr`.

        Waits for the task to wait. Returns once it is counted; raises `Denied` or `sealbus.agents.login.approvals.Refused`
        with the edge's code otherwise, and `LookupError` if the task ends without waiting.
        """
        from sealbus.agents.dev.users import approver_token
        from sealbus.agents.login.approvals import Approvals

        settings = self.environment.settings
        async with aclosing(task.statuses()) as statuses:
            async for status in statuses:
                if status.state is State.INPUT_REQUIRED:
                    break
            else:
                raise LookupError("this task does not wait for an approval")
        token = await asyncio.to_thread(lambda: approver_token(settings, identifier, acr=acr))
        async with Approvals(settings.edge.resource or "", token) as approvals:
            shown = await approvals.approval(task.digest.hex())
            await approvals.submit_verdict(task.digest.hex(), verdict, decision=str(shown["decision"]), note=note)


@asynccontextmanager
async def _ended_by(code: str) -> AsyncGenerator[None, None]:
    """Let the error with this code end the body."""
    try:
        yield
    except SealbusError as error:
        if error.code != code:
            raise


def _unverified(findings: Sequence[Finding]) -> AssertionError:
    return AssertionError(f"the audit stream does not verify: {findings}")


def _is_denial(record: DecisionRecord, code: str, reason: str | None) -> bool:
    return record.code == code and (reason is None or reason in record.reasons)


def _another(action: str, code: str, reason: str | None, made: Sequence[DecisionRecord]) -> AssertionError:
    wanted = f"{action}: {code} {reason or ''}".rstrip()
    return AssertionError(f"{wanted} was expected, and decided was: {', '.join(map(_said, made)) or 'nothing'}")


async def _ended(stop: asyncio.Event, running: asyncio.Task[bool]) -> None:
    stop.set()
    await asyncio.wait([running])


def _said(record: DecisionRecord) -> str:
    return "allowed" if record.allow else f"{record.code} {' '.join(record.reasons)}".rstrip()


class _MovedClock:
    """A clock, and what a test has added to it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._added = 0

    def __call__(self) -> int:
        return self._clock() + self._added

    def set(self, time: int) -> None:
        """Go on to `time`, unless that has passed."""
        self._added += max(0, time - self())

    def elapsed(self) -> float:
        """Return what monotonic clocks of hosts show: who moves a test's clock lets time pass, and sets no host's."""
        if self._clock is wall_clock:
            return time.monotonic() + self._added / SECOND
        return self() / SECOND


async def _settled(pull: MemoryPull) -> None:
    while not pull.idle:
        pull.settled.clear()
        if pull.idle:
            return
        await pull.settled.wait()
