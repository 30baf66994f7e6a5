"""Work on the stack for minutes while certificates rotate, a SPIRE agent is killed and the NATS server is reloaded.

Nobody may notice: every task is handled exactly once, and no call fails for its caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sealbus.agents.dev.idp.access import fetch_token, read_access
from sealbus.agents.examples import inventory
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_audit_trail
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.bus.audit.trail import AuditEntry, Finding
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from stack.metrics import counter
from stack.roster import AGENTS, PEOPLE
from stack.running import Stack

__all__ = ["RECORDS_BYTES", "Report", "Soak"]

RECORDS_BYTES: Final = 32_768
"""Bytes of the audit stream that a message may come to; measured were 12 KB, of a decision, its outcome and a chain."""
USER_EVERY: Final = 240.0
"""Seconds for which one user context starts chains; the edge's live 15 minutes."""
LATE: Final = 20.0
"""Seconds for what is under way when the load ends."""
IN_FLIGHT: Final = 256
"""Messages that may wait for an answer; more mean that the stack does not keep up, and the load waits."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What was done and seen. `handled` counts, for each task, how often its handler ended well."""

    seconds: float
    tasks: list[str] = field(default_factory=list)
    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    handled: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    credentials: dict[str, set[bytes]] = field(default_factory=dict)
    rotations: dict[str, int] = field(default_factory=dict)
    killed: int = 0
    reloads: int = 0

    @property
    def problems(self) -> list[str]:
        """Return what should not have been, a line each; empty for a good run."""
        missing = sum(self.handled[task] == 0 for task in self.tasks)
        twice = sum(count > 1 for count in self.handled.values())
        found = {
            f"{sum(self.failures.values())} failed: {dict(self.failures)}": bool(self.failures),
            f"{missing} tasks not handled": bool(missing),
            f"{twice} tasks handled more than once": bool(twice),
            f"{self.findings} records that do not verify": bool(self.findings),
            f"no rotation at {[name for name, count in self.rotations.items() if not count]}": (
                not self.rotations or not all(self.rotations.values())
            ),
        }
        return [line for line, so in found.items() if so]

    def document(self) -> dict[str, object]:
        """Return the counts as a JSON object."""
        return {
            "seconds": round(self.seconds, 1),
            "tasks": len(self.tasks),
            "calls": self.calls,
            "messages_per_second": round((len(self.tasks) + self.calls) / self.seconds, 1),
            "handled_once": sum(self.handled[task] == 1 for task in self.tasks),
            "failures": dict(self.failures),
            "findings": self.findings,
            "connections_rotated": self.rotations,
            "credentials": {name: len(found) for name, found in sorted(self.credentials.items())},
            "spire_agent_killed": self.killed,
            "nats_reloads": self.reloads,
            "problems": self.problems,
        }


class Soak:
    """One run on an entered stack: `rate` messages a second for `seconds`, half of them tasks and half calls."""

    def __init__(self, stack: Stack, *, seconds: float, rate: float) -> None:
        self._stack = stack
        self._pace = 2.0 / rate
        self._settings = load_settings(environment=stack.site.environment(PEOPLE[0]))
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self.report = Report(seconds=seconds)

    async def run(self) -> Report:
        """Load the stack, disturb it, and count what has come of it all."""
        loop = asyncio.get_running_loop()
        before = await self._rotations()
        async with Client("shop-web", settings=self._settings) as client, asyncio.TaskGroup() as group:
            disturbing = group.create_task(self._disturb())
            await self._load(client, group, loop.time() + self.report.seconds)
            await disturbing
        after = await self._rotations()
        self.report.rotations = {name: after[name] - before[name] for name in after}
        await self._count()
        return self.report

    async def _load(self, client: Client, group: asyncio.TaskGroup, until: float) -> None:
        loop = asyncio.get_running_loop()
        user, renew, due = await self._user(client), loop.time() + USER_EVERY, loop.time()
        while loop.time() < until:
            if loop.time() > renew:
                user, renew = await self._user(client), loop.time() + USER_EVERY
            for work in (self._task(client, user), self._call(client, user)):
                await self._room.acquire()
                group.create_task(work)
            due += self._pace
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _user(self, client: Client) -> Statement:
        asked = {"user": "alice", "expires_in": "300"}
        said = await asyncio.to_thread(fetch_token, read_access(self._stack.site.access), asked)
        return await client.user_context(str(said["access_token"]))

    async def _task(self, client: Client, user: Statement) -> None:
        try:
            handle = await client.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=user)
            self.report.tasks.append(handle.message_id)
        except SealbusError as error:
            self.report.failures[f"task: {error.code}"] += 1
        finally:
            self._room.release()

    async def _call(self, client: Client, user: Statement) -> None:
        try:
            await client.call(inventory.read, inventory.Read(item_id="42"), user=user)
            self.report.calls += 1
        except SealbusError as error:
            self.report.failures[f"call: {error.code}"] += 1
        finally:
            self._room.release()

    async def _disturb(self) -> None:
        """Kill the SPIRE agent after a third of the time, and have the NATS server read its files anew after two."""
        third = self.report.seconds / 3.0
        await asyncio.sleep(third)
        agent = self._stack.spire.agent.program
        await agent.kill9()
        await agent.start()
        self.report.killed += 1
        await asyncio.sleep(third)
        self._stack.programs["nats-server"].signal(signal.SIGHUP)
        self.report.reloads += 1

    async def _rotations(self) -> dict[str, int]:
        """Return how often each agent has replaced its connection, before the old one was given up."""
        return {one.name: await counter(self._stack.site.health(one), "sealbus_bus_rotations_total") for one in AGENTS}

    async def _count(self) -> None:
        """Read the audit stream until every task has ended, or `LATE` is over, and then what is stored by then."""
        wanted = set(self.report.tasks)
        async with open_audit_trail("operator", self._settings) as trail:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE):
                    async for entry in trail.entries(follow=True):
                        self._take(entry, wanted)
                        if len(self.report.handled) == len(wanted):
                            break
            async for entry in trail.entries():
                self._take(entry, wanted)

    def _take(self, entry: AuditEntry | Finding, wanted: set[str]) -> None:
        if isinstance(entry, Finding):
            self.report.findings += 1
        elif isinstance(entry.record, DecisionRecord) and entry.decided is not None:
            self.report.credentials.setdefault(entry.decided.iss.path, set()).add(entry.decided.crd)
        elif isinstance(entry.record, OutcomeRecord) and entry.record.code is None and entry.decided is not None:
            task = entry.decided.id.hex()
            if task in wanted:
                self.report.handled[task] += 1
