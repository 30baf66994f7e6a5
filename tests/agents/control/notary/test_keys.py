"""Key files: made once, for their owner alone; anything else is refused by its name."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.envelopes.errors import ConfigurationError

ORIGIN = "log.example.org/audit"


def test_a_key_is_made_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    made = make_key_file(path, ORIGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [loaded] = load_signers([path], ORIGIN)
    assert loaded.verifier == made.verifier
    assert made.secret_text() not in repr(loaded)


def test_no_key_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    make_key_file(path, ORIGIN)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        make_key_file(path, ORIGIN)
    assert path.read_bytes() == before


def test_where_no_key_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the origin"):
        make_key_file(tmp_path / "a.key", "a b")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        make_key_file(tmp_path / "missing" / "a.key", ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_one_key_serves_the_logs_of_all_periods(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    made = make_key_file(path, ORIGIN)
    [loaded] = load_signers([path], f"{ORIGIN}/2026-11")
    assert loaded.verifier == made.verifier
    for other in (f"{ORIGIN}-2026", ORIGIN[:-1], f"x/{ORIGIN}", ORIGIN.upper(), f"{ORIGIN.upper()}/2026-11"):
        with pytest.raises(ConfigurationError, match="is a key of"):
            load_signers([path], other)


def test_two_keys_overlap(tmp_path: Path) -> None:
    paths = [tmp_path / "old.key", tmp_path / "new.key"]
    made = [make_key_file(path, ORIGIN).verifier for path in paths]
    assert [one.verifier for one in load_signers(paths, ORIGIN)] == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    make_key_file(path, ORIGIN)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_signers([path], ORIGIN)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff\xfe", b"x" * 5_000])
def test_what_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not a key of a log"):
        load_signers([path], ORIGIN)


def test_keys_of_another_log_the_same_twice_and_none(tmp_path: Path) -> None:
    path, ours = tmp_path / "a.key", tmp_path / "ours.key"
    make_key_file(path, "another")
    make_key_file(ours, ORIGIN)
    for paths in ([path], [ours, path], [path, ours]):
        with pytest.raises(ConfigurationError, match=r"a\.key is a key of 'another'"):
            load_signers(paths, ORIGIN)
    with pytest.raises(ConfigurationError, match="listed twice"):
        load_signers([path, path], "another")
    with pytest.raises(ConfigurationError, match=r"control\.notary\.keys is not set"):
        load_signers([], ORIGIN)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_signers([tmp_path / "missing"], ORIGIN)
