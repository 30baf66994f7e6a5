"""Workers as processes of their own, to be killed, and a development environment with a policy of a test's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

from sealbus.agents.dev.environment import DevOptions, Environment, open_environment

__all__ = ["ALLOWING", "small_environment", "worker_process"]

ALLOWING = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "all"} if request.v == 1
"""
"""Allows whatever is asked."""


@asynccontextmanager
async def small_environment(
    folder: Path, *agents: str, max_bytes: int = 1 << 26, **modules: str
) -> AsyncIterator[Environment]:
    """Run a development environment for `agents` in `folder`; `modules` are its policy, by default `ALLOWING`."""
    policy = folder / "policy"
    policy.mkdir()
    for name, text in (modules or {"authz": ALLOWING}).items():
        (policy / f"{name}.rego").write_text(text)
    options = DevOptions(folder=folder / "dev", agents=agents, port=-1, policy=policy, max_bytes=max_bytes)
    async with open_environment(options) as running:
        yield running


@asynccontextmanager
async def worker_process(
    program: ModuleType, *arguments: object, says: bytes = b""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `program` as a process once it `says` so; it is killed at the end if it has not ended."""
    assert program.__file__ is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable, program.__file__, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        if says:
            assert process.stdout is not None
            assert await process.stdout.readline() == says + b"\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
