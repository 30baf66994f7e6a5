"""Weaken each comparison of the verifying code in turn: one of its tests must fail (`make weaken`; in part: `make removal`).

Comparisons are found by shape (`weakenings.py`), in the acceptance steps, the gate, our verifier of the log, the one
that shares no code with it, and modules that decide of the edge, the console and the callout
(`weakening_targets.py`). Their tests are collected once. For each weakening a forked process with only that one runs
the tests of its module until one fails. A weakening that no test notices is a survivor: it is listed with its reason
(`weakening_survivors.py`), or is a failure. So is a reason without a survivor.

Usage: check_weakening.py [--since REF] [--share N] [--verbose] [MODULE ...]

With --since only the modules that changed since the commit REF, or whose tests did, and every Nth of the rest, chosen by the
commit that is checked out. Shapes (`weakening_shapes.py`) are made in the modules of `SHAPED` alone, and of these every
4Nth.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))

import pytest  # noqa: E402 -- the paths come first
from _pytest.runner import runtestprotocol  # noqa: E402 -- the one way to run an item that was collected
from check_removal import code_of, resolve  # noqa: E402 -- beside this file
from weakening_survivors import EXPLAINED  # noqa: E402 -- beside this file
from weakening_targets import SHAPED, TARGETS  # noqa: E402 -- beside this file
from weakenings import HELPER, Probe, Weakening, Weaker, find_weakenings, functions_of, probed  # noqa: E402 -- beside this file


def targets() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return each module to weaken, with its file and the files of its tests."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for path, tests in TARGETS.items():
        name = path.removeprefix("tests/").replace("/", ".")
        module = name if path.startswith("tests/") else f"sealbus.{name}"
        found[module] = f"{path}.py", tuple(f"tests/{test}.py" for test in tests.split())
    return found


SURVIVORS: dict[str, str] = {key: reason for reason, keys in EXPLAINED.items() for key in keys}

_SECONDS = 60
"""Seconds after which a test that a weakening makes run for ever counts as failed."""
_NOTICED, _SURVIVED = 0, 1
_SHAPES = 4
"""Of the shapes, of which there are more, fewer are chosen by so many times."""
_PLACES = os.cpu_count() or 1


@dataclass
class Plan:
    """The weakenings, the tests to run by module, and the results."""

    weakenings: list[Weakening]
    tests: dict[str, tuple[str, ...]]
    sources: dict[str, str]
    survivors: list[Weakening] = field(default_factory=list)
    never: int = 0
    broken: str = ""


class Weakened:
    """A plugin that runs, instead of all tests once, those that may notice each weakening."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sound: dict[str, bool] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run for each weakening the tests of its module until one of them fails."""
        files: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            files.setdefault(item.path.relative_to(ROOT).as_posix(), []).append(item)
        by_module: dict[str, list[Weakening]] = {}
        for one in self._plan.weakenings:
            by_module.setdefault(one.module, []).append(one)
        waiting: list[tuple[Weakening, list[pytest.Item]]] = []
        for module, weakenings in by_module.items():
            items = [item for test in self._plan.tests[module] for item in files.get(test, ())]
            observed = _observed(module, self._plan.sources[module], items)
            if observed is None:
                self._plan.broken = f"the tests of {module}, probed"
                return True
            asked, differing = observed
            for one in weakenings:
                fit = differing.get((one.function, one.number), [])
                if fit:
                    waiting.append((one, [items[number] for number in fit]))
                elif (one.function, one.number) in asked:
                    self._survived(one)
                else:
                    self._plan.never += 1
        running: dict[int, tuple[Weakening, list[pytest.Item], int]] = {}
        waiting.reverse()
        while waiting or running:
            while waiting and len(running) < _PLACES:
                one, fit = waiting.pop()
                process, told = _start(one, fit)
                running[process] = one, fit, told
            process, status = _ended()
            one, fit, told = running.pop(process)
            data = os.read(told, 8)
            os.close(told)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _SURVIVED:
                self._survived(one)
            elif len(data) == 8:
                self._check(fit[int.from_bytes(data, "big")])
            if self._plan.broken:
                return True
        return True

    def _survived(self, one: Weakening) -> None:
        self._plan.survivors.append(one)
        if str(one) not in SURVIVORS:
            print(f"no test fails with it weaker: {one} (line {one.line})", flush=True)  # noqa: T201  a command prints

    def _check(self, killer: pytest.Item) -> None:
        """Check once that a test that noticed a weakening does not fail without it."""
        if killer.nodeid not in self._sound:
            process = os.fork()
            if process == 0:
                _apart()
                os._exit(int(_fails(killer)))
            self._sound[killer.nodeid] = _ended(process)[1] == 0
        if not self._sound[killer.nodeid]:
            self._plan.broken = killer.nodeid


