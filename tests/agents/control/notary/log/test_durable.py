"""Files that are there for good: in which order things happen, and what a failure leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealbus.agents.control.notary.log.folder_store import write_durably


def folders(tmp_path: Path) -> tuple[Path, Path]:
    folder, under_way = tmp_path / "log", tmp_path / "under-way"
    folder.mkdir()
    under_way.mkdir()
    return folder, under_way


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    folder, under_way = folders(tmp_path)
    write_durably(folder, {"a": b"1", "x/y/b": b"2"}, under_way)
    write_durably(folder, {"a": b"3"}, under_way)
    assert ((folder / "a").read_bytes(), (folder / "x/y/b").read_bytes()) == (b"3", b"2")
    assert list(under_way.iterdir()) == []


def test_no_file_has_its_name_before_all_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, under_way = folders(tmp_path)
    (folder / "a").write_bytes(b"old")
    count = 0

    def failing(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError(5, "no")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no"):
        write_durably(folder, {"a": b"1", "b": b"2", "c": b"3"}, under_way)
    assert [one.name for one in folder.iterdir()] == ["a"]
    assert (folder / "a").read_bytes() == b"old"


def test_every_folder_that_changed_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, under_way = folders(tmp_path)
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").resolve()))
    write_durably(folder, {"x/y/b": b"2"}, under_way)
    assert synced[0].parent == under_way
    assert set(synced[1:]) == {folder, folder / "x", folder / "x" / "y"}
