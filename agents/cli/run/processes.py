"""The parent of `sealbus worker run --processes N` and `--reload`, and of the agents that `sealbus dev` runs.

It starts workers as processes, and imports no agent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from sealbus.agents.cli.options import stop_signalled
from sealbus.agents.cli.output import log_to_stderr, note
from sealbus.agents.runtime.health import numbered_address
from sealbus.agents.runtime.process.source_files import SourceFiles
from sealbus.agents.runtime.process.supervisor import Supervisor
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.envelopes.errors import ConfigurationError

GRACE = 10.0
"""Seconds beyond `worker.drain` in which a process must end: a handler that blocks its thread never ends."""


def run_processes(
    targets: Sequence[str],
    *,
    processes: int,
    reloading: bool,
    concurrency: int | None,
    health: str | None,
    config: str | None,
    as_json: bool,
    log_json: bool,
) -> int:
    """Run `processes` workers of `targets` until SIGINT or SIGTERM; return the exit code (`Supervisor.run_processes`)."""
    log_to_stderr(as_json=log_json)
    settings = load_settings(config)
    if settings.audit.spool is not None and processes > 1:
        raise ConfigurationError(
            "audit.spool is a folder for one process: start one worker for each spool, without --processes"
        )
    address = health or settings.health.address
    if address is not None:
        numbered_address(address, processes - 1)

    def command(number: int, line: int, memory: int) -> list[str]:
        options = {
            "--concurrency": str(concurrency) if concurrency is not None else None,
            "--health": numbered_address(address, number - 1) if address is not None else None,
            "--config": config,
        }
        words = [word for option, value in options.items() if value is not None for word in (option, value)]
        if as_json:
            words.append("--json")
        if log_json is not as_json:
            words += ["--log-format", "json" if log_json else "text"]
        return [*_worker(sys.executable), "--supervised", str(number), str(line), str(memory), *words, "--", *targets]

    supervisor = Supervisor(command, processes=processes, grace=settings.worker.drain + GRACE, say=note)
    return asyncio.run(_supervise(supervisor, SourceFiles(folders_of(targets)) if reloading else None))


async def run_project(
    targets: Sequence[str], *, python: str, config: Path, stop: asyncio.Event, log_json: bool = False
) -> None:
    """Run each of `targets` in a process of `python` until `stop`; start all again after a change of their files."""

    def command(number: int, line: int, memory: int) -> list[str]:
        return [
            *_worker(python),
            "--supervised",
            str(number),
            str(line),
            str(memory),
            "--config",
            str(config),
            *(("--log-format", "json") if log_json else ()),
            "--",
            targets[number - 1],
        ]

    supervisor = Supervisor(command, processes=len(targets), grace=load_settings(config).worker.drain + GRACE, say=note)
    await supervisor.run_reloading(stop, SourceFiles(folders_of(targets)).changed)


def _worker(python: str) -> list[str]:
    # With -P, a folder or file `sealbus` in the current folder does not hide the package.
    return [python, "-P", "-m", "sealbus", "worker", "run"]


async def _supervise(supervisor: Supervisor, files: SourceFiles | None) -> int:
    stop = stop_signalled()
    if files is None:
        return await supervisor.run_processes(stop)
    note(f"the .py files below {', '.join(map(str, files.folders))} are watched: when one changes, all start again")
    return await supervisor.run_reloading(stop, files.changed)


def folders_of(targets: Sequence[str]) -> list[Path]:
    """Return the folders of the files of `targets`. Modules are searched only below the current folder."""
    folders = []
    for target in targets:
        module = target.partition(":")[0]
        path = Path(module if module.endswith(".py") else f"{module.partition('.')[0]}")
        folders.append((path if path.is_dir() else path.parent).absolute())
    return folders
