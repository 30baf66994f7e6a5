"""Where commands about evidence read from. The running deployment is read in tests/integration/test_evidence.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from support.kept_log import kept_files, log_settings, root_of, written
from support.log_world import make_world
from support.notary import ORIGIN, SIGNER

from sealbus.agents.cli.audit.source import EvidenceSource, read_root
from sealbus.agents.cli.options import Invocation
from sealbus.agents.evidence.export import Written
from sealbus.agents.evidence.files import FolderFiles
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.trust_root import Root

WORLD = make_world(1, 12)
ROOT = root_of(WORLD)


def source(**options: Any) -> EvidenceSource:
    config = options.pop("config", None)
    return EvidenceSource(invocation=Invocation(config=config, as_name="operator", as_json=False), **options)


def test_an_export_is_read_where_it_is(tmp_path: Path) -> None:
    written(WORLD.files(), tmp_path)
    with source(export=tmp_path).opened(ROOT) as files:
        assert files == FolderFiles(tmp_path)
    with pytest.raises(ConfigurationError, match="not a folder"), source(export=tmp_path / "no").opened(ROOT):
        pass


def test_otherwise_one_is_made_and_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []

    async def export_live(of: EvidenceSource, folder: Path, root: Root) -> Written:
        asked.extend((of, root))
        written(WORLD.files(), folder)
        return Written()

    monkeypatch.setattr(EvidenceSource, "export_live", export_live)
    running = source(log_folder=tmp_path, config="sealbus.toml")
    with running.opened(ROOT) as files:
        assert isinstance(files, FolderFiles)
        assert sorted(files.paths()) == sorted(WORLD.files())
        folder = files.folder
    assert not folder.exists()
    assert asked == [running, ROOT]


def test_the_root_file(tmp_path: Path) -> None:
    path = tmp_path / "root.json"
    path.write_text(json.dumps(WORLD.root()))
    assert read_root(path).encode() == ROOT.encode()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_root(tmp_path / "none")


def test_only_what_is_running_may_vouch_for_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "root.json"
    path.write_text(json.dumps(WORLD.root()))
    assert source(root=path, export=tmp_path).trusted_root().encode() == ROOT.encode()
    with pytest.raises(click.UsageError, match="can vouch for itself"):
        source(export=tmp_path).trusted_root()
    with pytest.raises(click.UsageError, match="can vouch for itself"):
        source().root_file()
    log = written(kept_files(WORLD), tmp_path / "log")
    log_settings(tmp_path)
    config = str(tmp_path / "sealbus.toml")
    with pytest.raises(ConfigurationError, match="give --root FILE"):
        source(log_folder=log, config=config).trusted_root()
    key = tmp_path / "key"
    key.write_text(SIGNER.secret_text() + "\n")
    key.chmod(0o600)
    log_settings(tmp_path, f'origin = "{ORIGIN}"', f'keys = ["{key}"]')
    made = source(log_folder=log, config=config).trusted_root()
    assert (made.keys, made.bundles) == ((SIGNER.verifier,), ROOT.bundles)
    assert "trusted" in capsys.readouterr().err
