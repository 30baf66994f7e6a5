"""Runs one plan: starts the site, harms it as planned, waits until every task has ended, and checks every promise."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from promises.history import Event, What
from promises.promises import CRASHED, ENDLESS, LOG_STANDS, TICK_MISSED, TWO_LOGS, UNPROVEN, UNSHOWN, Broken, Promises

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.log.ledger import last_place
from sealbus.agents.control.notary.restored_stream import RestoredBackup, record_restoration
from sealbus.agents.dev.memory.jetstream import Stored
from sealbus.agents.evidence.verify import NOTHING_ELSEWHERE, ShownElsewhere, Verification
from sealbus.bus.cells import DEFAULT
from sealbus.bus.nats.api import StreamState
from sealbus.bus.stream_names import AUDIT, TASKS
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.restoration import FOLDER as RESTORATIONS
from sealbus.envelopes.log.tiles import TiledTree, tile_reader
from sealbus.envelopes.message.restored import RestoredStream
from simulation.agent_tasks import AgentTasks
from simulation.approver import boss
from simulation.broker import Flipped, Unanswered
from simulation.cells import LOGS
from simulation.clerk import OVER_AFTER, SENT_WITHIN, TICKS, Schedulings, clerk
from simulation.console import SHOWN_WITHIN, Console
from simulation.edge import edge
from simulation.evidence import audit
from simulation.network import LATENCY, Link, Published
from simulation.parts import CLERKS, REVOKER, TILL, VAULT
from simulation.plan import MOVE_SECONDS, Fault, FaultKind, Plan
from simulation.processes import (
    ATTEMPTS,
    DENIED_EVERY,
    EXPIRED,
    LIMIT,
    NOTE_ATTEMPTS,
    ONCE,
    notary,
    policy,
    worker,
)
from simulation.requesters import alice, read_ends, shop
from simulation.revoking import Revoking, till
from simulation.site import Site
from simulation.vault import FOLLOW_UPS, Chains, is_denied_follow_up, vault

__all__ = ["Outcome", "run_plan"]

MOST_STEPS: Final = 200_000
LOGGED_WITHIN: Final = 30.0
"""Seconds after which everything must be in the log, once nothing is broken any more."""
RESTART: Final = 1.0
"""Seconds until a process that ended by itself is started again."""
WORKERS: Final = ("bank-1", "bank-2")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one plan led to."""

    plan: Plan
    broken: tuple[Broken, ...]
    history: tuple[Event, ...]
    steps: int
    seconds: float
    """Virtual."""


class Log(NamedTuple):
    """A log as it is in a folder: its size, the last sequence that it holds, and its root at each size."""

    size: int
    sequence: int
    root: Callable[[int], bytes]


def read_log(folder: Path, cell: str) -> Log | None:
    """Return the log of `cell` in a folder, up to its checkpoint; `None` without one."""
    store = FolderStore(folder)
    if (note := store.get(CHECKPOINT)) is None:
        return None
    size = size_and_root(note, cell)[0]
    return Log(size, last_place(store, size).sequence, TiledTree(size, tile_reader(store.get)).root)


def size_and_root(note: bytes, cell: str) -> tuple[int, bytes]:
    """Return size and root of a checkpoint of the log of `cell`."""
    kept = LOGS[cell]
    checkpoint = open_checkpoint(note, origin=kept.origin, verifiers=[kept.signer.verifier]).checkpoint
    return checkpoint.size, checkpoint.root


def is_denied(number: int) -> bool:
    """Return whether the policy denies the task with this number in the history."""
    if number < TICKS:
        return number % DENIED_EVERY == 0
    return number >= FOLLOW_UPS and is_denied_follow_up(number)


