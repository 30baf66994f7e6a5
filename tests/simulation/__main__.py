"""Simulates: `python -m simulation` runs seeds for some seconds, or one seed, and explains what broke a promise."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from simulation.plan import Plan, plan_of
from simulation.planted import PLANTED
from simulation.run import Outcome
from simulation.seeds import HASH_SEED, run_each, run_one, warm_up
from simulation.shrink import shrink
from simulation.timeline import write_timeline

FOLDER = Path(".cache/simulation")


def main() -> int:
    """Run what the arguments say; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the one seed to run, and to draw")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--seeds", type=int, help="how many seeds to run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run seeds if no number is given")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cells", action="store_true", help="every site has two cells, also those of other seeds")
    parser.add_argument("--losing", action="store_true", help="faults may lose what the broker acknowledged")
    parser.add_argument(
        "--planted",
        choices=sorted(PLANTED),
        nargs="*",
        default=[],
        help="safeguards to remove, each in its turn",
    )
    parser.add_argument("--tries", type=int, default=400, help="how many smaller plans to try once a promise is broken")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # The order of sets is decided when Python starts.
        os.execve(  # noqa: S606  this very command
            sys.executable,
            [sys.executable, "-m", "simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": HASH_SEED},
        )
    warm_up()
    if asked.seed is not None:
        if len(asked.planted) > 1:
            parser.error("one safeguard is removed with --seed")
        planted = asked.planted[0] if asked.planted else ""
        outcome = run_one(plan_of(asked.seed, losing=asked.losing, cells=asked.cells), prepare=_removing(planted))
        _explain(outcome, asked, planted)
        return 1 if outcome.broken else 0
    return max([_search(asked, planted) for planted in asked.planted or [""]])


def _search(asked: argparse.Namespace, planted: str) -> int:
    """Run many seeds, with the safeguard `planted` removed if it is named; return 1 if a promise was broken."""
    began, steps, count, found = time.monotonic(), 0, 0, None
    for outcome in run_each(_plans(asked, began), jobs=asked.jobs, prepare=_removing(planted)):
        count, steps = count + 1, steps + outcome.steps
        if outcome.broken and (found is None or outcome.plan.seed < found.plan.seed):
            found = outcome
            if planted:
                break
            _say(f"seed {outcome.plan.seed}: {outcome.broken[0]}")
    seconds = time.monotonic() - began
    _say(f"{count} seeds, {steps} steps, {seconds:.1f} s{f' without {planted}' if planted else ''}")
    if found is None:
        return 0
    small = shrink(found, lambda plan: run_one(plan, prepare=_removing(planted)), tries=asked.tries)
    _explain(small, asked, planted)
    return 1


def _removing(planted: str) -> Callable[[], None]:
    return PLANTED[planted] if planted else lambda: None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _plans(asked: argparse.Namespace, began: float) -> Iterator[Plan]:
    for seed in itertools.count(asked.first):
        over = (
            seed >= asked.first + asked.seeds if asked.seeds is not None else time.monotonic() - began > asked.seconds
        )
        if over:
            return
        yield plan_of(seed, losing=asked.losing, cells=asked.cells)


def _explain(outcome: Outcome, asked: argparse.Namespace, planted: str) -> None:
    plan = outcome.plan
    options = f"{' LOSING=1' if asked.losing else ''}{f' PLANTED={planted}' if planted else ''}"
    command = f"make simulate SEED={plan.seed}{options}"
    if asked.cells:
        # The target has no variable for it.
        flags = f"{' --losing' if asked.losing else ''}{f' --planted {planted}' if planted else ''}"
        command = f"PYTHONPATH=tests python -m simulation --cells --seed {plan.seed}{flags}"
    path = FOLDER / f"seed-{plan.seed}{f'-{planted}' if planted else ''}.html"
    write_timeline(outcome, path, command=command, planted=planted)
    for broken in outcome.broken[:5]:
        _say(f"  {broken}")
    for fault in plan.faults:
        _say(f"  {fault.at:.3f} s: {fault}")
    _say(f"  {len(plan.tasks)} tasks, {len(plan.faults)} faults, {outcome.steps} steps; drawn in {path}; {command}")


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
