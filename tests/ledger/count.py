"""After the run: waits until every task has its end, and checks the promises on what the book and the readers say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from promises.history import Event, What
from promises.promises import STOPPED, Broken, Promises

from ledger.book import POISON, PUT_OFF, Book, is_denied
from ledger.site import Site
from sealbus import Client
from sealbus.agents.runtime.open import open_audit_trail
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.errors import BusUnavailable, Code, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord

__all__ = ["READ", "SETTLE_SECONDS", "Count", "end_text", "judge", "opened", "recorded", "settled"]

Opened = TypeVar("Opened")

SETTLE_SECONDS = 600.0
"""Like all such bounds of the ledger, far beyond what a busy machine takes: it ends what hangs."""
LOOK = 0.5
ASKED = 100
"""Handles that are asked about at a time."""
READ = 1_000
"""Most tasks that were done, or that a later reader asks about: each takes a consumer, on a cluster a replicated one."""
ONCE = "pay"
"""The verb that is declared `once`."""
SENDER = "sender"
READER = "a later reader"
CANCELED = "canceled canceled"
UNKNOWN = "failed outcome_unknown"
KILLED = "failed killed"
_LATE = """SELECT DISTINCT number, handle, message FROM effects JOIN cancels USING (number) JOIN acknowledged USING (number)
           WHERE effects.at > confirmed + ?"""
_WAITED = """SELECT count(DISTINCT number) FROM acknowledged JOIN effects USING (number) JOIN backups
             WHERE acknowledged.at < backups.at AND effects.at > backups.at AND number > 0
             AND number NOT IN (SELECT earlier.number FROM effects AS earlier WHERE earlier.at < backups.at)"""

Ends = Mapping[int, str]
"""State and code of the ends that somebody was told, by the numbers of the tasks."""


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
    told: int = 0
    """Ends that were read, by the sender and by a later reader."""
    broken: Sequence[Broken] = ()
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

    def broke(self, promise: str) -> list[int]:
        """Return the tasks of which a promise was broken."""
        return sorted({one.event.number for one in self.broken if one.promise == promise})

    @property
    def problems(self) -> list[str]:
        found = {promise: self.broke(promise) for promise in sorted({one.promise for one in self.broken})}
        found["poison that did not end as killed"] = self.not_killed
        lines = [f"{name}: {len(what)}, such as {what[:3]}" for name, what in found.items() if what]
        return lines + ([f"records that do not verify: {self.findings}"] if self.findings else [])

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged ({self.refused} refusals tried again), {self.effects} effects, "
            f"{self.told} ends read; promises broken {len(self.broken)}, poison that did not end as killed "
            f"{len(self.not_killed)}, findings {self.findings}; {self.canceled} cancels confirmed, {self.undone} tasks ended "
            f"by one undone, {self.another_copy} done by another copy; told outcome_unknown {self.told_unknown}, repeated "
            f"without once {self.repeated}; poison ended as killed {self.killed}, other tasks {self.blamed}; waited in a "
            f"backup {self.waited}, done by the release before {self.former}"
        )


async def settled(site: Site, book: Book, *, seconds: float = SETTLE_SECONDS) -> Count:
    """Wait until every task whose end must be told has one, and what was canceled would be due, then count.

    What is left has no end once none was told for `seconds`. A later reader then asks about a part of all tasks once.
    """
    told: dict[int, str] = {}
    deadline = asyncio.get_running_loop().time() + seconds
    async with AsyncExitStack() as stack:
        client = await opened(stack, lambda: Client("shop", settings=site.settings))
        while waiting := {number: handle for number, handle in _must_end(book).items() if number not in told}:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(LOOK)
            if ends := await _ends(site, client, waiting):
                deadline = asyncio.get_running_loop().time() + seconds
            told |= ends
    # A process that had not heard of a cancel would begin what was put off.
    due = book.value("SELECT max(confirmed) FROM cancels") + PUT_OFF + STOPPED
    await asyncio.sleep(max(0.0, due - time.time()))
    async with AsyncExitStack() as stack:
        client = await opened(stack, lambda: Client("shop", settings=site.settings))
        later = await _ends(site, client, _part([(number, handle) for number, _, handle in _acknowledged(book)]))
    findings, allowed, killed = await recorded(site.operators, "operator")
    return judge(book, allowed=allowed, killed=killed, told=told, later=later, findings=findings)


def judge(
    book: Book,
    *,
    allowed: Mapping[str, float],
    told: Ends,
    findings: int,
    later: Ends = MappingProxyType({}),
    killed: Set[str] = frozenset(),
) -> Count:
    """Count what the book says, beside the ids of all messages that a verified record says were allowed, or were `killed`.

    `allowed` says when the first such record was stored, in seconds since the epoch.
    `told` are the ends that the senders of tasks were told, `later` those that another process of theirs was told.
    """
    # Faults keep STATE away at any time, and then deliveries count as attempts.
    promises = Promises(
        once={ONCE}, is_denied=is_denied, attempts={}, is_counted=lambda *_: False, may_leave_untold=True
    )
    for event in _history(book, allowed, {SENDER: told, READER: later}):
        promises.observe(event)
    must_end = _must_end(book)
    promises.finish(time.time(), [SENDER], but=lambda number: number not in must_end)
    effects = [(number, verb) for number, verb, _, _ in _effects(book) if verb != POISON]
    poison = {number: _message_of(handle) for number, verb, handle in _acknowledged(book) if verb == POISON}
    ended = {number for number, message in poison.items() if told.get(number) == KILLED and message in killed}
    times = Counter(effects)
    late = book.rows(_LATE, STOPPED)
    not_done = must_end.keys() - {number for number, _ in effects}
    return Count(
        acknowledged=int(book.value("SELECT count(*) FROM acknowledged")),
        refused=int(book.value("SELECT count(*) FROM refused")),
        effects=len(effects),
        canceled=int(book.value("SELECT count(confirmed) FROM cancels")),
        undone=sum(told.get(number) == CANCELED for number in not_done),
        told_unknown=sum(told.get(number) == UNKNOWN for number in not_done),
        told=len(told) + len(later),
        broken=promises.broken,
        repeated=sum(count - 1 for (_, verb), count in times.items() if verb != ONCE),
        another_copy=len({number for number, handle, message in late if _message_of(str(handle)) != message}),
        waited=int(book.value(_WAITED)),
        former=int(book.value("SELECT count(*) FROM effects WHERE former")),
        killed=len(ended),
        not_killed=sorted(poison.keys() - ended),
        blamed=len(killed - set(poison.values())),
        findings=findings,
    )


def _history(book: Book, allowed: Mapping[str, float], ends: Mapping[str, Ends]) -> Iterator[Event]:
    """Yield what happened in the order of its time, and last what readers were told."""
    messages = {number: _message_of(handle) for number, _, handle in _acknowledged(book)}
    events = [Event(at, "bank", What.RECORDED, message=message) for message, at in allowed.items()]
    events += (Event(0.0, SENDER, What.SUBMITTED, number, message) for number, message in messages.items())
    for number, asked, confirmed in book.rows("SELECT number, asked, confirmed FROM cancels"):
        message = messages[int(str(number))]
        events.append(Event(float(str(asked)), SENDER, What.UNWANTED, int(str(number)), message))
        if confirmed is not None:
            events.append(Event(float(str(confirmed)), SENDER, What.CANCELED, int(str(number)), message))
    for number, verb, message, at in _effects(book):
        events += (Event(at, "bank", what, number, message, verb) for what in (What.BEGAN, What.DONE))
    yield from sorted(events, key=lambda event: event.at)
    now = time.time()
    for reader, told in ends.items():
        for number, end in told.items():
            yield Event(now, reader, What.TOLD, number, messages[number], end)


def _effects(book: Book) -> list[tuple[int, str, str, float]]:
    rows = book.rows("SELECT number, verb, message, at FROM effects ORDER BY at")
    return [(int(str(number)), str(verb), str(message), float(str(at))) for number, verb, message, at in rows]


def _acknowledged(book: Book) -> list[tuple[int, str, str]]:
    rows = book.rows("SELECT number, verb, handle FROM acknowledged")
    return [(int(str(number)), str(verb), str(handle)) for number, verb, handle in rows]


def _must_end(book: Book) -> dict[int, str]:
    """Return the acknowledged tasks whose end must be told, with their handles; of those that were done, a part.

    It is tried for a while only for what was denied, and for what was done without `once`.
    """
    done = {number for number, _, _, _ in _effects(book)}
    tasks = [row for row in _acknowledged(book) if not is_denied(row[0])]
    under_once = [(number, handle) for number, verb, handle in tasks if number in done and verb == ONCE]
    return {number: handle for number, verb, handle in tasks if number not in done or verb == POISON} | _part(
        under_once
    )


def _part(tasks: Sequence[tuple[int, str]]) -> dict[int, str]:
    """Return at most `READ` of these tasks, evenly. None is of the edge, which lets a user read so often and no more."""
    on_the_bus = [(number, handle) for number, handle in tasks if handle[0] != "/"]
    return dict(on_the_bus[:: len(on_the_bus) // READ + 1])


def _message_of(handle: str) -> str:
    """Return the id of the message whose handle, or path at the edge, this is."""
    return handle.rpartition("/")[2] if "/" in handle else parse_handle(handle).pending.id.hex()


async def opened(stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[Opened]]) -> Opened:
    """Enter what is opened, again while the servers are still recovering from the last fault."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return await stack.enter_async_context(opening())
            except BusUnavailable:
                await asyncio.sleep(LOOK)


