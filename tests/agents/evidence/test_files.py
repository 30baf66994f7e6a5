"""Reading an export: its files and nothing that only looks like one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.memory_files import MemoryFiles

from sealbus.agents.evidence.files import ExportFiles, FolderFiles
from sealbus.envelopes.errors import ConfigurationError

FILES = {"checkpoint": b"note", "tile/0/000.p/1": b"hash", "messages/x001/234": b""}


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> ExportFiles:
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return FolderFiles(tmp_path) if request.param == "folder" else MemoryFiles(FILES)


def test_files_are_named_and_read(files: ExportFiles) -> None:
    assert sorted(files.paths()) == sorted(FILES)
    assert files.read("checkpoint", 8) == b"note"
    assert files.read("tile/0/000.p/1", 2) == b"has"
    assert files.read("messages/x001/234", 8) == b""
    opened = files.open("checkpoint")
    assert opened is not None
    with opened as file:
        assert (file.read(2), file.read(9)) == (b"no", b"te")


def test_what_is_missing(files: ExportFiles) -> None:
    assert files.read("none", 1) is None
    assert files.open("tile/none") is None
    assert files.open("tile") is None


def test_links_and_pipes_are_named_and_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "export", tmp_path / "outside"
    inside.mkdir()
    outside.write_bytes(b"elsewhere")
    (inside / "checkpoint").symlink_to(outside)
    (inside / "folder").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    files = FolderFiles(inside)
    assert sorted(files.paths()) == ["checkpoint", "folder", "pipe"]
    assert [files.open(name) for name in files.paths()] == [None] * 3


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a folder"):
        FolderFiles(tmp_path / "none")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").write_bytes(b"")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match="cannot be read: Permission denied"):
        FolderFiles(tmp_path).open("checkpoint")
