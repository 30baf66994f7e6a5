"""After the run: waits until nothing is open any more, and counts what must not have happened."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from ledger.book import POISON, PUT_OFF, Book, is_denied
from ledger.site import Site
from sealbus import Client
from sealbus.agents.runtime.open import open_audit_trail
from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import BusUnavailable, SealbusError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord

__all__ = ["SETTLE_SECONDS", "Count", "judge", "settled"]

Opened = TypeVar("Opened")

SETTLE_SECONDS = 180.0
LOOK = 0.5
ASKED = 100
"""Handles that are asked about at a time."""
STOPPED = 5.0
"""Seconds after a confirmed cancel within which a process may still begin what was canceled: the promise of
`TaskHandle.cancel`, and of envelopes/SPEC.md, section 7, *Cancelling*. What begins later is a fault."""
ONCE = "pay"
"""The verb that is declared `once`."""
CANCELED = "canceled"
UNKNOWN = "outcome_unknown"
_LATE = """SELECT DISTINCT number, handle, message FROM effects JOIN cancels USING (number) JOIN acknowledged USING (number)
           WHERE effects.at > confirmed + ?"""
KILLED = "killed"
_ENDS = ((State.FAILED, UNKNOWN), (State.FAILED, KILLED), (State.CANCELED, CANCELED))
_WAITED = """SELECT count(DISTINCT number) FROM acknowledged JOIN effects USING (number) JOIN backups
             WHERE acknowledged.at < backups.at AND effects.at > backups.at AND number > 0
             AND number NOT IN (SELECT earlier.number FROM effects AS earlier WHERE earlier.at < backups.at)"""
_EFFECTS = "SELECT number, verb, message FROM effects"


@dataclass(slots=True, kw_only=True)
class Count:
    """What was found; `problems` is empty for a run in which every promise was kept."""

    acknowledged: int = 0
    refused: int = 0
    effects: int = 0
    canceled: int = 0
    """Cancels that were confirmed. One that was not is no promise."""
    undone: int = 0
    """Tasks that ended as canceled and of which nothing was done."""
    told_unknown: int = 0
    """Acknowledged, not done as far as the book says, and the sender was told `outcome_unknown`: no loss, a known doubt."""
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    though_denied: list[int] = field(default_factory=list)
    though_canceled: list[int] = field(default_factory=list)
    another_copy: int = 0
    """Tasks that were canceled and done all the same, by an earlier copy of which its sender had not heard that it was
    stored, and which it therefore sent again: a cancel is for the copy whose handle it names."""
    waited: int = 0
    """Tasks that were acknowledged before a backup, and first done after it was restored."""
    former: int = 0
    """Effects of workers of the release before."""
    killed: int = 0
    """Tasks that kill their worker, and ended as `killed`, with a record of that."""
    not_killed: list[int] = field(default_factory=list)
    blamed: int = 0
    """Other tasks that ended as `killed`: those that faults killed while they were handled alone."""
    findings: int = 0
    repeated: int = 0
    """Effects of tasks without `once` beyond the first: allowed, and counted."""

    @property
    def problems(self) -> list[str]:
        found: dict[str, list[int] | list[str]] = {
            "lost": self.lost,
            "doubled under once": self.doubled,
            "unrecorded": self.unrecorded,
            "handled though denied": self.though_denied,
            "handled though canceled before": self.though_canceled,
            "poison that did not end as killed": self.not_killed,
        }
        lines = [f"{name}: {len(what)}, such as {what[:3]}" for name, what in found.items() if what]
        return lines + ([f"records that do not verify: {self.findings}"] if self.findings else [])

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged ({self.refused} refusals tried again), {self.effects} effects; lost "
            f"{len(self.lost)}, doubled under once {len(self.doubled)}, unrecorded {len(self.unrecorded)}, handled though "
            f"denied {len(self.though_denied)}, though canceled before {len(self.though_canceled)}; {self.canceled} cancels "
            f"confirmed, {self.undone} tasks ended by one undone, {self.another_copy} done by another copy; told "
            f"outcome_unknown {self.told_unknown}, repeated without once {self.repeated}; poison ended as killed "
            f"{self.killed}, otherwise {len(self.not_killed)}, other tasks {self.blamed}; waited in a backup {self.waited}, "
            f"done by the release before {self.former}; findings {self.findings}"
        )


async def settled(site: Site, book: Book, *, seconds: float = SETTLE_SECONDS) -> Count:
    """Wait until every acknowledged task has its effect or its end, and what was canceled would be due, then count.

    What has neither after `seconds` is lost.
    """
    told: dict[int, str] = {}
    async with AsyncExitStack() as stack:
        client = await _opened(stack, lambda: Client("shop", settings=site.settings))
        deadline = asyncio.get_running_loop().time() + seconds
        while waiting := [one for one in (open_tasks(book) | _poison(book)).items() if one[0] not in told]:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(LOOK)
            for at in range(0, len(waiting), ASKED):
                asked = waiting[at : at + ASKED]
                codes = await asyncio.gather(*(_end(site, client, handle) for _, handle in asked))
                told.update((number, code) for (number, _), code in zip(asked, codes, strict=True) if code)
    # A process that had not heard of a cancel would begin what was put off.
    due = book.value("SELECT max(confirmed) FROM cancels") + PUT_OFF + STOPPED
    await asyncio.sleep(max(0.0, due - time.time()))
    findings, allowed, killed = await _recorded(site)
    return judge(book, allowed=allowed, killed=killed, told=told, findings=findings)


def judge(
    book: Book, *, allowed: Set[str], told: Mapping[int, str], findings: int, killed: Set[str] = frozenset()
) -> Count:
    """Count what the book says, beside the ids of all messages that a verified record says were allowed, or were `killed`.

    `told` is what the senders of tasks that were not done were told: `outcome_unknown`, `canceled` or `killed`.
    """
    begun = [(int(str(number)), str(verb), str(message)) for number, verb, message in book.rows(_EFFECTS)]
    effects = [(number, verb, message) for number, verb, message in begun if verb != POISON]
    poison = {number: _message_of(handle) for number, handle in _poison(book).items()}
    ended = {number for number, message in poison.items() if told.get(number) == KILLED and message in killed}
    times = Counter((number, verb) for number, verb, _ in effects)
    unknown = {number for number, code in told.items() if code == UNKNOWN}
    asked = {int(str(number)) for (number,) in book.rows("SELECT number FROM cancels")}
    undone = {number for number in open_tasks(book).keys() & asked if told.get(number) == CANCELED}
    late = [
        (int(str(number)), _message_of(str(handle)) == message) for number, handle, message in book.rows(_LATE, STOPPED)
    ]
    return Count(
        acknowledged=int(book.value("SELECT count(*) FROM acknowledged")),
        refused=int(book.value("SELECT count(*) FROM refused")),
        effects=len(effects),
        canceled=int(book.value("SELECT count(confirmed) FROM cancels")),
        undone=len(undone),
        told_unknown=len(unknown),
        lost=sorted(open_tasks(book).keys() - unknown - undone),
        doubled=sorted(number for (number, verb), count in times.items() if verb == ONCE and count > 1),
        repeated=sum(count - 1 for (_, verb), count in times.items() if verb != ONCE),
        unrecorded=sorted({message for _, _, message in begun} - allowed),
        though_denied=sorted({number for number, _, _ in effects if is_denied(number)}),
        though_canceled=sorted(number for number, is_of in late if is_of),
        another_copy=len({number for number, is_of in late if not is_of}),
        waited=int(book.value(_WAITED)),
        former=int(book.value("SELECT count(*) FROM effects WHERE former")),
        killed=len(ended),
        not_killed=sorted(poison.keys() - ended),
        blamed=len(killed - set(poison.values())),
        findings=findings,
    )


def _message_of(handle: str) -> str:
    """Return the id of the message whose handle, or path at the edge, this is."""
    return handle.rpartition("/")[2] if "/" in handle else parse_handle(handle).pending.id.hex()


def _poison(book: Book) -> dict[int, str]:
    """Return the acknowledged tasks that kill their worker, with their handles."""
    found = book.rows("SELECT number, handle FROM acknowledged WHERE verb = ?", POISON)
    return {int(str(number)): str(handle) for number, handle in found}


def open_tasks(book: Book) -> dict[int, str]:
    """Return the acknowledged tasks that should be done and are not, with their handles."""
    query = "SELECT number, handle FROM acknowledged WHERE number NOT IN (SELECT number FROM effects) AND verb != ?"
    found = {int(str(number)): str(handle) for number, handle in book.rows(query, POISON)}
    return {number: handle for number, handle in found.items() if not is_denied(number)}


async def _opened(stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[Opened]]) -> Opened:
    """Enter what is opened, again while the servers are still recovering from the last fault."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return await stack.enter_async_context(opening())
            except BusUnavailable:
                await asyncio.sleep(LOOK)


