"""Exporting out of a deployment: the notary's folder and its stream become a folder that verifies."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from support.kept_log import StreamOfLog, kept_files, previous_of, root_of, written
from support.log_world import LogKey, World, make_world, note

from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import verify_export
from sealbus.bus.ports import Transport
from sealbus.envelopes.errors import ConfigurationError, LogError


def transport(world: World, *without: int) -> Transport:
    return cast("Transport", StreamOfLog(world, frozenset(without)))


@pytest.mark.parametrize(("seed", "entries"), [(1, 20), (9, 262)])
async def test_an_export_of_a_deployment_verifies(seed: int, entries: int, tmp_path: Path) -> None:
    world = make_world(seed, entries)
    get = log_files(written(kept_files(world), tmp_path / "log"))
    told: list[tuple[int, int]] = []
    found = await export_log(
        tmp_path / "export", get=get, transport=transport(world), root=root_of(world), previous=previous_of(world),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert found.entries == len(world.frames)
    assert told[-1] == (len(world.frames), len(world.frames))
    assert verify_export(FolderFiles(tmp_path / "export"), root_of(world), processes=1).passed


async def test_a_policy_may_be_larger_than_a_message(tmp_path: Path) -> None:
    world = make_world(1, 20)
    world.record_policy(bytes(3_000_000))
    get = log_files(written(kept_files(world), tmp_path / "log"))
    found = await export_log(
        tmp_path / "export", get=get, transport=transport(world), root=root_of(world), previous=previous_of(world)
    )
    assert found.whole
    assert verify_export(FolderFiles(tmp_path / "export"), root_of(world), processes=1).passed


async def test_messages_that_are_gone_are_named(tmp_path: Path) -> None:
    world = make_world(1, 20)
    found = await export_log(
        tmp_path / "export", get=kept_files(world).get, transport=transport(world, 3, 9), root=root_of(world),
        previous=previous_of(world),
    )  # fmt: skip
    assert found.missing == [3, 9]


async def test_a_log_without_a_checkpoint_and_one_of_another(tmp_path: Path) -> None:
    world = make_world(1, 12)
    with pytest.raises(ConfigurationError, match="no checkpoint yet"):
        await export_log(tmp_path / "a", get=lambda _: None, transport=transport(world), root=root_of(world))
    other = {"checkpoint": note(1, bytes(32), [LogKey("stranger")])}
    with pytest.raises(LogError):
        await export_log(tmp_path / "b", get=other.get, transport=transport(world), root=root_of(world))
    assert not (tmp_path / "b").exists()


async def test_a_log_of_nothing_but_its_beginning(tmp_path: Path) -> None:
    world = make_world(1, 12)
    world.frames = world.frames[:1]
    found = await export_log(
        tmp_path / "export", get=kept_files(world).get, transport=transport(world), root=root_of(world)
    )
    assert found.entries == 1


def test_the_files_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no log"):
        log_files(tmp_path)
    get = log_files(written({"checkpoint": b"note", "tile/0/000": b"x"}, tmp_path))
    assert (get("checkpoint"), get("tile/0/000"), get("tile/0/001"), get("checkpoint/x")) == (b"note", b"x", None, None)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        get("checkpoint")
