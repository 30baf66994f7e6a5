"""`make bench`: every figure with its guard and its goal; exit code 1 if a guard does not hold.

`python -m bench [--results FILE] [PART ...]` measures these parts, all unless said; FILE is written at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys
import time
from pathlib import Path

from bench.report import Figure, document, machine, show

PARTS = (
    "gate",
    "durability",
    "transport",
    "sealing",
    "backtest",
    "processes",
    "audit",
    "growth",
    "policy_push",
    "cancel",
    "approvals",
    "edge",
    "mcp",
    "a2a",
    "streams",
    "callout",
    "opa",
    "tracing",
    "console",
)


async def _measured(part: str) -> list[Figure]:
    """Print the figures of a part as they come."""
    show(part)
    found = []
    async for figure in importlib.import_module(f"bench.{part}").figures():
        show(part, [figure])
        found.append(figure)
    return found


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--results", type=Path, help="write the tables to this file, too")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    # Whatever runs TLS over asyncio without being ours is told of each connection's end, and warned about it.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    print(machine(), flush=True)
    found: dict[str, list[Figure]] = {}
    for part in asked.parts or PARTS:
        began = time.monotonic()
        found[part] = asyncio.run(_measured(part))
        print(f"{part}: {time.monotonic() - began:.0f} s\n", flush=True)
    if asked.results:
        asked.results.write_text(document(found), encoding="utf-8")
    broken = [figure for figures in found.values() for figure in figures if not figure.holds]
    show("guards that do not hold:", broken) if broken else print("all guards hold")
    return 1 if broken else 0


sys.exit(main())