async def _end(site: Site, client: Client, handle: str) -> str:
    """Return `canceled`, `killed` or `outcome_unknown` if the task's sender is told that, and nothing otherwise.

    Nobody knows where the process died between claim and effect, or between both.
    """
    if handle.startswith("/"):
        told = await site.asked_at_the_edge(handle)
        state, code = told.get("state"), told.get("code")
    else:
        try:
            status = await client.handle(handle).status()
        except (SealbusError, TimeoutError):
            return ""
        state, code = (status.state, status.code) if status is not None else (None, None)
    return str(code) if (state, code) in _ENDS else ""


async def _recorded(site: Site) -> tuple[int, set[str], set[str]]:
    """Return how many records do not verify, and the ids of all messages that the others say were allowed, and `killed`."""
    findings, allowed, killed = 0, set[str](), set[str]()
    async with AsyncExitStack() as stack:
        trail = await _opened(stack, lambda: open_audit_trail("operator", site.operators))
        async for entry in trail.entries():
            if not isinstance(entry, AuditEntry):
                findings += 1
            elif isinstance(entry.record, DecisionRecord) and entry.record.allow:
                allowed.add(parse_header(entry.record.header).id.hex())
            elif isinstance(entry.record, OutcomeRecord) and entry.record.code == KILLED:
                killed.add(entry.decided.id.hex() if entry.decided is not None else "")
    return findings, allowed, killed
