"""The keys of a responder as files: made once, private, never overwritten, never guessed at."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sealbus.agents.control.callout.key_files import CalloutKeys, load_keys, write_keys
from sealbus.envelopes.errors import ConfigurationError


def loaded(folder: Path) -> CalloutKeys:
    return load_keys(issuer=folder / "issuer.seed", xkey=folder / "xkey.seed", user=folder / "user.seed")


def test_what_is_written_is_private_and_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys = write_keys(folder)
    assert loaded(folder).public() == keys.public()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}
    assert modes == {"issuer.seed": 0o600, "xkey.seed": 0o600, "user.seed": 0o600, "public.env": 0o644}
    lines = dict(line.split("=") for line in (folder / "public.env").read_text().splitlines())
    assert lines == keys.public()
    assert {name: value[0] for name, value in lines.items()} == {
        "CALLOUT_ISSUER": "A",
        "CALLOUT_USER": "U",
        "CALLOUT_XKEY": "X",
    }
    assert not any(line.startswith("S") for line in lines.values())


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    write_keys(folder)
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write_keys(folder)
    (folder / "issuer.seed").unlink()
    with pytest.raises(ConfigurationError, match="holds xkey"):
        write_keys(folder)
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == {
        name: content for name, content in before.items() if name != "issuer.seed"
    }


def test_a_folder_that_is_open_to_others_gets_no_keys(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConfigurationError, match="open to others"):
        write_keys(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        write_keys(tmp_path / "file")


@pytest.mark.parametrize("name", ["issuer.seed", "xkey.seed", "user.seed"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_seed_that_others_may_read_is_not_used(tmp_path: Path, name: str, mode: int) -> None:
    folder = tmp_path / "keys"
    write_keys(folder)
    (folder / name).chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        loaded(folder)


@pytest.mark.parametrize("content", [b"", b"SU", b"\xff\xfe", b"S" * 10_000])
def test_what_is_no_seed_is_named_without_being_shown(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "keys"
    write_keys(folder)
    (folder / "issuer.seed").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"issuer\.seed: not a"):
        loaded(folder)


def test_seeds_that_changed_places_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    write_keys(folder)
    seed = (folder / "user.seed").read_text().strip()
    (folder / "issuer.seed").write_text(seed)
    with pytest.raises(ConfigurationError, match="begins with SA") as caught:
        loaded(folder)
    assert seed not in str(caught.value)


def test_a_seed_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="keygen"):
        loaded(tmp_path)