def _observed(
    module: str, source: str, items: Sequence[pytest.Item]
) -> tuple[set[tuple[str, int]], dict[tuple[str, int], list[int]]] | None:
    """Run `items` with every comparison probed; return the weakenings that could matter, and the items in which each does.

    The items come quickest first: where one fails, those that would wait in vain for what never comes are not run. Of what
    is not compared (a part of a hash, an await) those that call its function.
    """
    asked: set[tuple[str, int]] = set()
    found: dict[tuple[str, int], list[int]] = {}
    loaded, code = importlib.import_module(module), probed(module, source)
    running: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for share in range(_PLACES):
            file = f"{folder}/{share}"
            process = os.fork()
            if process == 0:
                _apart()
                probe = Probe()
                setattr(builtins, HELPER, probe)
                for path in functions_of(source):
                    target = resolve(loaded, path)
                    target.function.__code__ = code_of(code, path)
                    target.forget()
                Path(file).write_bytes(
                    pickle.dumps(
                        [(number, *_probed(items[number], probe)) for number in range(share, len(items), _PLACES)]
                    )
                )
                os._exit(0)
            running[process] = file
        told: list[tuple[int, float, set[tuple[str, int]], set[tuple[str, int]], set[str]]] = []
        while running:
            process, status = _ended()
            file = running.pop(process)
            if status:
                return None
            told += pickle.loads(Path(file).read_bytes())  # noqa: S301  our own child wrote it
    weakenings = {(one.function, one.number): one for one in find_weakenings(module, source)}
    for number, _, fitting, differing, entered in sorted(told, key=lambda one: one[1]):
        asked |= fitting
        for place, one in weakenings.items():
            always = "[without" in one.what or "-> pass" in one.what
            if place in differing or (always and one.function in entered):
                found.setdefault(place, []).append(number)
    asked |= {place for place, one in weakenings.items() if "[without" in one.what or "-> pass" in one.what}
    return asked, found


def _probed(item: pytest.Item, probe: Probe) -> tuple[float, set[tuple[str, int]], set[tuple[str, int]], set[str]]:
    """Run `item`; return how long it took, which weakenings fit it, which differ in it, and the functions that ran."""
    probe.asked, probe.found, probe.entered = set(), set(), set()
    began = time.monotonic()
    _fails(item)
    return time.monotonic() - began, probe.asked, probe.found, probe.entered


def _apart() -> None:
    """Lead a group of processes of this child's own, and discard the output of tests."""
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def _ended(child: int = -1) -> tuple[int, int]:
    """Wait for a child, any unless one is named, end what its tests have left, and return the child and its status."""
    process, status = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return process, status


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _start(one: Weakening, items: Sequence[pytest.Item]) -> tuple[int, int]:
    """Fork a process with one weakening; it exits with the result, and sends the number of the test that failed."""
    target = resolve(importlib.import_module(one.module), one.function)
    code = code_of(one.make(), one.function)
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        setattr(builtins, HELPER, Weaker())
        target.function.__code__ = code
        target.forget()
        _apart()
        for number, item in enumerate(items):
            signal.alarm(_SECONDS)
            if _fails(item):
                os.write(write, number.to_bytes(8, "big"))
                os._exit(_NOTICED)
        os._exit(_SURVIVED)
    os.close(write)
    return process, read


def changed_since(ref: str) -> set[str] | None:
    """Return the files that differ from where this branch left `ref`; None if git does not know."""
    found = subprocess.run(  # noqa: S603  git, and the caller's reference
        ["git", "diff", "--name-only", "--merge-base", ref],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return set(found.stdout.split()) if found.returncode == 0 else None


def commit() -> str:
    """Return the commit that is checked out, which chooses the share."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found.stdout.strip()


def planned(named: Sequence[str], since: str | None, share: int) -> tuple[Plan, set[str]]:
    """Return what is to be weakened, and the keys of all that could be."""
    plan, every = Plan([], {}, {}), set[str]()
    changed = changed_since(since) if since is not None else None
    seed = commit()
    for module, (path, tests) in targets().items():
        found = find_weakenings(module, (ROOT / path).read_text())
        if path.removesuffix(".py") not in SHAPED:
            found = [one for one in found if not one.shaped]
        every |= {str(one) for one in found}
        if named and module not in named and module.rpartition(".")[2] not in named:
            continue
        whole = since is None or (changed is not None and not changed.isdisjoint({path, tests[0]}))
        chosen = [one for one in found if whole or _chosen(str(one), seed, share * (_SHAPES if one.shaped else 1))]
        if chosen:
            plan.tests[module], plan.sources[module] = tests, (ROOT / path).read_text()
            plan.weakenings += chosen
    return plan, every


def _chosen(key: str, seed: str, share: int) -> bool:
    return int.from_bytes(sha256(f"{seed} {key}".encode()).digest()[:8], "big") % share == 0


def main(arguments: Sequence[str]) -> int:
    """Weaken; return the exit code."""
    parser = argparse.ArgumentParser(description="Weaken each comparison in turn.")
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--since", default=None)
    parser.add_argument("--share", type=int, default=10)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--listed", action="store_true", help="check only that each listed survivor is there")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    plan, every = planned(given.modules, given.since, given.share)
    listed = SURVIVORS.keys()
    unknown = sorted(listed - every)
    for key in unknown:
        print(f"listed as a survivor, and there is no such check: {key}")  # noqa: T201  a command prints
    if given.listed:
        return 1 if unknown else 0
    if given.verbose:
        for one in plan.weakenings:
            print(one)  # noqa: T201  a command prints
    files = sorted({test for tests in plan.tests.values() for test in tests})
    quiet = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", "-p", "no:terminal"]
    status = pytest.main([*quiet, *(str(ROOT / file) for file in files)], plugins=[Weakened(plan)])
    if plan.broken or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"fails with nothing weakened: {plan.broken or status}")  # noqa: T201  a command prints
        return 1
    survived = {str(one) for one in plan.survivors}
    stale = sorted((listed & {str(one) for one in plan.weakenings}) - survived)
    for key in stale:
        print(f"listed as a survivor, and is none: {key}")  # noqa: T201  a command prints
    explained = len(survived & SURVIVORS.keys())
    print(  # noqa: T201  a command prints
        f"{len(plan.weakenings)} weakenings, {plan.never} of them never of what is compared; {len(survived)} unnoticed,"
        f" {explained} of them with a reason;"
        f" {time.monotonic() - began:.0f} s"
    )
    return 1 if unknown or stale or explained != len(survived) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
