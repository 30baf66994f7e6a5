"""The MCP clients of npm, installed by `make tools`, as processes that a test steers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["KINDS", "NpmClient", "npm_client", "require_mcp_js"]

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "deploy" / "tools" / "mcp-js" / "client.mjs"
_INSTALLED = _ROOT / ".tools" / "mcp-js"
_SECONDS = 60.0

KINDS = ("client auto", "client legacy", "sdk legacy")
"""Package and mode. What leaves the choice to the server gets the newer protocol."""


def require_mcp_js() -> tuple[str, Path]:
    """Return node and the folder of the clients; without them skip the test, or fail it in CI."""
    node = shutil.which("node")
    missing = "node" if node is None else "MCP client of npm"
    if node is not None and (_INSTALLED / "node_modules" / "@modelcontextprotocol" / "client").exists():
        return node, _INSTALLED
    if os.environ.get("CI"):
        pytest.fail(f"there is no {missing}: `make tools` installs them")
    pytest.skip(f"there is no {missing}: `make tools` installs them")


class NpmClient:
    """One running client."""

    def __init__(self, process: Process, version: str) -> None:
        self._process = process
        self.version = version

    async def say(self, **command: object) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def told(self, kind: str) -> Any:
        """Return the next thing of a kind that it says, and let pass what it says before."""
        while True:
            said = await _line(self._process)
            if kind in said:
                return said[kind]
            assert "error" not in said, said

    async def call(self, name: str, **arguments: object) -> dict[str, Any]:
        """Return what a tool gives."""
        await self.say(call=name, arguments=arguments)
        result = await self.told("result")
        assert isinstance(result, dict)
        return result


async def _line(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(_SECONDS):
        line = await process.stdout.readline()
    assert line, "the client ended"
    said = json.loads(line)
    assert isinstance(said, dict)
    return said


@asynccontextmanager
async def npm_client(kind: str, url: str, token: str, *, answer: str = "accept") -> AsyncIterator[NpmClient]:
    """Yield a client of one of `KINDS` that is connected to `url`."""
    node, folder = require_mcp_js()
    package, _, mode = kind.partition(" ")
    process = await asyncio.create_subprocess_exec(node, _SCRIPT, folder, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdin is not None
        settings = {"package": package, "mode": mode, "url": url, "token": token, "answer": answer}
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        yield NpmClient(process, (await _line(process))["connected"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
