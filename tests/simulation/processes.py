"""The processes of a simulation, by the real code: workers of `bank`, and notaries; and the policy by which all decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from promises.history import What
from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow, deny

from sealbus import Agent, Context, Retry
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.sending.outbox import Outbox
from simulation.cells import LOGS
from simulation.network import Link, SimulatedTransport
from simulation.plan import APPROVED_WITHIN
from simulation.site import Site

__all__ = [
    "ATTEMPTS",
    "DENIED_EVERY",
    "EXPIRED",
    "LIMIT",
    "NOTE_ATTEMPTS",
    "ONCE",
    "PAUSE",
    "PUT_OFF",
    "QUEUE",
    "Work",
    "notary",
    "policy",
    "worker",
]

TASKS: Final = frozenset({"bank.pay", "bank.note", "bank.refund"})
PAUSE: Final = 1.0
"""Seconds between two tries of a client."""
ONCE: Final = frozenset({"pay", "refund", "keep"})
"""The verbs that are declared `once`."""
ATTEMPTS: Final = 21
"""Attempts at a task under `once`."""
NOTE_ATTEMPTS: Final = 4
"""Attempts at `note`, a verb without `once`."""
DENIED_EVERY: Final = 4
"""Of so many tasks the policy denies one."""
LIMIT: Final = 170.0
"""Virtual seconds, after the last fault has ended and the last task was sent, within which every task that was not refused
must have ended."""
EXPIRED: Final = 5_000.0
"""Virtual seconds after which everybody concludes `expired` for the others: an hour after their life."""
QUEUE: Final = "managers"
"""Where it waits."""
PUT_OFF: Final = 20.0
"""Most seconds until a task that is not due is tried again."""


class Work(BaseModel):
    """What a task asks for."""

    number: int
    takes: float = 0.0
    due: float = 0.0
    """Unix time before which the handler puts it off."""
    fails: int = 0
    """How many attempts of the handler fail."""


def policy(
    waits_for_approval: Callable[[int], bool] = lambda _: False,
    note_allowed: Callable[[dict[str, Any]], None] = lambda _: None,
) -> ScriptedEngine:
    """Return an engine that denies every fourth task, and those of `bank` that wait for an approval until `boss` gives one.

    It notes the questions that it allows.
    """
    waits = {"type": "approval", "queue": QUEUE, "text": "Do it", "until": APPROVED_WITHIN}

    def verdict(document: dict[str, Any]) -> Verdict:
        context, action = document["context"], document["action"]
        if "of" in document:
            return allow() if context["user"]["id"] == "boss" else deny("person")
        number = action.get("properties", {}).get("number", 1)
        if number % DENIED_EVERY == 0:
            return deny("number")
        if action["name"] in TASKS and waits_for_approval(number):
            verdicts = [approval["verdict"] for approval in context.get("approvals", [])]
            if not verdicts:
                return deny("approval", obligations=(waits,))
            if verdicts != ["approve"]:
                return deny("person")
        note_allowed(document)
        return allow()

    return ScriptedEngine(verdict)


async def worker(
    site: Site, link: Link, *, newer: bool, follow: Callable[[Context, Work], Awaitable[None]] | None = None
) -> None:
    """Run a replica of `bank`; the `newer` version has the verb `refund`. What is done last of a task is `follow`."""
    agent = Agent("bank")

    async def begin(verb: str, work: Work, ctx: Context) -> int:
        number = site.numbers.get(ctx.message_id, work.number)
        if (wait := work.due - time.time()) > 0:
            site.note(What.PUT_OFF, work.number, ctx.message_id, verb)
            # This host's clock may be wrong: it looks again soon.
            raise Retry(after=min(wait, PUT_OFF), note="not due")
        site.note(What.BEGAN, number, ctx.message_id, verb)
        await asyncio.sleep(work.takes)
        if site.failed[ctx.message_id] < work.fails:
            site.failed[ctx.message_id] += 1
            raise RuntimeError("as planned")
        if follow is not None and not ctx.approvals:
            # Nothing may follow from a task that was approved: the policy names nothing.
            await follow(ctx, work)
        # In the step that returns: a handler that had an effect and then failed would be tried again, also under `once`.
        site.note(What.DONE, number, ctx.message_id, verb)
        return work.number

    @agent.task("pay", facts=["number"], once=True, timeout=5.0, retry=ATTEMPTS - 1)
    async def pay(work: Work, ctx: Context) -> int:
        return await begin("pay", work, ctx)

    @agent.task("note", facts=["number"], timeout=5.0, retry=NOTE_ATTEMPTS - 1)
    async def note(work: Work, ctx: Context) -> int:
        return await begin("note", work, ctx)

    if newer:

        @agent.task("refund", facts=["number"], once=True, timeout=5.0, retry=ATTEMPTS - 1)
        async def refund(work: Work, ctx: Context) -> int:
            return await begin("refund", work, ctx)

    async with site.policy(link) as feeds, site.node("bank", link, feeds) as node, Worker(agent, node) as running:
        await running.run(asyncio.Event())


async def notary(site: Site, link: Link, *, cell: str, folder: Path) -> None:
    """Keep the log of the records of `cell` in `folder`, or stand by while another does."""
    kept = LOGS[cell]
    identity = MemoryIdentity(site.authority, site.names.id_of(kept.notary))
    transport = SimulatedTransport(link, site.brokers[cell])
    store = FolderStore(folder)
    site.on_kill(link, store.leave)
    plan = LogPlan(origin=kept.origin, verifiers=(kept.signer.verifier,))
    async with Outbox(identity=identity, transport=transport) as outbox:
        place = NotarySite(identity=identity, transport=transport, outbox=outbox, names=site.names)
        await Notary(NotaryOptions(plan=plan, signers=(kept.signer,)), place, store=store).run()
