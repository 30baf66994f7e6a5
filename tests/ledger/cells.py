"""The ledger on two cells: senders in both, agents in both, of which one is moved, and the two logs of all that.

Each worker is a process. Senders and notaries run in the test's process, on connections of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel
from support.callout import DOMAIN, NAMES
from support.cells import CellsSite, cells_site
from support.policy_bus import ANCHORS, ROOT

from ledger.book import Book, is_denied
from ledger.count import end_text
from ledger.servers import ended
from ledger.site import settings_text
from sealbus import Client
from sealbus.agents.control.notary import open_notary
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.decision.placement import Placement

__all__ = ["CELLS", "CellsLedger", "open_cells"]

TESTS = Path(__file__).parents[1]
CELLS: Final = ("default", "east")
SENDERS: Final = {"default": "shop", "east": "mall"}
NOTARIES: Final = {"default": "notary", "east": "notary-east"}
OPERATORS: Final = {"default": "operator", "east": "ruler"}
CLERKS: Final = {"default": "clerk", "east": "clerk-east"}
MOVED: Final = "bank"
AGENTS: Final = {MOVED: 2, "vault": 1}
"""The agents, and how many processes each has."""
VERBS: Final = ("pay", "note")
AGAIN: Final = 0.2
OVER: Final = 1_000
SETTLE: Final = 120.0
EAST: Final = {
    name: Placement("east") for name in ("vault", *(of["east"] for of in (SENDERS, NOTARIES, OPERATORS, CLERKS)))
}
"""What is in the second cell from the beginning."""

NOTARY = """[control.notary]
origin = "{origin}"
keys = ["{folder}/{cell}.key"]
folder = "{folder}/{cell}-log"
lease = 2
"""


class Payment(BaseModel):
    number: int
    amount: int
    due: float = 0.0


def registry() -> Mapping[str, Mapping[str, Json]]:
    """Return who may do what: both senders everything of both agents, within a limit."""
    asked = [f"{agent}.{verb}" for agent in AGENTS for verb in VERBS]
    rule: dict[str, Json] = {"user": "none", "resource": "any", "limits": {}, "hours": False}
    granted = {name: dict.fromkeys(asked, True) for name in SENDERS.values()}
    granted |= {agent: {f"{agent}.{verb}.reply": True for verb in VERBS} for agent in AGENTS}
    roles = {"control": NOTARIES, "operator": OPERATORS, "repairer": CLERKS}
    return {
        "agents": {str(NAMES.id_of(name)): {"actions": {**actions}} for name, actions in granted.items()},
        "actions": {
            **{action: {**rule, "limits": {"amount": 100}} for action in asked},
            **{f"{action}.reply": rule for action in asked},
        },
        "workloads": {
            str(NAMES.id_of(of[cell])): {"role": role, "tenant": cell} for role, of in roles.items() for cell in CELLS
        },
    }


@dataclass(kw_only=True)
class CellsLedger:
    """What runs, and what senders were told."""

    site: CellsSite
    folder: Path
    book: Book
    group: asyncio.TaskGroup
    told: dict[int, str] = field(default_factory=dict)
    senders: dict[int, str] = field(default_factory=dict)
    """The cell in which each task was sent."""
    kills: int = 0
    where: dict[str, str] = field(default_factory=lambda: {MOVED: "default", "vault": "east"})
    """The cell whose settings the processes of each agent get."""
    workers: dict[tuple[str, int], asyncio.subprocess.Process] = field(default_factory=dict)
    _kept: dict[tuple[str, int], asyncio.Task[None]] = field(default_factory=dict)

    def settings_file(self, cell: str) -> Path:
        return self.folder / f"{cell}.toml"

    def settings(self, cell: str) -> Settings:
        return load_settings(self.settings_file(cell))

    def log_file(self, agent: str, number: int) -> Path:
        return self.folder / f"{agent}-{number}.log"

    def log(self, cell: str) -> Path:
        return self.folder / f"{cell}-log"

    async def start(self, agent: str) -> None:
        """Start all processes of an agent, in the cell that it has now, and each again when it ends, as a supervisor does."""
        for number in range(AGENTS[agent]):
            started = asyncio.Event()
            self._kept[agent, number] = self.group.create_task(self._keep(agent, number, started))
            await started.wait()

    async def stop(self, agent: str) -> None:
        """Kill all processes of an agent."""
        for worker in [worker for worker in self._kept if worker[0] == agent]:
            self._kept.pop(worker).cancel()
            await ended(self.workers.pop(worker), signal.SIGKILL)

    async def _keep(self, agent: str, number: int, started: asyncio.Event) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "LEDGER_AGENT": agent,
            "LEDGER_BOOK": str(self.folder / "book.sqlite"),
            "LEDGER_CLOCK": str(self.folder / "clock"),
        }
        command = (
            "-m",
            "sealbus",
            "worker",
            "run",
            "ledger.bank:agent",
            "--config",
            str(self.settings_file(self.where[agent])),
        )
        while True:
            with self.log_file(agent, number).open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *command, env=environment, cwd=TESTS, stdout=log, stderr=log
                )
            self.workers[agent, number] = process
            started.set()
            await process.wait()

    async def kill_one(self, chance: random.Random) -> None:
        """kill -9 a process while it has work."""
        agent, number = chance.choice(sorted(self.workers))
        await self.effect_after(time.time(), agent)
        await ended(self.workers[agent, number], signal.SIGKILL)
        self.kills += 1

    async def effect_after(self, moment: float, agent: str) -> None:
        """Wait until a task for `agent` that was acknowledged after `moment` is done."""
        query = """SELECT count(*) FROM effects JOIN acknowledged USING (number)
                   WHERE effects.at > ?1 AND acknowledged.at > ?1 AND number / 2 % 2 = ?2"""
        try:
            async with asyncio.timeout(SETTLE):
                while not self.book.value(query, moment, [*AGENTS].index(agent)):  # noqa: ASYNC110 -- other processes write it
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            for name, number in self.workers:
                error.add_note(f"{name}-{number} said last:\n{self.log_file(name, number).read_text()[-2_000:]}")
            raise

    async def push(self, placed: Mapping[str, Placement]) -> None:
        """Push the policy in which the registry says that: the callout has it first, then everybody hears of it."""
        policy = self.folder / f"policy-{time.time_ns()}"
        await self.site.push(policy, placed)
        async with self.site.server.connection("operator") as connection:
            store = PolicyStore(connection, "policies")
            await store.create()
            await push_content(store, ANCHORS, "platform", content_of(policy), ROOT)

    async def move(self, *, ahead: float) -> None:
        """Move the agent as docs/cells.md says: stop it, push, and start it with the settings of the new cell.

        It is killed while it has work, so that claims of before count for what is delivered after.
        """
        await self.effect_after(time.time(), MOVED)
        await self.stop(MOVED)
        since = int((time.time() + ahead) * SECOND)
        await self.push({**EAST, MOVED: Placement("east", "default", since)})
        self.where[MOVED] = "east"
        await self.start(MOVED)

    async def send(self, rate: float, stop: asyncio.Event) -> None:
        """Submit tasks from both cells to both agents until `stop`, then wait for the end of each.

        What has none after `SETTLE` seconds has none.
        """
        loop, sent = asyncio.get_running_loop(), list[asyncio.Task[None]]()
        async with AsyncExitStack() as stack:
            clients = {
                cell: await stack.enter_async_context(Client(name, settings=self.settings(cell)))
                for cell, name in SENDERS.items()
            }
            number, due = 0, loop.time()
            while not stop.is_set():
                number += 1
                self.senders[number] = cell = CELLS[number % 2]
                sent.append(asyncio.create_task(self._one(clients[cell], [*AGENTS][number // 2 % 2], number)))
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - loop.time()))
            _, endless = await asyncio.wait(sent, timeout=SETTLE)
            for task in endless:
                task.cancel()
            for result in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    async def _one(self, client: Client, agent: str, number: int) -> None:
        verb = VERBS[number // 4 % 2]
        body = Payment(number=number, amount=OVER if is_denied(number) else 5)
        handle = None
        while handle is None:
            try:
                handle = await client.submit(f"{agent}.{verb}", body, idempotency_key=f"payment-{number}")
            except SealbusError as error:
                self.book.refuse(number, str(error.code))
                await asyncio.sleep(AGAIN)
        self.book.acknowledge(number, verb, handle.text)
        async with aclosing(handle.statuses()) as statuses:
            async for status in statuses:
                if status.final:
                    self.told[number] = end_text(status.state, status.code)

    async def later(self) -> dict[int, str]:
        """Return the ends that another process of each sender is told."""
        ends: dict[int, str] = {}
        for cell, name in SENDERS.items():
            async with Client(name, settings=self.settings(cell)) as client:
                for number, handle in self.book.rows("SELECT number, handle FROM acknowledged"):
                    if self.senders[int(str(number))] == cell:
                        status = await client.handle(str(handle)).status()
                        ends[int(str(number))] = end_text(status.state, status.code) if status is not None else ""
        return ends


@asynccontextmanager
async def open_cells(folder: Path) -> AsyncIterator[CellsLedger]:
    """Open everything below `folder`, which must be short: server, callout, policies, notaries and workers."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(cells_site(folder, MappingProxyType(EAST), registry()))
        api = await stack.enter_async_context(
            EmbeddedWorkloadApi(folder / "api", site.authority, x509_ttl=3_600, jwt_ttl=3_600)
        )
        for name in (*AGENTS, *(of[cell] for of in (SENDERS, NOTARIES, OPERATORS, CLERKS) for cell in CELLS)):
            address = await api.add_identity(DOMAIN.id(f"/agent/{name}"))
            (folder / "api" / f"{name}.sock").symlink_to(Path(address.removeprefix("unix://")).name)
        (folder / "platform.pem").write_text(public_pem(ROOT.public))
        book = Book(folder / "book.sqlite")
        stack.callback(book.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        ledger = CellsLedger(site=site, folder=folder, book=book, group=group)
        for cell, bucket in zip(CELLS, ("policies", "policies@default"), strict=True):
            policy = (
                f'engine = "embedded"\nbundle = "nats://{bucket}"\nkeys = ["{folder / "platform.pem"}"]\n'
                f'cache = "{folder / cell}-cache"'
            )
            notaries = [str(NAMES.id_of(name)) for name in NOTARIES.values()]
            text = settings_text(folder, [site.server.port], policy=policy, replicas=1, notaries=notaries)
            origin = f"log.example.org/{cell}"
            make_key_file(folder / f"{cell}.key", origin)
            text += NOTARY.format(origin=origin, folder=folder, cell=cell)
            ledger.settings_file(cell).write_text(text)
        (folder / "clock").write_bytes(bytes(8))
        await ledger.push(EAST)
        for cell, name in NOTARIES.items():
            notary = await stack.enter_async_context(open_notary(ledger.settings(cell), name=name))
            stack.callback(group.create_task(notary.run()).cancel)
        for agent in AGENTS:
            stack.push_async_callback(ledger.stop, agent)
            await ledger.start(agent)
        yield ledger


def lines_of(text: str) -> list[dict[str, Json]]:
    """Return the JSON objects that a command printed."""
    return [json.loads(line) for line in text.splitlines()]
