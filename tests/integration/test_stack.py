"""The whole on real components: the scenes come out as in the development environment, and nobody notices rotation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack.tools import CONFIGURATION
from support.opa import require_opa
from support.spire import require_spire
from support.workload_api import short_folder

from sealbus.agents.demo.scenes import SCENES

pytestmark = [
    pytest.mark.spire,
    pytest.mark.opa,
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="the stack needs root (a user for each agent): run the tests as root"),
]


def stack(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of the stack, as the Makefile does."""
    return subprocess.run(
        [sys.executable, "-m", "stack", *arguments, "--folder", str(folder)],
        env={**os.environ, "PYTHONPATH": str(CONFIGURATION)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


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
    finally:
        down = stack("down", folder=folder)
    assert down.returncode == 0, down.stderr
    assert demo.returncode == 0, demo.stdout + demo.stderr
    said = json.loads(demo.stdout)
    assert said["ok"] is True
    assert [(one["name"], one["got"]) for one in said["scenes"]] == [
        (scene.name, scene.expected.got) for scene in SCENES
    ]
    assert stack("demo", folder=folder).returncode == 1, "nothing runs any more"


def test_nobody_notices_rotation_a_killed_agent_and_a_reload(folder: Path) -> None:
    """`make soak`, short: SVIDs of 30 s, so that every connection is replaced while tasks and calls go on."""
    soak = stack("soak", "--free-ports", "--seconds", "40", "--rate", "40", "--svid-ttl", "30", "--json", folder=folder)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    said = json.loads(soak.stdout)
    assert said["problems"] == []
    assert said["handled_once"] == said["tasks"] > 0
    assert said["calls"] > 0
    assert (said["spire_agent_killed"], said["nats_reloads"]) == (1, 1)
    assert all(count >= 1 for count in said["connections_rotated"].values())
