"""A worker's start and end as the audit log has them: of one that stops, and of one that is killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.worker_process import ALLOWING

from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.runtime.open import open_audit_trail
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.records.operation import ProcessRecord

pytestmark = [pytest.mark.nats, pytest.mark.slow]

APP = """
from sealbus import Agent, Context

here = Agent("here")

@here.call("which")
async def which(body: int, ctx: Context) -> int:
    return 1
"""
WITHIN = 45.0
SEALBUS = Path(sys.executable).parent / "sealbus"


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "app.py").write_text(APP)
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "authz.rego").write_text(ALLOWING)
    options = DevOptions(folder=tmp_path / "dev", agents=("here",), port=-1, policy=policy, notary=True)
    async with open_environment(options) as running:
        yield running


@asynccontextmanager
async def worker(environment: Environment, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        SEALBUS, "worker", "run", "app.py:here", "--config", str(environment.settings_file), cwd=folder
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stats(environment: Environment) -> list[dict[str, str]]:
    """Return the processes without an end, as the command shows them."""
    process = await asyncio.create_subprocess_exec(
        SEALBUS,
        *("audit", "stats", "--json", "--config", str(environment.settings_file)),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return [line for line in map(json.loads, said.splitlines()) if "process" in line]


async def test_a_killed_worker_has_a_start_alone_and_is_shown(environment: Environment, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(2 * WITHIN),
        open_audit_trail("operator", environment.settings) as trail,
        aclosing(trail.entries(follow=True)) as entries,
    ):

        async def following() -> ProcessRecord:
            async for entry in entries:
                if isinstance(entry, AuditEntry) and isinstance(entry.record, ProcessRecord):
                    assert entry.recorder == environment.names.id_of("here")
                    return entry.record
            raise AssertionError("the stream has ended")

        async with worker(environment, tmp_path) as process:
            first = await following()
            process.terminate()
            assert await process.wait() == 0
        end = await following()
        assert (first.action, end.action, end.instance) == ("start", "end", first.instance)
        async with worker(environment, tmp_path) as process:
            second = await following()
            process.kill()
        assert second.action == "start"
        assert second.instance != first.instance
        # The notary takes the record into its log soon after the stream has it.
        while not (shown := await stats(environment)):
            pass
        assert [(one["agent"], one["process"], one["version"]) for one in shown] == [
            (str(environment.names.id_of("here")), second.instance.hex(), second.version)
        ]
