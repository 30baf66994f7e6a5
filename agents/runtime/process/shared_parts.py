"""What the agents of one process share: the streams of the Workload API, the policy, and the engine that decides in it.

Each agent keeps its own SVIDs, key, connection, permissions and gate. The process gets all SVIDs anyway. The policy is
signed, and each question to an engine names its agent. A central OPA sees the SVID of the agent that asks, so each agent has
its own client for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self

from sealbus.agents.identity.shared_api import SharedWorkloadApi
from sealbus.agents.identity.workload_api import Endpoint
from sealbus.agents.runtime.open import PolicyParts, open_engine, workload_api_of
from sealbus.agents.runtime.policy.source import PolicySource, open_source, open_sync
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.background import Background
from sealbus.bus.loop_turns import LoopTurns
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.ports import Identity
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import SealbusError
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.decision.engine import PolicyEngine

_logger: Final = logging.getLogger(__name__)

MOVE_AFTER: Final = 5.0
"""Seconds without the connection that the policy is read over, after which another connection takes its place."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the connections while that one is not there."""


class SharedParts:
    """The parts that the agents of one process share, by the settings; enter with `async with`.

    `name` names the folder that keeps the policy: that of the first agent.
    """

    def __init__(self, name: str, settings: Settings, *, counters: Counters) -> None:
        self.turns: Final = LoopTurns()
        self._settings = settings
        self._apis: dict[str | None, SharedWorkloadApi] = {}
        self._broken = asyncio.Event()
        self._error: BaseException | None = None
        self._policy = SharedPolicy(name, settings, counters=counters, ended=self._note_end)
        self._group = Background()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._policy.close()
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def workload_api(self, name: str) -> SharedWorkloadApi:
        """Return the Workload API of the agent `name`: one for all agents with the same address."""
        address = workload_api_of(self._settings, name)
        api = self._apis.get(address)
        if api is None:
            api = self._apis[address] = SharedWorkloadApi(Endpoint.find(address))
            task = self._group.create_task(api.run(), name="workload-api")
            task.add_done_callback(self._note_end)
            self._tasks.append(task)
        return api

    async def watch(self) -> None:
        """Wait until cancelled; raise the error of a part that has ended, with which no agent of the process may go on.

        A policy that nobody follows any more would let in whom a later one denies.
        """
        await self._broken.wait()
        if self._error is not None:
            raise self._error

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = error
            self._broken.set()

    @asynccontextmanager
    async def policy(self, connection: Connection, identity: Identity) -> AsyncGenerator[PolicyParts, None]:
        """Yield the shared policy, and the engine for the agent with this `connection` and `identity`.

        Raises as `open_source` and `open_engine`. A policy from a bucket is read over one of the agents' connections.
        """
        async with self._policy.used_by(connection) as (source, engine):
            if engine is not None:
                yield PolicyParts(source, engine)
                return
            async with open_engine(self._settings.policy, identity, source.in_force) as own:
                yield PolicyParts(source, own)


class SharedPolicy:
    """The policy of a process, open from its first agent to its end, and the engine, unless that asks as an agent.

    A policy from a bucket is followed over the connection of one agent, and over another's once that is lost: the policy is
    signed, and its reader trusts no connection. It is open in a task of its own, because agents come and go.
    """

    def __init__(
        self, name: str, settings: Settings, *, counters: Counters, ended: Callable[[asyncio.Task[None]], None]
    ) -> None:
        self._name = name
        self._ended = ended
        self._policy = settings.policy
        self._counters = counters
        self._in_force = InForce()
        self._sync: PolicySync | None = None
        self._connections: list[Connection] = []
        self._changed = asyncio.Event()
        """Set when an agent comes or goes, or a connection is made or lost."""
        self._running: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[tuple[PolicySource, PolicyEngine | None]] | None = None

    @asynccontextmanager
    async def used_by(self, connection: Connection) -> AsyncGenerator[tuple[PolicySource, PolicyEngine | None], None]:
        """Yield the policy and the engine, if it is shared. Raises the error of opening it; the next agent tries again."""
        watcher = _LinkWatcher(self._changed)
        self._connections.append(connection)
        try:
            if self._opened is None or (self._opened.done() and self._opened.exception() is not None):
                self._opened = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(self._run(self._opened), name="shared-policy")
                self._running.add_done_callback(self._ended)
            parts = await asyncio.shield(self._opened)
            if self._policy.bucket is not None:
                await connection.attach(watcher)
            yield parts
        finally:
            connection.detach(watcher)
            self._connections.remove(connection)
            self._changed.set()

    async def close(self) -> None:
        """End the engine, and the reading of the policy."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _run(self, opened: asyncio.Future[tuple[PolicySource, PolicyEngine | None]]) -> None:
        async with AsyncExitStack() as stack:
            try:
                if self._policy.bucket is None:
                    source = await stack.enter_async_context(
                        open_source(self._name, self._policy, self._connections[0], counters=self._counters)
                    )
                    opened.set_result((source, await self._engine(stack, source)))
                    await asyncio.Event().wait()
                else:
                    await self._follow(stack, opened)
            except Exception as error:
                if opened.done():
                    raise
                opened.set_exception(error)

    async def _engine(self, stack: AsyncExitStack, source: PolicySource) -> PolicyEngine | None:
        if self._policy.engine == "central":
            return None
        return await stack.enter_async_context(open_engine(self._policy, None, source.in_force))

    async def _follow(
        self, stack: AsyncExitStack, opened: asyncio.Future[tuple[PolicySource, PolicyEngine | None]]
    ) -> None:
        """Follow the bucket over one connection after the other, until cancelled. Raises if it cannot begin."""
        source = PolicySource(in_force=self._in_force, problem=self._problem)
        while True:
            reader = await self._find_connected()
            try:
                async with open_sync(
                    self._name, self._policy, reader, counters=self._counters, in_force=self._in_force
                ) as self._sync:
                    if not opened.done():
                        opened.set_result((source, await self._engine(stack, source)))
                    await self._wait_until_lost(reader)
            except SealbusError as error:
                if not opened.done():
                    raise
                _logger.warning("the policy is not read, the one in force stays: %s", error.detail)
                await asyncio.sleep(LOOK_EVERY)
            finally:
                self._sync = None
            _logger.info("the policy is read over the connection of another agent from now on")

    def _problem(self) -> str:
        return self._sync.problem if self._sync is not None else "no agent of this process has a connection"

    async def _find_connected(self) -> Connection:
        while True:
            self._changed.clear()
            for connection in self._connections:
                if connection.connected:
                    return connection
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()

    async def _wait_until_lost(self, reader: Connection) -> None:
        """Return once the agent of `reader` has left, or is not connected for `MOVE_AFTER` seconds while another one is."""
        lost = 0.0
        while reader in self._connections:
            self._changed.clear()
            if reader.connected:
                lost = 0.0
                await self._changed.wait()
                continue
            await asyncio.sleep(LOOK_EVERY)
            if any(connection.connected for connection in self._connections):
                lost += LOOK_EVERY
            if lost >= MOVE_AFTER and not reader.connected:
                return


class _LinkWatcher:
    """An attachment that only notes that a connection has changed."""

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed

    def enter(self, link: Link) -> None:
        """Note a new link."""
        del link
        self._changed.set()

    async def leave(self, link: Link) -> None:
        """Leave at once."""

    def lost(self, link: Link) -> None:
        """Note a lost link."""
        del link
        self._changed.set()
