"""What a figure was measured on: the machine and the versions of what ran, in one line."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from sealbus.agents.dev.nats.server import find_nats_server
from stack.tools import find_tool

__all__ = ["machine"]


def machine() -> str:
    """Return processor, cores, system, and the versions of Python, nats-server, SPIRE, OPA and nats-py."""
    said = {
        "nats-server": _first_line([str(find_nats_server()), "--version"]).removeprefix("nats-server: "),
        "spire": _first_line([str(find_tool("spire-server")), "--version"]),
        "opa": _first_line([str(find_tool("opa")), "version"]).removeprefix("Version: "),
        "nats-py": version("nats-py"),
        "python": platform.python_version(),
    }
    versions = ", ".join(f"{name} {text}" for name, text in said.items())
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; {versions}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "?"
