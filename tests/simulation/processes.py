"""The processes of a simulation, by the real code: workers of `bank`, the client `shop`, a second reader, the notary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow, deny

from sealbus import Agent, Context, Retry
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.sending.status import FINAL
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.log.note import NoteSigner
from simulation.history import DATED_WRONG, What
from simulation.network import Link, SimulatedTransport
from simulation.plan import PlannedTask
from simulation.site import START, Site

__all__ = [
    "DENIED_EVERY",
    "EXPIRED",
    "LIMIT",
    "ONCE",
    "ORIGIN",
    "SIGNER",
    "notary",
    "policy",
    "read_ends",
    "shop",
    "worker",
]

ONCE: Final = frozenset({"pay", "refund"})
"""The verbs that are declared `once`."""
DENIED_EVERY: Final = 4
"""Of so many tasks the policy denies one."""
LIMIT: Final = 250.0
"""Virtual seconds after which every task that was not refused must have ended; all faults are over long before."""
EXPIRED: Final = 5_000.0
"""Virtual seconds after which everybody concludes `expired` for the others: an hour after their life."""
ORIGIN: Final = "log.example.org/audit"
SIGNER: Final = NoteSigner(ORIGIN, bytes(range(32)))
LIFE: Final = 600.0
"""Seconds for which a task may wait."""
PUT_OFF: Final = 20.0
"""Most seconds until a task that is not due is tried again."""
PAUSE: Final = 1.0
"""Seconds between two tries of the client."""


class Work(BaseModel):
    """What a task asks for."""

    number: int
    takes: float = 0.0
    due: float = 0.0
    """Unix time before which the handler puts it off."""


def policy() -> ScriptedEngine:
    """Return an engine that denies every fourth task."""

    def verdict(document: dict[str, Any]) -> Verdict:
        number = document["action"].get("properties", {}).get("number", 1)
        return deny("number") if number % DENIED_EVERY == 0 else allow()

    return ScriptedEngine(verdict)


async def worker(site: Site, link: Link, *, newer: bool) -> None:
    """Run a replica of `bank`; the `newer` version has the verb `refund`."""
    agent = Agent("bank")

    async def begin(verb: str, work: Work, ctx: Context) -> int:
        if (wait := work.due - time.time()) > 0:
            # This host's clock may be wrong: it looks again soon.
            raise Retry(after=min(wait, PUT_OFF), note="not due")
        site.note(What.BEGAN, work.number, ctx.message_id, verb)
        await asyncio.sleep(work.takes)
        # In the step that returns: a handler that had an effect and then failed would be tried again, also under `once`.
        site.note(What.DONE, work.number, ctx.message_id, verb)
        return work.number

    @agent.task("pay", facts=["number"], once=True, timeout=5.0, retry=20)
    async def pay(work: Work, ctx: Context) -> int:
        return await begin("pay", work, ctx)

    @agent.task("note", facts=["number"], timeout=5.0, retry=20)
    async def note(work: Work, ctx: Context) -> int:
        return await begin("note", work, ctx)

    if newer:

        @agent.task("refund", facts=["number"], once=True, timeout=5.0, retry=20)
        async def refund(work: Work, ctx: Context) -> int:
            return await begin("refund", work, ctx)

    async with site.node("bank", link) as node, Worker(agent, node) as running:
        await running.run(asyncio.Event())


async def shop(site: Site, link: Link, tasks: tuple[PlannedTask, ...], handles: dict[str, int]) -> None:
    """Submit tasks, cancel some, and wait for their ends; write each stored task into `handles`.

    A shop that is started again after a kill goes on with the tasks of the one before; of those without a key it does not
    know whether they were sent.
    """
    async with site.node("shop", link) as node, asyncio.TaskGroup() as group:
        client = Client.on(node)
        known: dict[int, list[str]] = {}
        for text, number in handles.items():
            known.setdefault(number, []).append(text)
        for task in _sent(tasks):
            stored = known.get(task.number)
            handle = client.handle(stored.pop(0)) if stored else None
            if handle is None and not task.keyed and task.at < site.loop.now:
                continue
            group.create_task(_one(site, client, task, handles, handle), name=f"task {task.number}")


def _sent(tasks: Sequence[PlannedTask]) -> Iterator[PlannedTask]:
    """Yield each task, and after it the same once more if it is sent twice."""
    for task in tasks:
        yield task
        if task.again_after is not None:
            yield replace(task, at=task.at + task.again_after, cancel_after=None)


async def _one(
    site: Site, client: Client, task: PlannedTask, handles: dict[str, int], handle: TaskHandle[Any] | None
) -> None:
    await site.sleep_until(task.at)
    work = Work(number=task.number, takes=task.takes, due=START + task.due if task.due else 0.0)
    began = site.loop.now
    key = f"key-{task.number}" if task.keyed else None
    while handle is None:
        try:
            handle = await client.submit(f"bank.{task.verb}", work, idempotency_key=key, life=LIFE)
        except SealbusError:
            if key is None:
                # Nobody knows whether it is stored, and it would be another task if it were sent again.
                return
            await asyncio.sleep(PAUSE)
    if str(handle) not in handles:
        handles[str(handle)] = task.number
        site.note(What.SUBMITTED, task.number, _id(handle), "" if site.clock_is_right(began) else DATED_WRONG)
    if task.cancel_after is not None:
        await asyncio.sleep(task.cancel_after)
        try:
            await handle.cancel()
            site.note(What.CANCELED, task.number, _id(handle))
        except (SealbusError, TimeoutError):
            # It has ended, or nobody answered: a cancel that was not confirmed is no promise.
            pass
    while not await _told(site, handle, task.number):
        await asyncio.sleep(PAUSE)
        try:
            await handle.result(object, timeout=60.0)
        except (SealbusError, TimeoutError):
            # What it is shows in the status.
            continue


async def _told(site: Site, handle: TaskHandle[Any], number: int) -> bool:
    """Read a task's status, and return whether it has ended."""
    try:
        status = await handle.status()
    except (SealbusError, TimeoutError):
        return False
    if status is None or status.state not in FINAL:
        site.note(What.ASKED, number, _id(handle))
        return False
    site.note(What.TOLD, number, _id(handle), f"{status.state.value} {status.code}".strip())
    return True


def _id(handle: TaskHandle[Any]) -> str:
    return handle.task.pending.id.hex()


async def read_ends(site: Site, link: Link, handles: dict[str, int]) -> None:
    """Read how every task ended, as somebody does who comes later and knows only the handles."""
    async with site.node("shop", link) as node:
        client = Client.on(node)
        for text, number in handles.items():
            for _ in range(5):
                if await _told(site, client.handle(text), number):
                    break
                await asyncio.sleep(PAUSE)


async def notary(site: Site, link: Link, *, folder: Path) -> None:
    """Keep the log of the records in `folder`, or stand by while another does."""
    identity, transport = MemoryIdentity(site.authority, site.names.id_of("notary")), SimulatedTransport(link)
    store = FolderStore(folder)
    site.on_kill(link, store.leave)
    plan = LogPlan(origin=ORIGIN, verifiers=(SIGNER.verifier,))
    async with Outbox(identity=identity, transport=transport) as outbox:
        place = NotarySite(identity=identity, transport=transport, outbox=outbox, names=site.names)
        await Notary(NotaryOptions(plan=plan, signers=(SIGNER,)), place, store=store).run()
