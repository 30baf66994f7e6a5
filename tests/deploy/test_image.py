"""The image that compose and the chart run: each step of its Dockerfile is done here, for `make image-test`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from stack.tools import find_tool
from support.dockerfile import build_image
from support.opa import require_opa
from support.workload_api import short_folder

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "compose" / "Dockerfile"


@pytest.fixture
def folder() -> Iterator[Path]:
    require_opa()
    with short_folder() as path:
        path.chmod(0o711)
        yield path


@pytest.mark.image
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="the image's user is another one: run the test as root")
def test_each_step_of_the_image_is_done_and_its_program_starts(folder: Path) -> None:
    opa = folder / "opa-image"
    opa.mkdir()
    shutil.copy(find_tool("opa"), opa / "opa")
    image = build_image(DOCKERFILE, ROOT, folder, {"openpolicyagent/opa": opa})
    assert image.user == "10001:10001"
    assert image.run("--version") == f"sealbus, version {version('sealbus')}\n"
    # All that it runs is in it: the compiler that judges what is served, and none of what only builds and tests.
    assert [name for name in ("sealbus", "opa", "nats-server", "pytest", "mypy") if image.has(name)] == [
        "sealbus",
        "opa",
        "nats-server",
    ]
