"""What docs/a2a.md says can be done: the project, the settings, the client, the key, and what each setting is called."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from support.ports import held_port
from support.workload_api import short_folder

from sealbus.agents.edge.a2a.cards import CardKey
from sealbus.agents.runtime.settings.schema import A2aTable

PAGE = (Path(__file__).parents[2] / "docs" / "a2a.md").read_text()
BIN = Path(sys.executable).parent
BLOCKS = {
    kind: re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for kind in ("sh", "toml", "python")
}


async def run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=PIPE)
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0, command
    return out


async def told(command: str, place: Path) -> str:
    """Return what the client prints. The agent starts beside the edge; a call before that fails."""
    failures: list[str] = []
    while len(failures) < 200:
        process = await asyncio.create_subprocess_exec("sh", "-c", command, cwd=place, stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        if process.returncode == 0:
            return out.decode()
        failures.append(err.decode())
        await asyncio.sleep(0.2)
    raise AssertionError(failures[-1])


def test_the_settings_are_those_that_there_are() -> None:
    shown = BLOCKS["toml"][1]
    table = A2aTable.model_validate(tomllib.loads(re.sub("(?m)^# ", "", shown))["edge"]["a2a"])
    assert table.scopes == {"depot.change": "depot:write"}
    assert set(re.findall(r"^(?:# )?(\w+) =", shown, re.MULTILINE)) == set(A2aTable.model_fields)


async def test_the_pages_key_signs_cards(tmp_path: Path) -> None:
    printed = await run("sh", "-c", BLOCKS["sh"][3], cwd=tmp_path)
    assert printed.startswith("-----BEGIN PUBLIC KEY-----")
    assert CardKey.read(tmp_path / "card.pem").id


@pytest.mark.nats
@pytest.mark.workload_api
async def test_the_pages_client_uses_the_pages_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    first, _, used, _ = BLOCKS["sh"]
    with short_folder() as place:
        for line in first.splitlines():
            if line.startswith("cd "):
                place = place / line.removeprefix("cd ")
            elif not line.startswith("pip "):
                await run("sh", "-c", line, cwd=place)
        settings = place / "sealbus.toml"
        settings.write_text(settings.read_text() + "\n" + BLOCKS["toml"][0])
        (place / "client.py").write_text(BLOCKS["python"][0])
        port = held_port()
        ports = ("--port", "0", "--edge-port", str(port), "--no-console", "--no-notary", "--json")
        dev = await asyncio.create_subprocess_exec("sealbus", "dev", *ports, cwd=place, stdout=PIPE)
        assert dev.stdout is not None
        try:
            assert json.loads(await dev.stdout.readline())["ready"]
            command = used.replace("8080", str(port))
            read, *events = (await told(command, place)).splitlines()
            assert "'order_id': '1'" in read
            assert "TASK_STATE_SUBMITTED" in events[0]
            assert "TASK_STATE_COMPLETED" in events[-1]
        finally:
            dev.send_signal(signal.SIGINT)
            await dev.communicate()
