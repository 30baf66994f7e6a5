"""After the run: waits until nothing is open any more, and counts what must not have happened."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from ledger.book import Book, is_denied
from ledger.site import Site
from sealbus import Client
from sealbus.agents.runtime.open import open_audit_trail
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import BusUnavailable, SealbusError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.records.decision import DecisionRecord

__all__ = ["Count", "judge", "settled"]

Opened = TypeVar("Opened")

SETTLE_SECONDS = 180.0
LOOK = 0.5
ASKED = 100
"""Handles that are asked about in one look."""
ONCE = "pay"
"""The verb that is declared `once`."""
_EFFECTS = "SELECT number, verb, message FROM effects"


@dataclass(slots=True, kw_only=True)
class Count:
    """What was found; `problems` is empty for a run in which every promise was kept."""

    acknowledged: int = 0
    refused: int = 0
    effects: int = 0
    told_unknown: int = 0
    """Acknowledged, not done as far as the book says, and the sender was told `outcome_unknown`: no loss, a known doubt."""
    lost: list[int] = field(default_factory=list)
    doubled: list[int] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    though_denied: list[int] = field(default_factory=list)
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
        }
        lines = [f"{name}: {len(what)}, such as {what[:3]}" for name, what in found.items() if what]
        return lines + ([f"records that do not verify: {self.findings}"] if self.findings else [])

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged ({self.refused} refusals tried again), {self.effects} effects; lost "
            f"{len(self.lost)}, doubled under once {len(self.doubled)}, unrecorded {len(self.unrecorded)}, handled though "
            f"denied {len(self.though_denied)}; told outcome_unknown {self.told_unknown}, repeated without once "
            f"{self.repeated}, findings {self.findings}"
        )


async def settled(site: Site, book: Book) -> Count:
    """Wait until every acknowledged task has its effect or its end, then count."""
    unknown: set[int] = set()
    async with AsyncExitStack() as stack:
        client = await _opened(stack, lambda: Client("shop", settings=site.settings))
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while waiting := {number: handle for number, handle in open_tasks(book).items() if number not in unknown}:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(LOOK)
            asked = list(waiting)[:ASKED]
            ended = await asyncio.gather(*(_ended_unknown(site, client, waiting[number]) for number in asked))
            unknown.update(number for number, known in zip(asked, ended, strict=True) if known)
    findings, allowed = await _allowed(site)
    return judge(book, allowed=allowed, unknown=unknown, findings=findings)


def judge(book: Book, *, allowed: Set[str], unknown: Set[int], findings: int) -> Count:
    """Count what the book says, beside the ids of all messages that a verified record says were allowed.

    `unknown` are the tasks whose sender was told that nobody knows what came of them.
    """
    effects = [(int(str(number)), str(verb), str(message)) for number, verb, message in book.rows(_EFFECTS)]
    times = Counter((number, verb) for number, verb, _ in effects)
    lost = open_tasks(book).keys() - unknown
    return Count(
        acknowledged=int(book.value("SELECT count(*) FROM acknowledged")),
        refused=int(book.value("SELECT count(*) FROM refused")),
        effects=len(effects),
        told_unknown=len(unknown),
        lost=sorted(lost),
        doubled=sorted(number for (number, verb), count in times.items() if verb == ONCE and count > 1),
        repeated=sum(count - 1 for (_, verb), count in times.items() if verb != ONCE),
        unrecorded=sorted({message for _, _, message in effects} - allowed),
        though_denied=sorted({number for number, _, _ in effects if is_denied(number)}),
        findings=findings,
    )


def open_tasks(book: Book) -> dict[int, str]:
    """Return the acknowledged tasks that should be done and are not, with their handles."""
    query = "SELECT number, handle FROM acknowledged WHERE number NOT IN (SELECT number FROM effects)"
    found = {int(str(number)): str(handle) for number, handle in book.rows(query)}
    return {number: handle for number, handle in found.items() if not is_denied(number)}


async def _opened(stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[Opened]]) -> Opened:
    """Enter what is opened, again while the servers are still recovering from the last fault."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return await stack.enter_async_context(opening())
            except BusUnavailable:
                await asyncio.sleep(LOOK)


async def _ended_unknown(site: Site, client: Client, handle: str) -> bool:
    """Tell whether the sender knows that nobody knows: the process died between claim and effect, or between both."""
    if handle.startswith("/"):
        told = await site.asked_at_the_edge(handle)
        return (told.get("state"), told.get("code")) == ("failed", "outcome_unknown")
    try:
        status = await client.handle(handle).status()
    except (SealbusError, TimeoutError):
        return False
    return status is not None and status.state is State.FAILED and status.code == "outcome_unknown"


async def _allowed(site: Site) -> tuple[int, set[str]]:
    """Return how many records do not verify, and the ids of all messages that the others say were allowed."""
    findings, found = 0, set()
    async with AsyncExitStack() as stack:
        trail = await _opened(stack, lambda: open_audit_trail("operator", site.settings))
        async for entry in trail.entries():
            if not isinstance(entry, AuditEntry):
                findings += 1
            elif isinstance(entry.record, DecisionRecord) and entry.record.allow:
                found.add(parse_header(entry.record.header).id.hex())
    return findings, found
