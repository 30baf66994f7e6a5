"""`--key FILE`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.policy_desk import key_file

from sealbus.agents.cli.policy.key_option import read_key
from sealbus.envelopes.errors import ConfigurationError


def test_the_key_in_the_file(tmp_path: Path) -> None:
    file, key = key_file(tmp_path / "key.pem")
    assert read_key(file).public == key.public


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("junk", encoding="ascii")
    with pytest.raises(ConfigurationError, match=r"key\.pem: not a private key"):
        read_key(tmp_path / "key.pem")
    with pytest.raises(ConfigurationError, match="name the signing key"):
        read_key(None)
