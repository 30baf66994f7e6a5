"""The ledger, shortened for the tests; `make chaos` is the long run."""

from __future__ import annotations

from support.workload_api import short_folder

from ledger.count import SETTLE_SECONDS, Count
from ledger.run import run
from ledger.servers import Layout

__all__ = ["counted"]

SEED = 11


async def counted(
    kinds: list[str],
    *,
    kills: int,
    layout: Layout = Layout.SINGLE,
    always: bool = True,
    deaf: bool = False,
    untold: bool = False,
    engine: str = "embedded",
    settle: float = SETTLE_SECONDS,
) -> Count:
    """Return what was counted after `kills` faults of `kinds`, in an order by one seed."""
    with short_folder() as folder:
        said: list[str] = []
        count = await run(
            folder,
            kinds=kinds,
            kills=kills,
            rate=40.0,
            seed=SEED,
            say=said.append,
            layout=layout,
            always=always,
            deaf=deaf,
            untold=untold,
            engine=engine,
            settle=settle,
        )
    assert count.acknowledged > 0
    assert said[-1] == str(count)
    return count
