"""Runs one plan: starts the site, harms it as planned, waits until every task has ended, and checks every promise."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.log.ledger import last_place
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.tiles import TiledTree, tile_reader
from simulation.history import Event, What
from simulation.plan import Fault, FaultKind, Plan
from simulation.processes import (
    DENIED_EVERY,
    EXPIRED,
    LIMIT,
    ONCE,
    ORIGIN,
    SIGNER,
    notary,
    policy,
    read_ends,
    shop,
    worker,
)
from simulation.properties import CRASHED, ENDLESS, LOG_STANDS, TWO_LOGS, Broken, Promises
from simulation.site import Site

__all__ = ["Outcome", "run_plan"]

MOST_STEPS: Final = 200_000
LOGGED_WITHIN: Final = 30.0
"""Seconds after which everything must be in the log, once nothing is broken any more."""
RESTART: Final = 1.0
"""Seconds until a process that ended by itself is started again."""
WORKERS: Final = ("bank-1", "bank-2")
NOTARIES: Final = ("notary-1", "notary-2")
HOSTS: Final = (*WORKERS, *NOTARIES, "shop")


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


def read_log(folder: Path) -> Log | None:
    """Return the log in a folder, up to its checkpoint; `None` without one."""
    store = FolderStore(folder)
    if (note := store.get(CHECKPOINT)) is None:
        return None
    size = open_checkpoint(note, origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint.size
    return Log(size, last_place(store, size).sequence, TiledTree(size, tile_reader(store.get)).root)


class _Run:
    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.site = Site(
            plan.seed,
            engine=policy,
            replicas=plan.replicas,
            promises=Promises(
                once=ONCE,
                is_denied=lambda number: number % DENIED_EVERY == 0,
                lossy=plan.replicas == 1,
                may_leave_untold=plan.may_leave_untold,
                running_since=lambda host: self.site.resumed.get(host, 0.0),
            ),
        )
        self.handles: dict[str, int] = {}
        self.newer = {WORKERS[0]}
        """The workers that run the newer version."""
        self.is_over = False
        """Whether no process is started again."""

    def start(self, name: str) -> None:
        """Start a process, again whenever it ends by itself, as what supervises it does."""
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
            return site.start(name, partial(worker, site, newer=name in self.newer))
        if name in NOTARIES:
            return site.start(name, partial(notary, site, folder=self.folder / name))
        self.shopping = site.start(name, partial(shop, site, tasks=self.plan.tasks, handles=self.handles))
        return self.shopping

    async def main(self) -> None:
        site = self.site
        for name in HOSTS:
            self.start(name)
        async with asyncio.TaskGroup() as group:
            for fault in self.plan.faults:
                group.create_task(self.cause(fault), name=str(fault))
        # The change to the newer version is finished.
        for name in sorted({*WORKERS} - self.newer):
            self.exchange(name)()
        while not self.shopping.done() and site.loop.now < LIMIT:
            await asyncio.wait({self.shopping}, timeout=10.0)
        await self.check_log()
        self.is_over = True
        for name in HOSTS:
            site.kill(name)
        await site.sleep_until(EXPIRED)
        await site.start("reader", partial(read_ends, site, handles=self.handles))
        for error in site.loop.errors:
            site.promises.fail(CRASHED, Event(site.loop.now, "world", What.FAULT, text=error))
        site.promises.finish(site.loop.now, ["reader"])

    def exchange(self, name: str) -> Callable[[], None]:
        """Kill a worker; return what starts it in the other version."""
        self.site.kill(name)
        self.newer ^= {name}
        return lambda: self.start(name)

    async def check_log(self) -> None:
        """Wait until all that is recorded is in the log; check that every checkpoint that was published is of this log."""
        site = self.site
        last, until = site.recorded, site.loop.now + LOGGED_WITHIN
        while (log := self.log()) is None or log.sequence < last:
            if site.loop.now > until:
                at = f"the log ends at {log.sequence if log is not None else 0}, the stream at {last}"
                site.promises.fail(LOG_STANDS, Event(site.loop.now, "world", What.SIGNED, text=at))
                return
            await asyncio.sleep(1.0)
        for size, root in self.published():
            if size <= log.size and log.root(size) != root:
                site.promises.fail(TWO_LOGS, Event(site.loop.now, "world", What.SIGNED, text=str(size)))

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

    def log(self) -> Log | None:
        """Return the longest log in the folder of a notary."""
        logs = [read_log(self.folder / name) for name in NOTARIES]
        return max((log for log in logs if log is not None), key=lambda log: log.size, default=None)

    def published(self) -> Iterator[tuple[int, bytes]]:
        """Yield size and root of each checkpoint in the stream."""
        for note in self.site.notes:
            checkpoint = open_checkpoint(note, origin=ORIGIN, verifiers=[SIGNER.verifier]).checkpoint
            yield checkpoint.size, checkpoint.root

    def harm(self, fault: Fault) -> Callable[[], None]:
        """Cause a fault, and return what ends it."""
        site, name = self.site, fault.target
        link = site.links.get(name)
        match fault.kind:
            case FaultKind.KILL:
                site.kill(name)
                return lambda: self.start(name)
            case FaultKind.EXCHANGE:
                return self.exchange(name)
            case FaultKind.SILENCE:
                site.broker.silent_until = max(site.broker.silent_until, site.loop.now + fault.seconds)
            case FaultKind.REDELIVER:
                site.broker.redeliver()
            case FaultKind.FORGET:
                site.broker.forget_consumers()
            case FaultKind.FULL:
                return site.broker.fill(name)
            case FaultKind.LOSE:
                site.lose(name, int(fault.amount))
            case _ if link is not None:
                return self.harm_host(fault)
            case _:
                raise ValueError(f"{fault}: unknown host")
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
