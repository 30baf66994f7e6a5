"""Fuzz targets with atheris, each in a process of its own, for a share of the time.

::

    PYTHONPATH=tests python -m fuzz.run --seconds 600 messages tokens.signed_proof

What finds new edges is kept in `.cache/fuzz/corpus`. `--keep` copies the least part of it that finds all of them to the
corpus in the repository. The input of a finding is written to `.cache/fuzz/findings`, and the command that repeats it is
printed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from fuzz.targets import CORPUS, names

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".cache" / "fuzz"
_STATS: Final = re.compile(r"^#(\d+)\s+(INITED|DONE|NEW|REDUCE|pulse|RELOAD)\s+(?:cov: (\d+) )?", re.MULTILINE)
_SECONDS_OF_ONE: Final = 20
"""After so long an input hangs, however busy the machine is."""
_MEGABYTES: Final = 3_072
_LONGEST: Final = 65_536
_KEPT_BYTES: Final = 1_536
"""Most bytes that are kept in the repository of what one run of a target found."""


class Outcome(NamedTuple):
    """What a run came to: executions, edges before and after, and the input of a finding."""

    executions: int
    before: int
    after: int
    finding: Path | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, and return 1 if there is a finding."""
    parser = argparse.ArgumentParser(prog="fuzz.run", description="Fuzz the parsers of bytes from outside.")
    parser.add_argument("--seconds", type=float, default=600, help="of all targets together (600)")
    parser.add_argument(
        "--keep", action="store_true", help="move what finds more edges to the corpus in the repository"
    )
    parser.add_argument("targets", nargs="*", help="targets or groups of them; by default all")
    options = parser.parse_args(arguments)
    wanted = options.targets
    chosen = [name for name in names() if not wanted or name in wanted or name.partition(".")[0] in wanted]
    if not chosen:
        parser.error(f"no such target; there are {', '.join(names())}")
    if find_spec("atheris") is None:
        parser.exit(1, "there is no atheris: `make setup` installs it on Linux, x86-64\n")
    failed = False
    for name in chosen:
        outcome = fuzz(name, options.seconds / len(chosen))
        print(f"{name:24} {outcome.executions:9} executions, {outcome.before} -> {outcome.after} edges", flush=True)  # noqa: T201  a command tells its user
        if outcome.finding is not None:
            failed = True
            print(f"  a finding: {outcome.finding}\n  repeat it: {repeat(name, outcome.finding)}", flush=True)  # noqa: T201  a command tells its user
        elif options.keep:
            keep(name)
    return int(failed)


def fuzz(name: str, seconds: float, *, cache: Path = CACHE) -> Outcome:
    """Fuzz one target for `seconds`, and print what it says of a finding. New inputs and findings go to `cache`."""
    work, findings, kept = cache / "corpus" / name, cache / "findings", CORPUS / name
    work.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    known = set(findings.glob(f"{name}-*"))
    done = _child(
        name,
        *map(str, filter(Path.is_dir, (work, kept))),
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_LONGEST}",
        f"-artifact_prefix={findings}/{name}-",
    )
    found = sorted(set(findings.glob(f"{name}-*")) - known)
    stats = _STATS.findall(done.stderr)
    edges = [int(cov) for _, _, cov in stats if cov]
    if done.returncode:
        told = [
            line
            for line in (done.stdout + done.stderr).splitlines()
            if not line.startswith(("INFO:", "#", "WARNING: Failed"))
        ]
        print("\n".join(told)[-6_000:], file=sys.stderr)  # noqa: T201  a command tells its user
    return Outcome(
        executions=max((int(count) for count, _, _ in stats), default=0),
        before=next((int(cov) for _, event, cov in stats if event == "INITED" and cov), 0),
        after=max(edges, default=0),
        finding=found[0] if found else findings / f"{name}-unknown" if done.returncode else None,
    )


def keep(name: str) -> None:
    """Add to the corpus in the repository what finds more edges: the smallest such inputs, of few bytes together."""
    with TemporaryDirectory() as folder:
        merged, small = Path(folder) / "merged", Path(folder) / "small"
        shutil.copytree(CORPUS / name, merged)
        small.mkdir()
        for path in (CACHE / "corpus" / name).iterdir():
            if path.stat().st_size <= _KEPT_BYTES:
                shutil.copy(path, small)
        known = {path.name for path in merged.iterdir()}
        _child(name, "-merge=1", str(merged), str(small))
        left = _KEPT_BYTES
        for path in sorted(merged.iterdir(), key=lambda path: (path.stat().st_size, path.name)):
            if path.name not in known and (left := left - path.stat().st_size) >= 0:
                shutil.copy(path, CORPUS / name / path.name[:16])


def repeat(name: str, finding: Path) -> str:
    """Return the command that gives a target one input again."""
    return f"PYTHONPATH=tests {os.path.relpath(sys.executable)} -m fuzz.once {name} {os.path.relpath(finding)}"


def _child(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [
            sys.executable, "-W", "ignore", "-m", "fuzz.process", name, *arguments,
            f"-timeout={_SECONDS_OF_ONE}", f"-rss_limit_mb={_MEGABYTES}",
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
