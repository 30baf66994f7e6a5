"""The page beside the examples: its code runs as it stands there, and its commands name what is there."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import sealbus.agents.examples
from sealbus.agents.cli.run.worker import load_agent
from sealbus.agents.examples import inventory, payments, planner, pricing
from sealbus.testing import TestBus

README = (Path(sealbus.agents.examples.__path__[0]) / "README.md").read_text(encoding="utf-8")


def commands(*beginning: str) -> list[list[str]]:
    """Return the commands of the page that begin so, word by word."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    found = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [one for one in found if one[: len(beginning)] == list(beginning)]


async def test_its_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"TestBus": TestBus, "inventory": inventory, "planner": planner, "pricing": pricing}
    running = eval(compile(code, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)  # noqa: S307
    assert inspect.isawaitable(running)
    await running
    assert "missing=2" in capsys.readouterr().out


def test_each_worker_that_it_starts_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command looks in the current folder, too
    targets = [one[3] for one in commands("sealbus", "worker", "run")]
    assert [load_agent(target) for target in targets] == [
        pricing.agent,
        inventory.agent,
        planner.agent,
        payments.agent,
    ]


def test_each_body_that_it_sends_fits() -> None:
    handlers = {**inventory.agent.handlers, **planner.agent.handlers}
    sent = [one[2:4] for one in (*commands("sealbus", "pub"), *commands("sealbus", "call"))]
    assert len(sent) == 4
    for subject, body in sent:
        handler = handlers[subject if subject.startswith("task.") else f"call.{subject}"]
        handler.takes.decode(json.dumps(json.loads(body)).encode(), "application/json")
