"""Whole processes: how soon they answer, and how much memory an idle worker holds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bench.report import Figure

__all__ = ["figures", "resident"]

SEALBUS = str(Path(sys.executable).parent / "sealbus")
APP = Path(__file__).resolve().parent.parent / "docs" / "tour" / "app.py"
WITHIN = 30


async def figures() -> AsyncIterator[Figure]:
    """Measure `--help`, `sealbus dev`, and the resident memory of an idle worker."""
    for figure in await asyncio.to_thread(lambda: list(_measured())):
        yield figure


def _measured() -> Iterator[Figure]:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([SEALBUS, "--help"], check=True, capture_output=True)
        times.append((time.perf_counter() - started) * 1e3)
    yield Figure.of(times, name="sealbus --help", unit="ms", goal=150)
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        started = time.perf_counter()
        dev = _start("dev", "--port", "0", "--edge-port", "0", "--console-port", "0", folder=folder)
        try:
            _wait_for(dev, "ready:")
            yield Figure(name="sealbus dev ready", value=time.perf_counter() - started, unit="s", goal=3)
            worker = _start("worker", "run", f"{APP}:agent", folder=folder)
            try:
                _wait_for(worker, "inventory runs as")
                yield Figure(
                    name="idle worker, embedded engine", value=resident(worker.pid), unit="MB", guard=112, goal=105
                )
            finally:
                _stop(worker)
        finally:
            _stop(dev)


def resident(pid: int | None) -> float:
    """Return the resident memory of a process, by default of this one, in megabytes."""
    for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_000
    raise RuntimeError("no VmRSS")


def _start(*arguments: str, folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SEALBUS, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    if process.stdout is None:
        raise RuntimeError("no output")
    for line in process.stdout:
        if text in line:
            return
    raise RuntimeError(f"{process.args} ended")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WITHIN)
