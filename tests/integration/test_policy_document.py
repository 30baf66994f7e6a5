"""docs/policy.md, executed: the commands of its marked blocks, in one shell, beside the development environment."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from sealbus.agents.dev.environment import DevOptions, open_environment

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]


async def test_its_commands_do_what_it_says(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl: the document's keys are made with it")
    text = await asyncio.to_thread((ROOT / "docs" / "policy.md").read_text, encoding="utf-8")
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    async with open_environment(DevOptions(folder=tmp_path / "dev", agents=("pricing",), port=0)) as dev:
        process = await asyncio.create_subprocess_exec(
            "sh", "-e", "-c", "\n".join(blocks), cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "SEALBUS_CONFIG": str(dev.settings_file),
                "COLUMNS": "200",
            },
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
    said = output.decode()
    assert process.returncode == 0, said
    for step in (
        "shop-web may do inventory.count", "4 passed, 0 failed", "file shop.tar.gz",
        "platform is pushed under serial 1", "platform is pushed under serial 2", "platform is pushed under serial 3",
        "platform is pushed under serial 6", "mallory", "left the company",
    ):  # fmt: skip
        assert step in said, said
