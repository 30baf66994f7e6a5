"""`sealbus identity write` as a command; `show` is in the tour, and both against real SPIRE in tests/integration."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.ports import held_port
from support.workload_api import RunningWorkloadApi, workload_api

from sealbus.agents.cli.operate.identity import command
from sealbus.agents.runtime.settings.state_folder import lock_folder
from sealbus.envelopes.errors import ConfigurationError, IdentityUnavailable

pytestmark = pytest.mark.workload_api


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningWorkloadApi]:
    async with workload_api("nats") as started:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", started.address("nats"))
        yield started


async def write(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, command, ["write", *arguments])


async def test_once_needs_nothing_but_the_socket(running: RunningWorkloadApi, tmp_path: Path) -> None:
    """A broker's machine has no settings of sealbus."""
    result = await write(str(tmp_path / "svid"), "--once", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    said = json.loads(result.stdout)
    assert said["spiffe_id"] == str(running.spiffe_id("nats"))
    assert said["x509_not_after"].endswith("Z")
    for name in ("svid.pem", "svid.key", "bundle.pem"):
        assert (tmp_path / "svid" / name).read_text().startswith("-----BEGIN ")


async def test_what_people_read_is_on_stderr(running: RunningWorkloadApi, tmp_path: Path) -> None:
    result = await write(str(tmp_path / "svid"), "--once")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(f"{running.spiffe_id('nats')} until ")


async def test_the_socket_can_be_said(
    running: RunningWorkloadApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET")
    result = await write(str(tmp_path / "svid"), "--once", "--socket", running.address("nats"))
    assert result.exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert isinstance((await write(str(tmp_path / "svid"), "--once")).exception, ConfigurationError)


async def test_another_identity_than_ours_is_refused(running: RunningWorkloadApi, tmp_path: Path) -> None:
    result = await write(str(tmp_path / "svid"), "--once", "--id", "spiffe://example.org/nats/other")
    assert isinstance(result.exception, IdentityUnavailable)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--id", "example.org"), "--id"),
        (("--also-trust", "Partner.org"), "--also-trust"),
        (("--reload", "pid", "--callout-health", "callout:80"), "http://host:port/path"),
    ],
)
async def test_what_is_said_wrong_is_named(
    running: RunningWorkloadApi, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = await write(str(tmp_path / "svid"), "--once", *arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert said in result.exception.detail


async def test_health_without_a_reload_is_a_usage_error(running: RunningWorkloadApi, tmp_path: Path) -> None:
    result = await write(str(tmp_path / "svid"), "--callout-health", "http://127.0.0.1:1/")
    assert (result.exit_code, result.stdout) == (2, "")


async def test_one_folder_has_one_writer(running: RunningWorkloadApi, tmp_path: Path) -> None:
    lock = lock_folder(tmp_path, "identity")
    try:
        result = await write(str(tmp_path), "--once")
    finally:
        os.close(lock)
    assert isinstance(result.exception, ConfigurationError)
    assert "is in use" in result.exception.detail


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_runs_until_it_is_told_to_end(
    running: RunningWorkloadApi, tmp_path: Path, number: signal.Signals
) -> None:
    """With a server that is not there and a responder that is down: neither keeps it from ending in order."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sealbus", "identity", "write", str(tmp_path / "svid"), "--json"),
        *("--reload", str(tmp_path / "pid"), "--callout-health", f"http://127.0.0.1:{held_port()}/"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        first = json.loads(await process.stdout.readline())
        running.api.renew()
        second = json.loads(await process.stdout.readline())
        assert first["spiffe_id"] == second["spiffe_id"]
        process.send_signal(number)
        _, said = await process.communicate()
    assert process.returncode == 0
    assert "Traceback" not in said.decode()
