"""Chains in a simulation: what `bank` handles has a follow-up task for `vault`, which is seen in TASKS and in the records."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from promises.chains import widened
from promises.history import Event, What
from promises.promises import WIDENED

from sealbus import Agent, Context, Retry
from sealbus.agents.dev.memory.jetstream import Stored
from sealbus.agents.runtime.worker import Worker
from sealbus.envelopes.message.chain import covers
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from simulation.agent_tasks import AgentTasks
from simulation.network import Link
from simulation.plan import LIFE
from simulation.processes import DENIED_EVERY, PUT_OFF, Work
from simulation.site import START, Site

__all__ = ["FOLLOW_UPS", "Chains", "is_denied_follow_up", "vault"]

FOLLOW_UPS: Final = 3_000
"""The number of the first follow-up. Each has a number of its own in the history, which is odd if the policy denies it."""
DUE_AFTER: Final = 10.0
"""Seconds by which every other follow-up is put off, so that a cancel may come before it begins."""
_ACTION: Final = "vault.keep"
_SUBJECT: Final = "task.vault."


async def vault(site: Site, link: Link) -> None:
    """Run the process of `vault`."""
    agent = Agent("vault")

    @agent.task("keep", facts=["number"], once=True, timeout=5.0, retry=20)
    async def keep(work: Work, ctx: Context) -> int:
        if (wait := work.due - time.time()) > 0:
            raise Retry(after=min(wait, PUT_OFF), note="not due")
        site.note(What.BEGAN, site.numbers[ctx.message_id], ctx.message_id, "keep")
        await asyncio.sleep(work.takes)
        site.note(What.DONE, site.numbers[ctx.message_id], ctx.message_id, "keep")
        return work.number

    async with site.policy(link) as feeds, site.node("vault", link, feeds) as node, Worker(agent, node) as running:
        await running.run(asyncio.Event())


def is_denied_follow_up(number: int) -> bool:
    """Return whether the policy denies the follow-up with this number."""
    return number % 2 == 1


class Chains:
    """The follow-up tasks of one simulation: has them sent, sees what is stored of them, and checks what is allowed."""

    def __init__(self, site: Site, tasks: AgentTasks) -> None:
        self._site = site
        self._tasks = tasks
        self._count = 0
        self._headers: dict[bytes, Header] = {}
        """The headers of tasks by their hashes."""
        self._allowed: set[bytes] = set()
        """The hashes of tasks that a stored record says were allowed."""
        site.on_task.append(self._note_task)
        site.on_allowed.append(self._check)

    async def follow(self, ctx: Context, work: Work) -> None:
        """Send the follow-up of what is being handled, unless it is one that a schedule sent."""
        if ctx.tick is None:
            # Another number than its parent has, which the policy has let pass.
            due = START + self._site.loop.now + DUE_AFTER if work.number % 2 else 0.0
            await ctx.submit(_ACTION, Work(number=work.number + 1, due=due), life=LIFE)

    def _note_task(self, stored: Stored, header: Header) -> None:
        self._headers[header.digest] = header
        if not header.to.startswith(_SUBJECT):
            return
        is_denied = Work.model_validate_json(parse_envelope(stored.payload).body).number % DENIED_EVERY == 0
        # Somebody may publish again what was captured: it is the same follow-up.
        is_new = header.id.hex() not in self._site.numbers
        self._count += is_new
        number = self._site.numbers.setdefault(header.id.hex(), FOLLOW_UPS + 2 * self._count + is_denied)
        parent = self._headers.get(header.par) if header.par is not None else None
        granted = parent is None or parent.grt is None or covers(parent.grt, _ACTION)
        self._tasks.note(stored, header, number, action=_ACTION, granted=granted)
        if is_new and parent is not None:
            self._site.note(What.FOLLOWS, number, header.id.hex(), parent.id.hex(), host="bank")

    def _check(self, decision: DecisionRecord, header: Header) -> None:
        """Check that an allowed follow-up goes in nothing beyond its parent, which was allowed before."""
        self._allowed.add(header.digest)
        if decision.action != _ACTION:
            return
        parent = self._headers.get(header.par) if header.par is not None and header.par in self._allowed else None
        reason = widened(header, parent, decision.action) if parent is not None else "no parent of it was allowed"
        if reason:
            at = Event(self._site.loop.now, "vault", What.RECORDED, message=header.id.hex(), text=reason)
            self._site.promises.fail(WIDENED, at)
