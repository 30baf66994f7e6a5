"""`sealbus console` as a process beside a development environment: it says where it is, serves, and stops when told to."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import httpx2
from support.ports import held_port

from sealbus.agents.cli.run.console import command
from sealbus.agents.dev.environment import DevOptions, open_environment


async def test_a_console_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    address = f"127.0.0.1:{held_port()}"
    assert command.name == "console"
    async with open_environment(DevOptions(folder=tmp_path, agents=(), port=0, console_port=0)) as shop:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "sealbus"), "console", "--config", str(shop.settings_file),
            "--address", address, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            async with asyncio.timeout(60):
                while b"console at" not in (line := await process.stderr.readline()):
                    assert line, "it has ended"
            assert f"http://{address}".encode() in line
            async with httpx2.AsyncClient(base_url=f"http://{address}") as web:
                assert (await web.get("/")).status_code == 200
                assert json.loads((await web.get("/api/session")).text)["code"] == "login_required"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                _, rest = await process.communicate()
            assert process.returncode == 0, rest
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
