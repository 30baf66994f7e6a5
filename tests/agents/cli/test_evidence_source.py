"""Where commands about evidence read from. The running deployment is read in tests/integration/test_evidence.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.kept_log import root_of, written
from support.log_world import make_world

from sealbus.agents.cli import evidence_source
from sealbus.agents.cli.evidence_source import opened_source, read_root
from sealbus.agents.evidence.export_writer import Written
from sealbus.agents.evidence.files import FolderFiles
from sealbus.envelopes.errors import ConfigurationError

WORLD = make_world(1, 12)
ROOT = root_of(WORLD)


def test_an_export_is_read_where_it_is(tmp_path: Path) -> None:
    written(WORLD.files(), tmp_path)
    with opened_source(tmp_path, None, None, "operator", ROOT) as files:
        assert files == FolderFiles(tmp_path)
    with pytest.raises(ConfigurationError, match="not a folder"), opened_source(tmp_path / "no", None, None, "", ROOT):
        pass


def test_otherwise_one_is_made_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    async def export_live(folder: Path, *arguments: object) -> Written:
        asked.extend(arguments)
        written(WORLD.files(), folder)
        return Written()

    monkeypatch.setattr(evidence_source, "export_live", export_live)
    with opened_source(None, tmp_path, "sealbus.toml", "operator", ROOT) as files:
        assert isinstance(files, FolderFiles)
        assert sorted(files.paths()) == sorted(WORLD.files())
        folder = files.folder
    assert not folder.exists()
    assert asked == [tmp_path, "sealbus.toml", "operator", ROOT]


def test_the_root_file(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    path.write_text(json.dumps(WORLD.root()))
    assert read_root(path).encode() == ROOT.encode()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_root(tmp_path / "none")
