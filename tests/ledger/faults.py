"""What goes wrong: each fault breaks something for a moment, mends it as an operator would, and returns."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from ledger.site import WORKERS, Site

__all__ = ["FAULTS", "Fault"]

Fault = Callable[[Site, random.Random], Awaitable[None]]

AWAY = 1.0
"""Seconds for which a server may be away; long enough that clients notice."""
FULL = 3.0
"""Seconds for which the disk stays full."""


async def worker(site: Site, chance: random.Random) -> None:
    """One of the workers dies; another takes its place at once."""
    number = chance.randrange(WORKERS)
    await site.kill_worker(number)
    await site.start_worker(number)


async def nats(site: Site, chance: random.Random) -> None:
    """nats-server dies, and comes back with all that the kernel has."""
    await site.kill_nats()
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.start_nats()


async def both(site: Site, chance: random.Random) -> None:
    """All workers and the server die in one moment."""
    await asyncio.gather(site.kill_nats(), *(site.kill_worker(number) for number in range(WORKERS)))
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.start_nats()
    for number in range(WORKERS):
        await site.start_worker(number)


async def power(site: Site, chance: random.Random) -> None:
    """The server's machine loses power: what its disk was not told to sync is gone."""
    await site.kill_nats()
    await site.disk.lose_power()
    await asyncio.sleep(chance.uniform(0, AWAY))
    await site.start_nats()


async def disk(site: Site, chance: random.Random) -> None:
    """The disk is full for a while; an operator makes room and restarts the server, which does not recover by itself."""
    del chance
    filler = site.small / "filler"
    await asyncio.to_thread(_fill, filler)
    await asyncio.sleep(FULL)
    filler.unlink()
    await site.kill_nats()
    await site.start_nats()


def _fill(path: Path) -> None:
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        except OSError:
            # Somebody wrote meanwhile: what is left is less than a message.
            return


FAULTS: dict[str, Fault] = {"worker": worker, "nats": nats, "both": both, "power": power, "disk": disk}
