"""`make bench`: every figure with its guard and its goal; exit code 1 if a guard does not hold.

`python -m bench [--results FILE] [PART ...]` measures these parts, all unless said; FILE is written at the end.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench.parts import PARTS, measure
from bench.report import Figure, document, machine, show


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--results", type=Path, help="write the tables to this file, too")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    print(machine(), flush=True)
    found: dict[str, list[Figure]] = {}
    for part in asked.parts or PARTS:
        began = time.monotonic()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found[part] = process.submit(measure, part).result()
        print(f"{part}: {time.monotonic() - began:.0f} s\n", flush=True)
    if asked.results:
        asked.results.write_text(document(found), encoding="utf-8")
    broken = [figure for figures in found.values() for figure in figures if not figure.holds]
    show("guards that do not hold:", broken) if broken else print("all guards hold")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
