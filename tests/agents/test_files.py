"""Files that other processes read: whole, with their mode from the first moment, and nothing left beside them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sealbus.agents.files import PRIVATE, PUBLIC, replace_file


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o177])
def test_a_file_has_its_mode_whatever_the_mask(tmp_path: Path, mode: int, mask: int) -> None:
    path = tmp_path / "key"
    before = os.umask(mask)
    try:
        replace_file(path, b"one", mode=mode)
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"one", mode)


def test_a_secret_is_never_readable_by_others_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = os.open

    def watched(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append(mode)
        assert flags & os.O_EXCL
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    replace_file(tmp_path / "key", b"secret", mode=PRIVATE)
    assert opened == [PRIVATE]


def test_a_file_is_replaced_and_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    path = tmp_path / "key"
    path.symlink_to(elsewhere)
    replace_file(path, b"two", mode=PRIVATE)
    assert not path.is_symlink()
    assert (path.read_bytes(), elsewhere.read_bytes()) == (b"two", b"untouched")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["elsewhere", "key"]


def test_what_cannot_be_put_in_place_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    replace_file(path, b"old", mode=PRIVATE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new", mode=PRIVATE)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("key", b"old")]
