"""The A2A client of npm, installed by `make tools`, as a process that a test steers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["A2aJsClient", "a2a_js_client", "require_a2a_js"]

_ROOT = Path(__file__).parents[2]
_SCRIPT = _ROOT / "deploy" / "tools" / "a2a-js" / "client.mjs"
_INSTALLED = _ROOT / ".tools" / "a2a-js"
_SECONDS = 60.0


def require_a2a_js() -> tuple[str, Path]:
    """Return node and the folder of the client; without them skip the test, or fail it in CI."""
    node = shutil.which("node")
    missing = "node" if node is None else "A2A client of npm"
    if node is not None and (_INSTALLED / "node_modules" / "@a2a-js" / "sdk").exists():
        return node, _INSTALLED
    if os.environ.get("CI"):
        pytest.fail(f"there is no {missing}: `make tools` installs it")
    pytest.skip(f"there is no {missing}: `make tools` installs it")


class A2aJsClient:
    """One running client."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def say(self, command: str, params: object = True) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({command: params}).encode() + b"\n")
        await self._process.stdin.drain()

    async def next(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the client ended"
        said = json.loads(line)
        assert isinstance(said, dict)
        return said

    async def told(self, kind: str) -> Any:
        """Return what it says next, which is of this kind."""
        said = await self.next()
        assert kind in said, said
        return said[kind]

    async def asked(self, command: str, params: object = True) -> Any:
        """Return the answer to a command."""
        await self.say(command, params)
        [answer] = (await self.next()).values()
        return answer

    async def events(self) -> list[dict[str, Any]]:
        """Return the rest of the stream that is open."""
        found = []
        while "event" in (said := await self.next()):
            found.append(said["event"])
        assert said == {"ended": True}, said
        return found


@asynccontextmanager
async def a2a_js_client(url: str, binding: str, token: str, key: Mapping[str, str]) -> AsyncIterator[A2aJsClient]:
    """Yield a client of the agent whose card is below `url`, over one binding; `key` verifies cards."""
    node, folder = require_a2a_js()
    process = await asyncio.create_subprocess_exec(node, _SCRIPT, folder, stdin=PIPE, stdout=PIPE)
    try:
        client = A2aJsClient(process)
        settings = {"url": f"{url}/", "binding": binding, "token": token, "key": {**key}}
        assert process.stdin is not None
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        await client.told("connected")
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
