"""Where a deployment keeps its log, as its settings say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cosigners import ML_DSA_44, Cosigner, cosigned
from support.kept_log import log_settings
from support.log_world import LogKey, note

from sealbus.agents.evidence.files import LogPlace
from sealbus.envelopes.errors import ConfigurationError


def test_what_the_settings_say(tmp_path: Path) -> None:
    plain = note(5, bytes(32), [LogKey("before")])
    (tmp_path / "previous").write_bytes(cosigned(plain, Cosigner("one"), Cosigner("two", ML_DSA_44)))
    lines = (f'folder = "{tmp_path}"', 'stream = "AUDIT_2"', f'previous = "{tmp_path / "previous"}"')
    assert LogPlace.of(log_settings(tmp_path, *lines), None) == LogPlace(tmp_path, "AUDIT_2", plain)
    assert LogPlace.of(log_settings(tmp_path, *lines), Path("other")) == LogPlace(Path("other"), "AUDIT_2", plain)


def test_another_folder_is_enough(tmp_path: Path) -> None:
    assert LogPlace.of(log_settings(tmp_path), tmp_path) == LogPlace(tmp_path)


def test_no_folder_and_no_previous_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="with --log DIR"):
        LogPlace.of(log_settings(tmp_path), None)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        LogPlace.of(log_settings(tmp_path, 'previous = "/nowhere/previous"'), tmp_path)
