"""`sealbus backup` and `sealbus restore`: what is said wrong. What they do is in tests/chaos/test_restore.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.settings import SMALLEST

from sealbus.agents.cli.operate import backup, restore


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (backup.command, [], "Missing argument"),
        (backup.command, ["DIR"], "give --log DIR, or --without-log"),
        (restore.command, [], "give either a FOLDER or --check"),
        (restore.command, ["DIR", "--check"], "give either a FOLDER or --check"),
        (restore.command, ["DIR"], "give --log DIR, or --without-log"),
        (restore.command, ["DIR", "--lose", "-1"], "--lose"),
    ],
)
def test_what_is_missing(tmp_path: Path, command: object, arguments: list[str], said: str) -> None:
    config = tmp_path / "sealbus.toml"
    config.write_text(SMALLEST)
    found = CliRunner().invoke(command, [*arguments, "--config", str(config)])  # type: ignore[arg-type]
    assert found.exit_code == 2
    assert said in found.output
