"""The whole on real components: the scenes come out as in the development environment, and nobody notices rotation."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from stack.metrics import counter
from stack.roster import PEOPLE
from stack.site import SEALBUS, Site
from stack.state import State
from stack.tools import CONFIGURATION
from support.opa import require_opa
from support.spire import require_spire
from support.workload_api import short_folder

from sealbus.agents.dev.demo.payments import NEXT_DAY
from sealbus.agents.dev.demo.play import SCENES

WITHIN = 900.0
"""Seconds that a command may take on a busy machine."""
INDEPENDENT = Path(__file__).parent.parent / "independent" / "verify_export.py"

pytestmark = [
    pytest.mark.spire,
    pytest.mark.opa,
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="the stack needs root (a user for each agent): run the tests as root"),
]


def stack(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the stack, as the Makefile does."""
    return subprocess.run(
        [sys.executable, "-m", "stack", *arguments, "--folder", str(folder)],
        env={**os.environ, "PYTHONPATH": str(CONFIGURATION)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; it must end well."""
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exported(site: Site, export: Path) -> tuple[Path, Path]:
    """Export the log of the stack as its operator would, and return the root file and the export."""
    operator = site.environment(PEOPLE[0])
    log = ["--log", str(site.log)]
    root = export.with_suffix(".json")
    root.write_text(
        run([SEALBUS, "audit", "root", "--key", site.log_key.read_text().strip(), *log], environment=operator)
    )
    run([SEALBUS, "audit", "verify", "--live", "--root", str(root), *log], environment=operator)
    run([SEALBUS, "audit", "export", str(export), "--root", str(root), *log], environment=operator)
    return root, export


@pytest.fixture
def folder() -> Iterator[Path]:
    require_spire()
    require_opa()
    with short_folder() as path:
        path.chmod(0o711)
        yield path / "s"


def test_the_scenes_come_out_as_elsewhere(folder: Path) -> None:
    up = stack("up", "--free-ports", folder=folder)
    assert up.returncode == 0, up.stderr
    try:
        demo = stack("demo", "--json", folder=folder)
        site = State.read(folder).site
        limits = asyncio.run(counter(site.ports.streams_health, "sealbus_stream_limit_bytes"))
        root, export = exported(site, folder.with_name("export"))
    finally:
        down = stack("down", folder=folder)
    assert down.returncode == 0, down.stderr
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert limits > 0, "how full the streams are is not shown"
    said = json.loads(demo.stdout)
    assert said["ok"] is True
    assert [(one["name"], one["got"]) for one in said["scenes"]] == [
        (scene.name, scene.expected.got) for scene in (*SCENES, *NEXT_DAY)
    ]
    assert stack("demo", folder=folder).returncode == 1, "nothing runs any more"
    # All that signed is gone with the stack: the SPIRE server, its keys, the log's. What was exported stands alone.
    assert run([SEALBUS, "audit", "verify", str(export), "--root", str(root)]).startswith("verified")
    assert "0 findings" in run([sys.executable, str(INDEPENDENT), str(export), "--root", str(root)])


def test_nobody_notices_rotation_a_killed_agent_and_a_reload(folder: Path) -> None:
    """`make soak`, short: SVIDs of 30 s, so that every connection is replaced while tasks and calls go on.

    At a rate that leaves room on a machine with other work: where the stack does not keep up, handlers rightly time out.
    """
    soak = stack("soak", "--free-ports", "--seconds", "40", "--rate", "10", "--svid-ttl", "30", "--json", folder=folder)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    said = json.loads(soak.stdout)
    assert said["problems"] == []
    assert said["handled_once"] == said["tasks"] > 0
    assert said["calls"] > 0
    assert (said["spire_agent_killed"], said["nats_reloads"]) == (1, 1)
    assert all(count >= 1 for count in said["connections_rotated"].values())
