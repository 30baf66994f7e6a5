"""`python -m ledger` (`make chaos`): a load and faults for a while, then the count; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import math
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from ledger.faults import FAULTS, faults_of
from ledger.run import run
from ledger.servers import Layout
from ledger.site import DISK

__all__: list[str] = []


def main() -> int:
    """Read the command line, run, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m ledger", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="faults in all")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no fault begins any more")
    parser.add_argument("--rate", type=float, default=100.0, help="tasks a second")
    parser.add_argument(
        "--site", type=Layout, choices=Layout, default=Layout.SINGLE, help="which nats-servers there are"
    )
    parser.add_argument(
        "--faults", help=f"of which kinds, by commas, of {', '.join(FAULTS)}; by default all of the site's"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="of the order and the moments")
    parser.add_argument("--no-sync", action="store_true", help="nats-server's default: the power cut has to lose")
    parser.add_argument(
        "--deaf", action="store_true", help="workers heed no cancel: the count has to find what they do"
    )
    parser.add_argument(
        "--untold", action="store_true", help="no notary is told of a restore: the count has to find what waited"
    )
    parser.add_argument(
        "--disk", type=float, default=DISK, help="GiB of memory for each server's disk; 2 do for 100,000 tasks"
    )
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for logs, which are kept; others only if the run fails"
    )
    given = parser.parse_args()
    kinds = given.faults.split(",") if given.faults else faults_of(given.site)
    if wrong := [kind for kind in kinds if kind not in faults_of(given.site)]:
        parser.error(f"a site {given.site} has no fault {', '.join(wrong)}: it has {', '.join(faults_of(given.site))}")
    folder = given.keep or Path(tempfile.mkdtemp(prefix="ledger-"))
    try:
        result = asyncio.run(
            run(
                folder,
                kinds=kinds,
                kills=given.kills,
                rate=given.rate,
                seed=given.seed,
                layout=given.site,
                always=not given.no_sync,
                deaf=given.deaf,
                untold=given.untold,
                seconds=given.minutes * 60,
                disk_size=given.disk,
                say=lambda line: print(line, flush=True),  # noqa: T201
            )
        )
    except BaseException:
        print(f"the logs are in {folder}", file=sys.stderr)  # noqa: T201
        raise
    if result.problems:
        print(f"the logs are in {folder}", file=sys.stderr)  # noqa: T201
    elif given.keep is None:
        shutil.rmtree(folder)
    for line in result.problems:
        print(f"BROKEN: {line}", file=sys.stderr)  # noqa: T201
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
