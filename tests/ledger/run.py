"""One run: the load goes on while faults come at random moments, each after the one before was recovered from."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ledger.book import Book
from ledger.count import SETTLE_SECONDS, Count, settled
from ledger.faults import FAULTS
from ledger.servers import Layout
from ledger.site import DISK, open_site

__all__ = ["run"]

CALM = 2.0
"""Most seconds between a recovery and the next fault."""
RECOVER_SECONDS = 300.0
LOOK = 0.02


async def run(
    folder: Path,
    *,
    kinds: Sequence[str],
    kills: int,
    rate: float,
    seed: int,
    say: Callable[[str], None],
    layout: Layout = Layout.SINGLE,
    always: bool = True,
    deaf: bool = False,
    untold: bool = False,
    engine: str = "embedded",
    seconds: float = math.inf,
    disk_size: float = DISK,
    settle: float = SETTLE_SECONDS,
) -> Count:
    """Run `kills` faults of `kinds` under `rate` tasks a second; every kind comes equally often, in an order by `seed`.

    No fault begins later than `seconds` after the first could. `disk_size` is in GiB for each server;
    what has no end `settle` seconds after the last end was read has none.

    Says the seed first, each kind's recovery times and the count last. Raises `RuntimeError` where work does not go on
    after a fault, or a process of the load has failed by itself.
    """
    chance = random.Random(seed)  # noqa: S311 -- moments, no secrets
    order = [kinds[at % len(kinds)] for at in range(kills)]
    chance.shuffle(order)
    recovered: dict[str, list[float]] = {kind: [] for kind in kinds}
    say(
        f"seed {seed}: {kills} faults ({', '.join(kinds)}) at {rate:g} tasks/s, {layout}, "
        f"sync {'always' if always else 'lazy'}"
    )
    async with open_site(
        folder,
        layout=layout,
        sidecar="opa" in kinds,
        edge="edge" in kinds,
        callout="callout" in kinds,
        notary="restore" in kinds,
        former="versions" in kinds,
        always=always,
        deaf=deaf,
        untold=untold,
        engine=engine,
        disk_size=disk_size,
    ) as site:
        book = Book(site.book)
        try:
            await site.start_load(rate)
            await _effect_after(book, 0.0, "the start")
            last = time.monotonic() + seconds
            for kind in order:
                if time.monotonic() > last:
                    break
                await asyncio.sleep(chance.uniform(0.2, CALM))
                await FAULTS[kind](site, chance)
                mended = time.time()
                went_on = await _effect_after(book, mended, f"the fault {kind}", at_the_edge=kind == "edge")
                recovered[kind].append(went_on)
            await asyncio.sleep(CALM)
            await site.stop_load()
            count = await settled(site, book, seconds=settle)
        finally:
            book.close()
    for kind, times in recovered.items():
        if times:
            say(
                f"{kind:>8}: {len(times)}, work went on after {statistics.median(times):.2f} s, at most {max(times):.2f} s"
            )
    say(f"{sum(map(len, recovered.values()))} faults")
    say(str(count))
    return count


async def _effect_after(book: Book, moment: float, what: str, *, at_the_edge: bool = False) -> float:
    """Return how many seconds after `moment`, when `what` was over, a task that was acknowledged after it had its effect.

    With `at_the_edge` only those count that were submitted there.
    """
    query = """SELECT min(effects.at) FROM effects JOIN acknowledged USING (number)
               WHERE effects.at > ? AND acknowledged.at > ? AND number > 0 AND (number % 10 = 3 OR NOT ?)"""
    try:
        async with asyncio.timeout(RECOVER_SECONDS):
            while not (found := book.value(query, moment, moment, at_the_edge)):  # noqa: ASYNC110 -- other processes write it
                await asyncio.sleep(LOOK)
    except TimeoutError as error:
        raise RuntimeError(f"no work for {RECOVER_SECONDS:g} s after {what}") from error
    return max(0.0, found - moment)
