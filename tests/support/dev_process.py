"""`sealbus dev` and a worker as processes of their own, with commands in between, as somebody at a terminal has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.ports import free_port

__all__ = ["DevFolder", "running_dev"]

_SEALBUS = str(Path(sys.executable).parent / "sealbus")
_WITHIN = 60


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
    dev = _start(path, "dev", "--port", str(free_port()), "--edge-port", "0")
    codes: list[int] = []
    try:
        _wait_for(dev, "ready:")
        config = path / "worker.toml"
        config.write_text((path / ".sealbus" / "dev.toml").read_text() + settings)
        worker = _start(path, "worker", "run", f"{app}:agent", "--config", str(config))
        try:
            _wait_for(worker, "runs as")
            yield DevFolder(path)
        finally:
            codes.append(_stop(worker))
    finally:
        codes.append(_stop(dev))
    assert codes == [0, 0]


def _start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [_SEALBUS, *arguments], cwd=path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the process's output up to a line that holds `text`; the test's own timeout ends a wait for ever."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError("".join(said))


def _stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=_WITHIN)
    return process.returncode