async def _ends(site: Site, client: Client, handles: Mapping[int, str]) -> dict[int, str]:
    """Return the ends of those tasks that have one, as far as somebody answers."""
    ends: dict[int, str] = {}
    rows = list(handles.items())
    for at in range(0, len(rows), ASKED):
        group = rows[at : at + ASKED]
        told = await asyncio.gather(*(_end(site, client, handle) for _, handle in group))
        ends.update((number, end) for (number, _), end in zip(group, told, strict=True) if end)
    return ends


async def _end(site: Site, client: Client, handle: str) -> str:
    """Return the state and the code with which a task has ended; nothing if it has not, or nobody answers."""
    if handle.startswith("/"):
        told = await site.asked_at_the_edge(handle)
        return end_text(told["state"], told.get("code")) if told.get("final") else ""
    try:
        status = await client.handle(handle).status()
    except (SealbusError, TimeoutError):
        return ""
    return end_text(status.state, status.code) if status is not None and status.final else ""


def end_text(state: object, code: object) -> str:
    return f"{state} {code or ''}".strip()


async def recorded(settings: Settings, *operators: str) -> tuple[int, dict[str, float], set[str]]:
    """Return how many records do not verify, when the others say that a message was allowed, and which were `killed`.

    Where there are cells, there is one of the `operators` in each.
    """
    findings, allowed, killed = 0, dict[str, float](), set[str]()
    for operator in operators:
        async with AsyncExitStack() as stack:
            trail = await opened(stack, partial(open_audit_trail, operator, settings))
            async for entry in trail.entries():
                if not isinstance(entry, AuditEntry):
                    findings += 1
                elif isinstance(entry.record, DecisionRecord) and entry.record.allow:
                    message, at = parse_header(entry.record.header).id.hex(), entry.stored / SECOND
                    allowed[message] = min(at, allowed.get(message, at))
                elif isinstance(entry.record, OutcomeRecord) and entry.record.code == Code.KILLED:
                    killed.add(entry.decided.id.hex() if entry.decided is not None else "")
    return findings, allowed, killed
