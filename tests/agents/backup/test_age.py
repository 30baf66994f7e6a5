"""When the newest backup was taken: by manifests of this deployment that are whole; 0 if there is none."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from support.lab import until
from support.settings import SMALLEST, load

from sealbus.agents.backup.age import BackupAge, open_backups
from sealbus.agents.backup.manifest import MANIFEST, Manifest
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

TAKEN = 1_795_538_577_000_000


def back_up(folder: Path, taken: int, *, domain: str = "example.org", origin: str = "log.example.org/audit") -> Path:
    """Leave what the command leaves last."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(version="1", taken=taken, trust_domain=domain, origin=origin, streams=(), files=())
    (folder / "under-way").write_bytes(manifest.encode())
    (folder / "under-way").replace(folder / MANIFEST)
    return folder / MANIFEST


def shown(counters: Counters) -> float | None:
    [*values] = [
        line.split()[1]
        for line in counters.render().splitlines()
        if line.startswith("sealbus_last_backup_timestamp_seconds ")
    ]
    return float(values[0]) if values else None


@asynccontextmanager
async def watched(folder: Path, *, origin: str = "") -> AsyncIterator[Counters]:
    counters = Counters()
    age = BackupAge(folder, counters, trust_domain="example.org", origin=origin, every=0.01)
    running = asyncio.create_task(age.run())
    try:
        yield counters
    finally:
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()


async def test_the_newest_counts_wherever_it_is(tmp_path: Path) -> None:
    back_up(tmp_path / "b", TAKEN)
    back_up(tmp_path / "a", TAKEN - 5_000_000)
    (tmp_path / "a-file").write_text("")
    async with watched(tmp_path) as counters:
        await until(lambda: shown(counters) == TAKEN / 1_000_000)
        back_up(tmp_path / "0", TAKEN + 9_000_000)
        await until(lambda: shown(counters) == TAKEN / 1_000_000 + 9)
        # One that was deleted is none any more, and one in the same place is read again.
        (tmp_path / "0" / MANIFEST).unlink()
        await until(lambda: shown(counters) == TAKEN / 1_000_000)
        back_up(tmp_path / "b", TAKEN + 1_000_000)
        await until(lambda: shown(counters) == TAKEN / 1_000_000 + 1)


async def test_a_manifest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    whole = Manifest.read

    def counted(folder: Path) -> Manifest:
        read.append(folder)
        return whole(folder)

    monkeypatch.setattr(Manifest, "read", counted)
    back_up(tmp_path / "a", TAKEN)
    async with watched(tmp_path) as counters:
        await until(lambda: shown(counters) == TAKEN / 1_000_000)
        back_up(tmp_path / "b", TAKEN + 1_000_000)
        await until(lambda: shown(counters) == TAKEN / 1_000_000 + 1)
    assert read == [tmp_path / "a", tmp_path / "b"]


async def test_what_is_no_backup_of_this_deployment_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut-off" / "streams").mkdir(parents=True)
    back_up(tmp_path / "theirs", TAKEN, domain="bank.example")
    back_up(tmp_path / "other-log", TAKEN, origin="log.bank.example/audit")
    damaged = back_up(tmp_path / "damaged", TAKEN)
    damaged.write_bytes(damaged.read_bytes().replace(b"1795538577000000", b"1995538577000000"))
    (tmp_path / "odd" / MANIFEST).mkdir(parents=True)
    caplog.set_level(logging.WARNING, logger="sealbus")
    async with watched(tmp_path, origin="log.example.org/audit") as counters:
        await until(lambda: shown(counters) == 0)
        back_up(tmp_path / "ours", TAKEN - 1_000_000)
        await until(lambda: shown(counters) == TAKEN / 1_000_000 - 1)
    # Each is named once, however often it is looked at.
    assert len(caplog.messages) == 4
    for said in (
        "theirs: it is of bank.example",
        "other-log: its log is log.bank",
        "damaged: manifest.json is damaged",
    ):
        assert len([message for message in caplog.messages if said in message]) == 1


@pytest.mark.parametrize("right_hash", [True, False])
@pytest.mark.parametrize("changed", [{"files": [{"path": 1}]}, {"taken": float("inf")}, {"streams": 1}, {"files": [1]}])
async def test_a_malformed_manifest_ends_nothing(
    tmp_path: Path, changed: dict[str, object], right_hash: bool, caplog: pytest.LogCaptureFixture
) -> None:
    odd = back_up(tmp_path / "odd", TAKEN)
    document = json.loads(odd.read_bytes())
    document["backup"].update(changed)
    if right_hash:
        document["sha256"] = sha256(json.dumps(document["backup"], sort_keys=True).encode()).hexdigest()
    odd.write_text(json.dumps(document))
    back_up(tmp_path / "ours", TAKEN)
    async with watched(tmp_path) as counters:
        await until(lambda: shown(counters) == TAKEN / 1_000_000)
        await until(lambda: "odd: manifest.json is damaged" in caplog.text)


async def test_a_folder_that_is_missing_has_no_backup(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(tmp_path / "mnt") as counters:
        await until(lambda: shown(counters) == 0)
        assert "mnt: No such file or directory" in caplog.text
        (tmp_path / "mnt").mkdir()
        back_up(tmp_path / "mnt" / "a", TAKEN)
        await until(lambda: shown(counters) == TAKEN / 1_000_000)


async def test_the_role_is_opened_by_the_settings(tmp_path: Path) -> None:
    counters = Counters()
    back_up(tmp_path / "backups" / "a", TAKEN)
    settings = load(tmp_path, f'{SMALLEST}[control]\nbackups = "backups"\n')
    async with open_backups(settings, counters=counters) as role:
        assert shown(counters) is None
        running = asyncio.create_task(role.run())
        await until(lambda: shown(counters) == TAKEN / 1_000_000)
        assert role.problem == ""
        running.cancel()
        await asyncio.wait({running})


async def test_without_the_folder_there_is_no_such_role(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"control\.backups is not set"):
        async with open_backups(load(tmp_path), counters=Counters()):
            pass
