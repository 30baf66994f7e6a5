"""Files with the edge's secrets: readable by their owner alone, and of one form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealbus.agents.edge.oauth.private_file import KEY_BYTES, read_key, write_key
from sealbus.envelopes.errors import ConfigurationError

KEY = bytes(range(KEY_BYTES))


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o610, 0o644, 0o777])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key(written(tmp_path / "key", KEY.hex().encode(), mode))


@pytest.mark.parametrize(
    "content", [b"", b"00", KEY, KEY.hex().upper().encode(), KEY.hex().encode() + b"00", KEY.hex().encode() + b"\n\n"]
)
def test_what_is_no_key_is_refused_without_being_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is not such a key") as refused:
        read_key(written(tmp_path / "key", content))
    assert KEY.hex() not in str(refused.value).lower()


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_key(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigurationError, match="is not such a key"):
        read_key(tmp_path / "pipe")


def test_a_new_key_is_for_its_owner_alone_and_replaces_none(tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two"):
        write_key(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        keys.append(read_key(tmp_path / name))
    assert keys[0] != keys[1]
    before = (tmp_path / "one").read_bytes()
    with pytest.raises(ConfigurationError, match="cannot be written: File exists"):
        write_key(tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == before
