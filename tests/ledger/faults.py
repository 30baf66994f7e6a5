"""What goes wrong: each fault breaks something for a moment, mends it as an operator would, and returns."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from support.cut import CuttableLink

from ledger.book import Book
from ledger.count import opened
from ledger.load import submit
from ledger.restore import lose_and_restore, until_handled
from ledger.servers import Layout, Server
from ledger.site import WORKERS, Site
from sealbus import Client

__all__ = ["FAULTS", "Fault", "faults_of"]

Fault = Callable[[Site, random.Random], Awaitable[None]]

AWAY = 1.0
"""Seconds for which a server may be away; long enough that clients notice."""
CUT = 8.0
"""Seconds for which a network may be silent: beyond two unanswered pings a connection counts as gone."""
IDLE = 4.0
"""Seconds for which no worker runs."""
FULL = 3.0
"""Seconds for which the disk stays full."""
WRONG = 3_600.0
"""Seconds by which a clock may be wrong; 5 are allowed."""
FORMER_SECONDS = 300.0
LOOK = 0.05
POISONED = 3
"""Most tasks that kill their worker, at a time."""
WRONG_FOR = 4.0
"""Seconds for which it is."""


async def worker(site: Site, chance: random.Random) -> None:
    """One of the workers dies; another takes its place at once."""
    number = chance.randrange(WORKERS)
    await site.kill_worker(number)
    await site.start_worker(number)


async def idle(site: Site, chance: random.Random) -> None:
    """No worker runs for a while: tasks wait, and so do their cancels."""
    await asyncio.gather(*(site.kill_worker(number) for number in range(WORKERS)))
    await asyncio.sleep(chance.uniform(AWAY, IDLE))
    for number in range(WORKERS):
        await site.start_worker(number)


async def nats(site: Site, chance: random.Random) -> None:
    """All nats-servers die, and come back with all that the kernel has."""
    await site.servers.kill()
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.servers.start()


async def one(site: Site, chance: random.Random) -> None:
    """Any of the servers dies."""
    await _away(chance.choice(site.servers.storing), chance)


async def leader(site: Site, chance: random.Random) -> None:
    """The server dies that leads TASKS."""
    await _away(await site.leader(chance), chance)


async def leaf(site: Site, chance: random.Random) -> None:
    """The leaf node dies that all are connected to."""
    assert site.servers.leaf is not None
    await _away(site.servers.leaf, chance)


async def region(site: Site, chance: random.Random) -> None:
    """The other region dies, in which the load and a worker are."""
    await _gone(site.servers.region, chance)


async def home(site: Site, chance: random.Random) -> None:
    """The region dies that has the streams, and comes back with all that the kernel has."""
    await _gone(site.servers.storing, chance)


async def link(site: Site, chance: random.Random) -> None:
    """The way of the leaf node, or of the other region, to the servers is silent."""
    await _silent(site.servers.link, chance)


async def network(site: Site, chance: random.Random) -> None:
    """The workers' way to the servers is silent, so that neither end knows what the other has of what was sent."""
    await _silent(site.network, chance)


async def both(site: Site, chance: random.Random) -> None:
    """All workers and all servers die in one moment."""
    await asyncio.gather(site.servers.kill(), *(site.kill_worker(number) for number in range(WORKERS)))
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.servers.start()
    for number in range(WORKERS):
        await site.start_worker(number)


async def power(site: Site, chance: random.Random) -> None:
    """The servers' machine loses power: what its disk was not told to sync is gone."""
    await site.servers.kill()
    await site.disk.lose_power()
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.servers.start()


async def disk(site: Site, chance: random.Random) -> None:
    """The disk is full for a while; an operator makes room and restarts the servers, which do not recover by themselves."""
    del chance
    filler = site.small / "filler"
    await asyncio.to_thread(_fill, filler)
    await asyncio.sleep(FULL)
    filler.unlink()
    await site.servers.kill()
    await site.servers.start()


async def clock(site: Site, chance: random.Random) -> None:
    """The clocks of some workers are set wrong, ahead or behind, while they work, and then right again."""
    wrong = chance.sample(range(WORKERS), chance.randint(1, WORKERS))
    for number in wrong:
        site.set_clock(number, chance.uniform(-WRONG, WRONG))
    await asyncio.sleep(chance.uniform(AWAY, WRONG_FOR))
    for number in wrong:
        site.set_clock(number, 0.0)


async def opa(site: Site, chance: random.Random) -> None:
    """The OPA beside the workers dies: nothing is decided until it is back."""
    assert site.opa is not None
    await asyncio.to_thread(site.opa.kill)
    await asyncio.sleep(chance.uniform(0, AWAY))
    await asyncio.to_thread(site.opa.start)


async def edge(site: Site, chance: random.Random) -> None:
    """The edge dies with what its users have sent it."""
    del chance
    await site.kill_edge()
    await site.start_edge()


async def callout(site: Site, chance: random.Random) -> None:
    """All that answer for connections die, and a worker with them, whose successor is not let in until others are there."""
    await site.kill_responders()
    await worker(site, chance)
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.start_responders()


