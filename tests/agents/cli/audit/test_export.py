"""`sealbus audit export` and `root`: what they say, and with which code they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.kept_log import kept_files, log_settings, written
from support.log_world import make_world

from sealbus.agents.cli.audit.group import command
from sealbus.agents.cli.audit.source import EvidenceSource
from sealbus.agents.evidence.export import Written

WORLD = make_world(1, 12)


@pytest.mark.parametrize(("missing", "code"), [([], 0), ([3, 9], 4)])
def test_what_the_stream_no_longer_holds_is_said(
    missing: list[int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def export_live(*_: object) -> Written:
        return Written(entries=12, missing=missing, missing_count=len(missing))

    monkeypatch.setattr(EvidenceSource, "export_live", export_live)
    (tmp_path / "root.json").write_text(json.dumps(WORLD.root()))
    result = CliRunner().invoke(command, ["export", str(tmp_path / "out"), "--root", str(tmp_path / "root.json")])
    assert result.exit_code == code
    assert "12 entries" in result.stderr
    assert ("2 messages of the log are no longer in the stream: #3, #9" in result.stderr) == bool(missing)


def test_a_policy_that_is_not_in_the_archive_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def export_live(*_: object) -> Written:
        return Written(entries=12, policies=2, missing_policies=["policies/x.tar.gz"])

    monkeypatch.setattr(EvidenceSource, "export_live", export_live)
    (tmp_path / "root.json").write_text(json.dumps(WORLD.root()))
    result = CliRunner().invoke(command, ["export", str(tmp_path / "out"), "--root", str(tmp_path / "root.json")])
    assert result.exit_code == 4
    assert "12 entries, 2 policy bundles" in result.stderr
    assert "policies/x.tar.gz is named in the log but no longer in the notary's folder" in result.stderr


def test_the_root_file_is_printed(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    log_settings(tmp_path)
    keys = [word for key in WORLD.keys for word in ("--key", key.vkey)]
    arguments = ["root", *keys, "--log", str(log), "--config", str(tmp_path / "sealbus.toml")]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["origin"] == "log.example.org/audit"
    assert document["bundles"] == [one.hex() for one in WORLD.pinned]
