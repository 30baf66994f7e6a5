"""What docs/schedules.md shows of code is so: the agent, the calls of a client, and time that a test lets pass."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sealbus import Client
from sealbus.testing import TestBus

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")


async def run(code: str, names: dict[str, Any]) -> None:
    """Run a block of the page that may await."""
    compiled = compile(ast.parse(code), "schedules.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(compiled, names)  # noqa: S307  a file of ours
    if inspect.isawaitable(waiting):
        await waiting


async def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    shutil.copytree(ROOT / "policies" / "rego", policy)
    actions, agents = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    for document, shown in (("actions", actions), ("agents", agents)):
        file = policy / "sealbus" / "registry" / document / "data.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | json.loads(shown)))
    clerk, client, passing = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {"TestBus": TestBus, "policy": policy, "__name__": "clerk", "print": lambda *_: None}
    # By its own module's names the agent's annotations are found.
    exec(compile(ast.parse(clerk), "clerk.py", "exec"), names)  # noqa: S102  a file of ours
    async with TestBus(names["agent"], policy=policy) as bus:

        @asynccontextmanager
        async def of_bus(name: str) -> AsyncIterator[Client]:
            yield await bus.client(name)

        await run(client, {**names, "Client": of_bus})
        assert await bus.advance(3_600) == 1
    await run(passing, names)
