"""`sealbus policy fetch` on a real server: what the workload would decide by is there before the workload is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.lab import running
from support.policy_desk import Desk
from support.settings import SMALLEST

from sealbus.agents.cli.policy import push as policy_push
from sealbus.agents.cli.policy.fetch import fetch
from sealbus.agents.runtime import open as runtime
from sealbus.agents.runtime.policy import sync as policy_sync
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import public_pem
from sealbus.policies.bundle.files import load_bundle

pytestmark = pytest.mark.nats


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    @asynccontextmanager
    async def opened(name: str, settings: Settings) -> AsyncIterator[tuple[None, Connection]]:
        assert name == "pricing"
        async with running(tmp_path / "nats", "a") as lab, lab.connection("a") as connection:
            yield None, connection

    desk = Desk(tmp_path, monkeypatch)
    [key] = desk.anchors.values()
    (tmp_path / "platform.pub").write_text(public_pem(key), encoding="ascii")
    settings = SMALLEST + 'bundle = "nats://policies"\nkeys = ["platform.pub"]\ncache = "cache"\n'
    (tmp_path / "sealbus.toml").write_text(settings, encoding="utf-8")
    monkeypatch.setattr(runtime, "open_connection", opened)
    return desk


def run(desk: Desk, *options: str) -> Result:
    return CliRunner().invoke(fetch, ["pricing", "--config", str(desk.folder / "sealbus.toml"), *options])


def test_the_policy_is_where_the_workload_keeps_it(desk: Desk) -> None:
    desk.push_both()
    bundle = desk.folder / "cache" / "pricing" / "composed" / "bundle.tar.gz"
    said = json.loads(run(desk, "--json").stdout)
    assert said == {"revision": load_bundle(bundle).revision, "bundle": str(bundle)}
    assert said["revision"].endswith(".platform-1.stock-1")
    desk.json(policy_push.push, desk.team, "--name", "stock", "--key", desk.stock)
    assert ".platform-1.stock-2 is in " in run(desk).stderr


def test_what_cannot_be_written_is_not_fetched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(raw: bytes, file: Path, *, durable: bool = True) -> None:
        raise OSError(28, "No space left on device")

    desk.push_both()
    monkeypatch.setattr(policy_sync, "write_file", full)
    result = run(desk)
    assert isinstance(result.exception, ConfigurationError)
    folder = desk.folder / "cache" / "pricing"
    assert result.exception.detail == f"the policy cannot be kept in {folder}: No space left on device"
    assert result.output == ""


def test_without_a_policy_it_fails_so_that_it_is_tried_again(desk: Desk) -> None:
    result = run(desk)
    assert isinstance(result.exception, ConfigurationError)
    assert "there is no policy in the store" in result.exception.detail
    assert not (desk.folder / "cache" / "pricing" / "composed" / "bundle.tar.gz").exists()