async def identity(site: Site, chance: random.Random) -> None:
    """The Workload API goes, and a worker that is started meanwhile has to wait for it."""
    await site.identities.stop()
    await worker(site, chance)
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.identities.start()


async def restore(site: Site, chance: random.Random) -> None:
    """The servers lose their disk, and are restored from a backup (docs/backup.md), while tasks and cancels wait.

    The workers are killed, so that all that is sent for a while waits. Then the load pauses, edge and notary end, and the
    backup is taken: nothing is sent, done or logged after it that it does not have. Where a worker ran the release before, it
    runs this one afterwards, because the former does not know what a notary says of a restore.
    """
    await asyncio.gather(*(site.kill_worker(number) for number in range(WORKERS)))
    await asyncio.sleep(chance.uniform(AWAY, IDLE))
    await site.stop_load()
    if site.edge_url is not None:
        await site.kill_edge()
    await site.stop_notary()
    await lose_and_restore(site)
    site.former_worker = None
    for number in range(WORKERS):
        await site.start_worker(number)
    if site.edge_url is not None:
        await site.start_edge()
    await site.resume_load()


async def versions(site: Site, chance: random.Random) -> None:
    """A worker is replaced by one of the release before; or, where one of that runs, it by one of this release.

    So an update and its way back are in two of these, and the release before has done something by the end of the first.
    After a restore it waits until what was restored is handled: it would refuse that, because it does not know what a notary
    says of a restore.
    """
    number = site.former_worker
    if number is None:
        await until_handled(site)
        site.former_worker = chance.randrange(WORKERS)
        # The others first: they have to know that one of the release before will be there.
        for each in sorted(range(WORKERS), key=lambda worker: worker == site.former_worker):
            await site.stop_worker(each)
            await site.start_worker(each)
        await _former_works(site, since=time.time())
    else:
        site.former_worker = None
        await site.stop_worker(number)
        await site.start_worker(number)


async def poison(site: Site, chance: random.Random) -> None:
    """Some tasks come whose handler kills the worker, as the kernel does for want of memory; workers are started again."""
    book = Book(site.book)
    first = min(0, int(book.value("SELECT min(number) FROM acknowledged"))) - 1
    try:
        async with AsyncExitStack() as stack:
            client = await opened(stack, lambda: Client("shop", settings=site.settings))
            for number in range(first, first - chance.randint(1, POISONED), -1):
                await submit(client, None, book, number, asyncio.Event())
    finally:
        book.close()


async def _former_works(site: Site, *, since: float) -> None:
    """Wait until a worker of the release before has done something. Raises `RuntimeError` if it does nothing."""
    book = Book(site.book)
    try:
        async with asyncio.timeout(FORMER_SECONDS):
            while not book.value("SELECT count(*) FROM effects WHERE former AND at > ?", since):  # noqa: ASYNC110 -- others write
                await asyncio.sleep(LOOK)
    except TimeoutError as error:
        raise RuntimeError(f"the release before does nothing for {FORMER_SECONDS:g} s") from error
    finally:
        book.close()


async def _gone(servers: Sequence[Server], chance: random.Random) -> None:
    """All of these servers die in one moment."""
    await asyncio.gather(*(one.kill() for one in servers))
    await asyncio.sleep(chance.uniform(0, AWAY))
    await asyncio.gather(*(one.start() for one in servers))


async def _away(server: Server, chance: random.Random) -> None:
    await server.kill()
    await asyncio.sleep(chance.uniform(0, AWAY))
    await server.start()


async def _silent(links: Sequence[CuttableLink], chance: random.Random) -> None:
    for each in links:
        each.cut()
    await asyncio.sleep(chance.uniform(AWAY, CUT))
    for each in links:
        await each.mend()


def _fill(path: Path) -> None:
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        except OSError:
            # Somebody wrote meanwhile: what is left is less than a message.
            return


FAULTS: dict[str, Fault] = {
    function.__name__: function
    for function in (
        worker,
        idle,
        nats,
        both,
        power,
        disk,
        network,
        clock,
        opa,
        identity,
        edge,
        callout,
        one,
        leader,
        link,
        leaf,
        region,
        home,
        restore,
        versions,
        poison,
    )
}

_OF_A_CLUSTER = ("one", "leader")
_OF_A_LEAF = ("link", "leaf")
_OF_REGIONS = ("region", "home")


def faults_of(layout: Layout) -> list[str]:
    """Return the names of the faults that a site of `layout` can have."""
    absent = {
        # There is nobody to ask behind a leaf node, which admits its clients itself.
        Layout.REGIONS: ("callout", "leaf"),
        Layout.LEAF: ("callout", *_OF_REGIONS),
        Layout.CLUSTER: (*_OF_A_LEAF, *_OF_REGIONS),
        Layout.SINGLE: (*_OF_A_CLUSTER, *_OF_A_LEAF, *_OF_REGIONS),
    }
    return [name for name in FAULTS if name not in absent[layout]]
