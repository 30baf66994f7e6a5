"""`sealbus dev` and a worker as processes of their own, with commands in between, as somebody at a terminal has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DevFolder", "Running", "running", "running_dev"]

_SEALBUS = str(Path(sys.executable).parent / "sealbus")
_WITHIN = 300


@dataclass(frozen=True, slots=True)
class Running:
    """A process of ours, and the line by which it said that it is ready."""

    pid: int
    line: str


class DevFolder:
    """The folder that the commands are run in; they find the running `sealbus dev` by it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            [_SEALBUS, *map(str, arguments)],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            check=False,
        )

    def json(self, *arguments: str | Path, code: int = 0) -> list[Any]:
        """Run one command with `--json` and return its lines; it must end with `code`."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def running_dev(path: Path, app: str, *, settings: str = "") -> Iterator[DevFolder]:
    """Run `sealbus dev` in `path`, and a worker of the agent in its file `app`; both must stop cleanly.

    `settings` are tables that the worker has beside those of `sealbus dev`.
    """
    with running(path, "dev", "--port", "0", "--edge-port", "0", "--console-port", "0", ready="ready:"):
        config = path / "worker.toml"
        config.write_text((path / ".sealbus" / "dev.toml").read_text() + settings)
        with running(path, "worker", "run", f"{app}:agent", "--config", str(config), ready="runs as"):
            yield DevFolder(path)


@contextmanager
def running(path: Path, *arguments: str, ready: str, **environment: str) -> Iterator[Running]:
    """Run a command in `path` from its line that holds `ready`; it must stop cleanly."""
    process = subprocess.Popen(
        [_SEALBUS, *arguments],
        cwd=path,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Running(process.pid, _wait_for(process, ready))
    finally:
        code = _stop(process)
    assert code == 0


def _wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Return the line of the process's output that holds `text`; the test's own timeout ends a wait for ever."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


def _stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=_WITHIN)
    return process.returncode