class _Run:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.site = Site(
            plan.seed,
            engine=lambda: policy(plan.waits_for_approval, self.note_allowed),
            replicas=plan.replicas,
            east=plan.east,
            promises=Promises(
                once=ONCE,
                attempts=dict.fromkeys(ONCE, ATTEMPTS) | {"note": NOTE_ATTEMPTS},
                is_counted=plan.counts_attempt,
                is_denied=is_denied,
                waits_for_approval=plan.waits_for_approval,
                lossy=plan.replicas == 1,
                may_leave_untold=plan.may_leave_untold,
                heeded_since=lambda message, host: (
                    self.revoking.heeded_since(message, host) if self.revoking is not None else math.inf
                ),
                may_be_refused=lambda message: self.revoking is not None and self.revoking.may_be_refused(message),
                may_be_denied=lambda message: self.revoking is not None and self.revoking.may_be_denied(message),
                running_since=lambda host: self.site.resumed.get(host, 0.0),
            ),
        )
        self.hosts = (
            *WORKERS,
            *LOGS[DEFAULT].hosts,
            "shop",
            *(("edge", "boss", "alice") if plan.has_edge else ()),
            *plan.parts.hosts,
            *(host for cell in plan.cells if cell != DEFAULT for host in LOGS[cell].hosts),
            *(LOGS[cell].console for cell in plan.cells if cell != DEFAULT and plan.parts.console),
        )
        self.requesting: dict[str, asyncio.Task[None]] = {}
        """The processes that send tasks and follow them."""
        self.agent_tasks = AgentTasks(self.site)
        revocations = plan.parts.revocations
        self.revoking = (
            Revoking(self.site, self.agent_tasks, revocations, plan.faults, folder / "policy") if revocations else None
        )
        self.chains = Chains(self.site, self.agent_tasks) if plan.parts.follow_ups else None
        self.schedulings = Schedulings(
            self.site, self.agent_tasks, plan.parts.schedules, may_leave_untold=plan.may_leave_untold
        )
        self.notaries = {host: cell for cell in plan.cells for host in LOGS[cell].hosts}
        """The cells of the notaries, by their hosts."""
        self.consoles = {LOGS[cell].console: Console(self.site, cell) for cell in plan.cells}
        """The consoles by their hosts, one of each cell."""
        self.lost: dict[Path, set[int]] = {}
        """By the folder of a log, the sequences of messages that it had signed and the broker has lost or damaged since."""
        self.handles: dict[str, int] = {}
        self.newer = {WORKERS[0]}
        """The workers that run the newer version."""
        self.is_over = False
        """Whether no process is started again."""
        self.is_restoring = False
        """Whether the broker is restored, and no process starts."""
        self.is_moving = False
        """Whether `bank` is moved, and no worker starts."""

    def note_allowed(self, document: dict[str, Any]) -> None:
        if self.revoking is not None:
            self.revoking.note_allowed(document)

    def start(self, name: str) -> None:
        """Start a process, again whenever it ends by itself, as what supervises it does."""
        if self.is_restoring or (self.is_moving and name in WORKERS):
            return
        if (link := self.site.links.get(name)) is not None and link.host.alive:
            # Two faults of one process end, and each of them starts it.
            self.site.kill(name)
        task = self.launch(name)
        task.add_done_callback(lambda _: self.start_again(name, task))

    def start_again(self, name: str, task: asyncio.Task[None]) -> None:
        if self.is_over or task.cancelled() or (error := task.exception()) is None:
            return
        site = self.site
        ended = Event(site.loop.now, name, What.FAULT, text=f"{name} ended: {error!r}")
        site.history.append(ended)
        if not isinstance(error, SealbusError):
            site.promises.fail(CRASHED, ended)
        site.kill(name)
        site.loop.call_later(RESTART, lambda: None if self.is_over else self.start(name))

    def launch(self, name: str) -> asyncio.Task[None]:
        site = self.site
        if name in WORKERS:
            follow = self.chains.follow if self.chains is not None else None
            return site.start(name, partial(worker, site, newer=name in self.newer, follow=follow))
        if name in self.notaries:
            return site.start(name, partial(notary, site, cell=self.notaries[name], folder=self.folder / name))
        if name in CLERKS:
            return site.start(name, partial(clerk, site))
        if name == REVOKER and self.revoking is not None:
            return site.start(name, self.revoking.publish)
        if name in self.consoles:
            return site.start(name, self.consoles[name].run)
        if name == TILL:
            return site.start(name, partial(till, site))
        if name == VAULT:
            return site.start(name, partial(vault, site))
        if name == "edge":
            return site.start(name, partial(edge, site))
        if name == "boss":
            verdicts = {task.number: task.verdict for task in self.plan.tasks if task.verdict is not None}
            return site.start(name, partial(boss, site, verdicts=verdicts))
        if name == "alice":
            requesting = partial(alice, site, tasks=self.plan.tasks, handles=self.handles)
        else:
            requesting = partial(shop, site, tasks=self.plan.tasks, handles=self.handles, beside=self.schedulings.begin)
        self.requesting[name] = site.start(name, requesting)
        return self.requesting[name]

    async def main(self) -> None:
        site = self.site
        for name in self.hosts:
            self.start(name)
        async with asyncio.TaskGroup() as group:
            for fault in self.plan.faults:
                group.create_task(self.cause(fault), name=str(fault))
            if self.plan.moved_at is not None:
                group.create_task(self.move(self.plan.moved_at), name="move")
        # The change to the newer version is finished.
        for name in sorted({*WORKERS} - self.newer):
            self.exchange(name)()
        while (
            left := [task for task in self.requesting.values() if not task.done()]
        ) and site.loop.now < self.plan.lasts + LIMIT:
            await asyncio.wait(left, timeout=10.0)
        await self.check_agents()
        for cell in self.plan.cells:
            await self.check_log(cell)
            await self.check_console(cell)
            await self.check_evidence(cell)
        self.is_over = True
        for name in self.hosts:
            site.kill(name)
        await site.sleep_until(EXPIRED)
        if self.plan.has_edge:
            site.start("edge", partial(edge, site))
        await site.start("reader", partial(read_ends, site, handles=self.handles))
        for agent, handles in self.agent_tasks.handles.items():
            await site.start("reader", partial(read_ends, site, handles=handles, name=agent))
        for error in site.loop.errors:
            site.promises.fail(CRASHED, Event(site.loop.now, "world", What.FAULT, text=error))
        site.promises.finish(site.loop.now, ["reader"])

    async def move(self, at: float) -> None:
        """Move `bank` to the other cell, as docs/cells.md says."""
        await self.site.sleep_until(at)
        self.is_moving = True
        for name in WORKERS:
            self.site.kill(name)
        self.site.note(What.FAULT, text="bank is moved", host="world")
        self.site.move("bank")
        await asyncio.sleep(MOVE_SECONDS)
        self.is_moving = False
        for name in WORKERS:
            self.start(name)

    def exchange(self, name: str) -> Callable[[], None]:
        """Kill a worker; return what starts it in the other version."""
        self.site.kill(name)
        self.newer ^= {name}
        return lambda: self.start(name)

    async def check_agents(self) -> None:
        """Wait until every tick that has to be sent is, and the tasks of agents have ended."""
        site = self.site
        await site.sleep_until(max((schedule.at + OVER_AFTER for schedule in self.plan.parts.schedules), default=0.0))
        until = site.loop.now + SENT_WITHIN
        while (unsent := [*self.schedulings.unsent()]) or self.agent_tasks.open:
            if site.loop.now > until:
                if unsent:
                    site.promises.fail(TICK_MISSED, Event(site.loop.now, "world", What.SENT, text=", ".join(unsent)))
                return
            await asyncio.sleep(1.0)

    def restore(self, cell: str, *, repeated: bool) -> Callable[[], None]:
        """End all processes, and back the streams of `cell` up; return what restores them and starts the processes.

        What was published before is `repeated` between the two, by somebody who captured it. Without a log there is nothing
        that an operator could tell a notary.
        """
        log = self.longest(cell)
        if self.is_restoring or log is None:
            return lambda: None
        self.is_restoring = True
        for name in self.hosts:
            self.site.kill(name)
            self.site.links[name].drop()

        def restored() -> None:
            self.tell_notaries(cell, log, self.site.brokers[cell].restore())
            self.is_restoring = False
            for name in self.hosts if repeated else ():
                self.repeat(self.site.links[name].published)
            for name in self.hosts:
                # With a new credential `till` would not be revoked.
                if name != TILL:
                    self.start(name)

        return restored

    def tell_notaries(self, cell: str, log: Path, restored: Sequence[RestoredStream]) -> None:
        """Tell the notaries of `cell` of its restored streams, as `sealbus notary restored` does, and copy the note."""
        site = self.site
        [records] = [stream for stream in restored if stream.stream == AUDIT]
        record_restoration(
            FolderStore(log),
            StreamState(
                name=AUDIT, config={}, created=records.created, messages=records.last, bytes=0, last=records.last
            ),
            origin=LOGS[cell].origin,
            signers=(LOGS[cell].signer,),
            last=records.last,
            by=site.names.id_of("operator"),
            now=site.brokers[cell].clock(),
            backup=RestoredBackup(
                sha256(repr(restored).encode()).hexdigest(), tuple(one for one in restored if one is not records)
            ),
        )
        for name in LOGS[cell].hosts:
            if (folder := self.folder / name) != log:
                shutil.copytree(log / RESTORATIONS, folder / RESTORATIONS, dirs_exist_ok=True)

    async def check_log(self, cell: str) -> None:
        """Wait until all that `cell` has recorded is in its log; check that every published checkpoint is of this log."""
        site = self.site
        last, until = site.recorded[cell], site.loop.now + LOGGED_WITHIN
        while (log := self.log(cell)) is None or log.sequence < last:
            if site.loop.now > until:
                at = f"the log ends at {log.sequence if log is not None else 0}, the stream at {last}"
                site.promises.fail(LOG_STANDS, Event(site.loop.now, "world", What.SIGNED, text=at))
                return
            await asyncio.sleep(1.0)
        for size, root in self.published(cell) if not self.plan.may_have_two_logs else ():
            if size <= log.size and log.root(size) != root:
                site.promises.fail(TWO_LOGS, Event(site.loop.now, "world", What.SIGNED, text=str(size)))

    async def check_console(self, cell: str) -> None:
        """Wait until the console of `cell` has read all that is recorded there, if there is one; check what it shows."""
        if not self.plan.parts.console:
            return
        site = self.site
        last, until = site.recorded[cell], site.loop.now + SHOWN_WITHIN
        console = self.consoles[LOGS[cell].console]
        lost = {event.message for event in site.history if event.what is What.LOST}
        while console.last < last:
            if site.loop.now > until:
                break
            await asyncio.sleep(1.0)
        for promise, at in console.missed(site.allowed[cell] - lost):
            site.promises.fail(promise, Event(site.loop.now, LOGS[cell].console, What.RECORDED, text=at))

    async def check_evidence(self, cell: str) -> None:
        """Verify the log of `cell` as an auditor does; where its broker has lost logged records, check that this shows."""
        site = self.site
        logs = {log: lost for log, lost in self.lost.items() if self.notaries[log.name] == cell}
        if self.plan.parts.console and (log := self.longest(cell)) is not None:
            logs.setdefault(log, set())
        for log, lost in sorted(logs.items()):
            beside = ShownElsewhere()
            for other in self.plan.cells:
                if other != cell and (there := self.longest(other)) is not None:
                    beside.add((await self.audit(other, there, NOTHING_ELSEWHERE)).shown)
            found = (await self.audit(cell, log, beside)).findings
            for finding in found:
                at = f"{finding.place} {finding.code} {finding.detail}"
                site.promises.fail(UNPROVEN, Event(site.loop.now, "auditor", What.SIGNED, text=at))
            # The first message that differs is named, and those after it are not.
            if lost and min(lost) not in {finding.sequence for finding in found}:
                site.promises.fail(UNSHOWN, Event(site.loop.now, "auditor", What.LOST, text=f"#{min(lost)}"))

    async def audit(self, cell: str, log: Path, beside: ShownElsewhere) -> Verification:
        """Verify the log of `cell` in the folder `log`, with what was found `beside` it."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            reports = list[Verification]()

            async def report(link: Link) -> None:
                export = Path(folder) / "export"
                reports.append(await audit(self.site, link, cell=cell, log=log, export=export, beside=beside))

            await self.site.start("auditor", report)
        return reports[0]

    async def cause(self, fault: Fault) -> None:
        """Cause one fault, and mend it."""
        site = self.site
        await site.sleep_until(fault.at)
        site.note(What.FAULT, text=str(fault), host=fault.target)
        mend = self.harm(fault)
        await asyncio.sleep(fault.seconds)
        mend()
        if fault.seconds:
            site.note(What.FAULT, text=f"{fault.kind} {fault.target} ends", host=fault.target)

    def log(self, cell: str) -> Log | None:
        """Return the longest log in the folder of a notary of `cell`."""
        return read_log(folder, cell) if (folder := self.longest(cell)) is not None else None

    def longest(self, cell: str) -> Path | None:
        """Return the folder of the longest log of `cell`, if there is one."""
        folders = [self.folder / name for name in LOGS[cell].hosts]
        sizes = {folder: log.size for folder in folders if (log := read_log(folder, cell)) is not None}
        return max(sizes, key=lambda folder: sizes[folder], default=None)

    def repeat(self, captured: Iterable[Published]) -> None:
        """Publish messages again, if the broker is there; nobody is told whether they were stored."""
        for one in captured if not self.is_restoring else ():
            with suppress(Unanswered):
                one.broker.publish(one.message)

    def published(self, cell: str) -> Iterator[tuple[int, bytes]]:
        """Yield size and root of each checkpoint in the stream of `cell`."""
        for note in self.site.notes[cell]:
            yield size_and_root(note, cell)

    def harm(self, fault: Fault) -> Callable[[], None]:
        """Cause a fault, and return what ends it."""
        site, name = self.site, fault.target
        link, broker = site.links.get(name), site.brokers[fault.cell]
        match fault.kind:
            case FaultKind.KILL:
                site.kill(name)
                return lambda: self.start(name)
            case FaultKind.EXCHANGE:
                return self.exchange(name)
            case FaultKind.SILENCE:
                broker.silent_until = max(broker.silent_until, site.loop.now + fault.seconds)
            case FaultKind.APART:
                broker.apart_until = max(broker.apart_until, site.loop.now + fault.seconds)
            case FaultKind.DOWN:
                broker.go_down(fault.seconds)
            case FaultKind.LEADER:
                broker.elect(name, fault.seconds, fault.amount)
                return partial(broker.lead, name)
            case FaultKind.AWAY:
                consuming = site.brokers[site.cell_of("bank")]
                return partial(consuming.send_away(TASKS, name, fault.seconds), bool(fault.amount))
            case FaultKind.RESTORED:
                return self.restore(fault.cell, repeated=bool(fault.amount))
            case FaultKind.REDELIVER:
                broker.redeliver()
            case FaultKind.FORGET:
                broker.forget_consumers()
            case FaultKind.FULL:
                return broker.fill(name)
            case FaultKind.LITTER:
                site.litter(int(fault.amount))
            case FaultKind.LOSE | FaultKind.FLIP | FaultKind.MEMBERSHIP:
                return self.harm_stored(fault)
            case _ if link is not None:
                return self.harm_host(fault)
            case _:
                raise ValueError(f"{fault}: unknown host")
        return lambda: None

    def note_lost(self, cell: str, stream: str, lost: Sequence[Stored]) -> None:
        """Note messages that a stream of `cell` has lost."""
        self.site.note_lost(stream, lost)
        self.note_differing(cell, stream, lost)

    def note_differing(self, cell: str, stream: str, messages: Sequence[Stored]) -> None:
        """Note which logs had signed messages that a stream of `cell` does not have any more, or not as they were."""
        for folder in [self.folder / name for name in LOGS[cell].hosts] if stream == AUDIT else ():
            if (log := read_log(folder, cell)) is not None:
                logged = {stored.sequence for stored in messages if stored.sequence <= log.sequence}
                self.lost.setdefault(folder, set()).update(logged)

    def harm_stored(self, fault: Fault) -> Callable[[], None]:
        """Cause a fault that loses what was acknowledged, and return what ends it."""
        name, cell, broker = fault.target, fault.cell, self.site.brokers[fault.cell]
        last = broker.streams[name].last
        match fault.kind:
            case FaultKind.LOSE:
                self.note_lost(cell, name, broker.lose_after(name, max(0, last - int(fault.amount))))
            case FaultKind.FLIP:
                lost, damaged = broker.flip(name, Flipped(int(fault.amount)))
                self.note_lost(cell, name, lost)
                self.note_differing(cell, name, damaged)
            case FaultKind.MEMBERSHIP:
                return lambda: self.note_lost(cell, name, broker.lose_after(name, last))
            case _:
                raise ValueError(f"{fault} loses nothing")
        return lambda: None

    def harm_host(self, fault: Fault) -> Callable[[], None]:
        """Cause a fault of a host, and return what ends it, for the process that is there then."""
        links, name = self.site.links, fault.target
        link, now = links[name], self.site.loop.now
        match fault.kind:
            case FaultKind.PAUSE:
                link.host.paused_until = max(link.host.paused_until, now + fault.seconds)
                return lambda: self.site.resumed.update({name: self.site.loop.now})
            case FaultKind.CUT:
                link.cut = True
                return lambda: setattr(links[name], "cut", False)
            case FaultKind.LOSSY:
                link.lost = fault.amount
                return lambda: setattr(links[name], "lost", 0.0)
            case FaultKind.REPEAT:
                return partial(self.repeat, [one for one in link.published if one.at >= now - fault.amount])
            case FaultKind.ELSEWHERE:
                others = [
                    Published(now, broker, one.message)
                    for one in link.published
                    for broker in self.site.brokers.values()
                    if one.at >= now - fault.amount and broker is not one.broker
                ]
                return partial(self.repeat, others)
            case FaultKind.SLOW:
                link.latency = fault.amount
                return lambda: setattr(links[name], "latency", LATENCY)
            case FaultKind.CLOCK:
                link.host.ahead = fault.amount
                return lambda: links[name].host.set_right(self.site.loop.now)
            case FaultKind.DRIFT:
                link.host.set_rate(fault.amount, now)
                return lambda: links[name].host.set_right(self.site.loop.now)
            case _:
                raise ValueError(f"{fault} is of no host")


def run_plan(plan: Plan) -> Outcome:
    """Run a plan from its beginning. The same plan has the same steps in each new process with one PYTHONHASHSEED."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        run = _Run(plan, Path(folder))
        site = run.site
        with site.entered():
            with _running(site):
                task = site.loop.create_task(run.main(), name="main")
            try:
                site.loop.run_until(task, most=MOST_STEPS)
            except TimeoutError as error:
                site.promises.fail(ENDLESS, Event(site.loop.now, "world", What.FAULT, text=str(error)))
            else:
                task.result()
    broken = list(site.promises.broken)
    return Outcome(plan, tuple(broken), tuple(site.history), site.loop.steps, site.loop.now)


def _memory() -> str | None:
    """Return a folder in memory, where a durable write costs nothing, if there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def _running(site: Site) -> Iterator[None]:
    asyncio._set_running_loop(site.loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)
